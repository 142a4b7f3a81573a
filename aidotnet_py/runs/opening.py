"""Learners from their files and the folders of their runs, with the encoding of the data that they learned from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from aidotnet_py.arguments import Choice, refusal
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import MetaLearnerBase
from aidotnet_py.models.raw_data import encoding_of_model
from aidotnet_py.runs.folder import RunFolder
from aidotnet_py.runs.run_data import Encoding, encoding_of
from aidotnet_py.saving import load

__all__ = ["checkpoint_of", "encoding_of_learner", "open_learner"]


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
    """Return the learner of a run's folder, or the learner or adapted model of a file, and the encoding of its data.

    The folder stands for its best checkpoint, or for the last where nothing was evaluated. The encoding is that of the
    `TableLoader` or `ImageFolderLoader` that it learned from; None without one.

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
    if given.is_dir():
        folder = RunFolder(given)
        # Refuses a folder without a run.
        folder.read()
        given = checkpoint_of(folder, "best")
    learner = load(given)
    return learner, encoding_of_learner(learner)


def encoding_of_learner(item: Any) -> Encoding | None:
    """Return the encoding of what a learner or model learned from, or else of the learner's DataLoader; None without.

    Raises
    ------
    ArgumentException
        When the property ``"encoding"`` of its model is none that this package knows.
    """
    model, loader = item, cast(Any, None)
    if isinstance(item, MetaLearnerBase):
        learner = cast("MetaLearnerBase[Any, Any, Any]", item)
        model, loader = learner.BaseModel, learner.Options.DataLoader
    known = encoding_of_model(model)
    if known is not None:
        return encoding_of(known)
    encoding = getattr(loader, "encoding", None)
    return encoding if isinstance(encoding, Encoding) else None
