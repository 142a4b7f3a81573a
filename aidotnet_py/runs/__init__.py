"""Runs of training that are kept in folders: settings, metrics, checkpoints, curves, and logs of other tools."""

from aidotnet_py.runs.environment import environment
from aidotnet_py.runs.folder import RunFolder
from aidotnet_py.runs.logs import CsvLog, MLflowLog, TensorBoardLog
from aidotnet_py.runs.opening import open_learner

__all__ = ["CsvLog", "MLflowLog", "RunFolder", "TensorBoardLog", "environment", "open_learner"]
