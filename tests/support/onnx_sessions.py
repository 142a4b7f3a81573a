"""Exported graphs, run by onnxruntime and by onnx's reference in NumPy."""

from __future__ import annotations

import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from aidotnet_py.exchange import export_onnx

__all__ = ["exported", "run_file", "run_in_numpy"]


def exported(model, folder, example=None):
    """The path of the graph of a model, and its content."""
    path = folder / "model.onnx"
    export_onnx(model, path, example)
    return path, onnx.load(path)


def run_file(path, x):
    """The output of a graph in onnxruntime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": x})
    return output


def run_in_numpy(path, x):
    """The output of a graph in onnx's reference, which is of NumPy alone."""
    (output,) = ReferenceEvaluator(str(path)).run(None, {"input": x})
    return output
