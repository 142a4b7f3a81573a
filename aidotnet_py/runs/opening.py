"""Learners from the folders of their runs, with the encoding of the data that they were trained on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from aidotnet_py.arguments import Choice, refusal
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.runs.folder import RunFolder
from aidotnet_py.runs.run_data import ENCODING, Encoding, encoding_of
from aidotnet_py.saving import load

__all__ = ["checkpoint_of", "open_learner"]


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
    path = next((place for place in places if place.exists()), None)
    if path is None:
        names = "".join(f", such as {file.name}" for file in folder.checkpoints[-1:])
        raise ArgumentException(refusal("--checkpoint", f"{Choice('best', 'last')}, or a file{names}", checkpoint))
    return path


def open_learner(path: str | os.PathLike[str]) -> tuple[Any, Encoding | None]:
    """Return the learner of a run's folder or of a file, and the encoding of the run's data, if it has one.

    The folder stands for its best checkpoint, or for the last where nothing was evaluated. A checkpoint's file has the
    encoding of the run that it lies in.

    Raises
    ------
    FileNotFoundError
        When there is no such file, or the folder holds no run.
    ArgumentException
        When the file is damaged, or needs functions or classes that only `aidotnet_py.load` with ``trust`` may use.

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
    given = Path(path)
    folder = RunFolder(given if given.is_dir() else given.parent)
    held: Any = folder.read().get("settings") if given.is_dir() or folder.holds_run else None
    described: Any = cast("dict[str, Any]", held).get(ENCODING) if isinstance(held, dict) else None
    learner = load(checkpoint_of(folder, "best") if given.is_dir() else given)
    return learner, None if described is None else encoding_of(described)
