"""Learners from their files and the folders of their runs, with the encoding of the data that they learned from."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, cast

from aidotnet_py.arguments import Choice, refusal, shown
from aidotnet_py.caller import level_outside
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import MetaLearnerBase
from aidotnet_py.models.raw_data import encoding_in, encoding_of_model, set_encoding
from aidotnet_py.paths import check_path
from aidotnet_py.runs.folder import RunFolder
from aidotnet_py.runs.run_data import KINDS, Encoding, encoding_of
from aidotnet_py.runs.run_files import METRICS, is_run_file
from aidotnet_py.runs.saved_learners import warn_of_older_best
from aidotnet_py.saving import load

__all__ = ["checkpoint_of", "encoding_of_learner", "learner_of", "open_learner"]


def checkpoint_of(folder: RunFolder, checkpoint: str) -> Path:
    """Return the file of 'best', 'last' or a checkpoint's name or path.

    A name without a folder is first the run's own file, since all runs name their checkpoints alike, and then one of
    the working folder.

    Raises
    ------
    ArgumentException
        When the run has no such checkpoint.
    """
    if checkpoint == "best" and folder.best.exists():
        return folder.best
    if checkpoint in ("best", "last"):
        # A run without evaluations has no best one.
        if not folder.checkpoints:
            raise ArgumentException(f"{str(folder.path)!r} must hold a checkpoint, got none; give the path of a file")
        return folder.checkpoints[-1]
    given, own = Path(checkpoint), folder.path / checkpoint
    places = (own, given) if given.name == checkpoint else (given, own)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        names = "".join(f", such as {file.name}" for file in folder.checkpoints[-1:])
        raise ArgumentException(refusal("--checkpoint", f"{Choice('best', 'last')}, or a file{names}", checkpoint))
    return path


def learner_of(folder: RunFolder, file: Path) -> MetaLearnerBase[Any, Any, Any]:
    """Return the learner of a checkpoint that `checkpoint_of` gave for this folder.

    Raises
    ------
    ArgumentException
        When the file is damaged, or holds something else, such as an adapted model.

    Warns
    -----
    UserWarning
        When the best checkpoint is not that of the best evaluation, as in a copy made while the run went on.
    """
    learner = _load_of(folder, file)
    if not isinstance(learner, MetaLearnerBase):
        raise ArgumentException(refusal("--checkpoint", "the file of a learner", type(learner).__name__))
    return cast("MetaLearnerBase[Any, Any, Any]", learner)


def _load_of(folder: RunFolder, file: Path) -> Any:
    """Return what a file of a run's folder, or another file, holds."""
    item = load(file)
    if file == folder.best and isinstance(item, MetaLearnerBase):
        warn_of_older_best(file, item.CurrentIteration, folder.path / METRICS)
    return cast(Any, item)


def open_learner(path: str | os.PathLike[str]) -> tuple[Any, Encoding | None]:
    """Return the learner of a run's folder, or the learner or adapted model of a file, and the encoding of its data.

    The folder stands for its best checkpoint, or for the last where nothing was evaluated. The encoding is that of the
    `TableLoader` or `ImageFolderLoader` that it learned from; None without one.

    Raises
    ------
    FileNotFoundError
        When there is no such file, or the folder holds no run.
    ArgumentException
        When it is no path, the file is damaged, or it needs functions or classes that only `aidotnet_py.load` with
        ``trust`` may use.

    Warns
    -----
    UserWarning
        When the folder's best checkpoint is not that of the best evaluation, as in a copy made while the run went on.

    Examples
    --------
    >>> import tempfile
    >>> from aidotnet_py import MAMLAlgorithm, MAMLOptions, NeuralNetworkModel, RunFolder
    >>> from aidotnet_py.data import SinusoidLoader
    >>> from aidotnet_py.nn import mlp
    >>> from aidotnet_py.runs import open_learner
    >>> model = NeuralNetworkModel(mlp(8, 1), input_shape=(1,), seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options = MAMLOptions(model, DataLoader=SinusoidLoader(seed=0), NumMetaIterations=2)
    ...     _ = MAMLAlgorithm(options).Train(run=RunFolder(folder))
    ...     learner, encoding = open_learner(folder)
    >>> learner.CurrentIteration, encoding
    (2, None)
    """
    given = check_path("path", path, "the folder of a run, or a file")
    folder = RunFolder(given if given.is_dir() else given.parent)
    try:
        # Refuses a folder without a run.
        run = folder.read() if given.is_dir() or folder.holds_run else {}
    except ArgumentException:
        # Another program's run.json is nothing to a file that is none of a run.
        if given.is_dir() or is_run_file(given.name):
            raise
        run = {}
    learner = _load_of(folder, checkpoint_of(folder, "best")) if given.is_dir() else load(given)
    model = _model_of(learner)
    if encoding_of_model(model) is None:
        # Runs of older versions have it in run.json alone.
        set_encoding(model, encoding_in(run.get("settings")))
    return learner, encoding_of_learner(learner)


def encoding_of_learner(item: Any) -> Encoding | None:
    """Return the encoding of what a learner or model learned from, or else of the learner's DataLoader; None without.

    Raises
    ------
    ArgumentException
        When the property ``"encoding"`` of its model is damaged.

    Warns
    -----
    UserWarning
        When that property is of a kind that this package does not know; the encoding is None then.
    """
    known = encoding_of_model(_model_of(item))
    if known is None:
        options = cast("MetaLearnerBase[Any, Any, Any]", item).Options if isinstance(item, MetaLearnerBase) else None
        encoding = getattr(getattr(options, "DataLoader", None), "encoding", None)
        return encoding if isinstance(encoding, Encoding) else None
    if known["kind"] not in KINDS:
        warnings.warn(
            f"encoding's kind should be {Choice(*KINDS)}, got {shown(known['kind'])}; make inputs of raw data yourself",
            UserWarning,
            stacklevel=level_outside(),
        )
        return None
    return encoding_of(known)


def _model_of(item: Any) -> Any:
    """Return the model of a learner, or a model itself."""
    return cast("MetaLearnerBase[Any, Any, Any]", item).BaseModel if isinstance(item, MetaLearnerBase) else item
