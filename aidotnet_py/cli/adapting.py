"""The command that adapts a run's learner to a new task, and writes what it predicts."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from aidotnet_py.archives import check_file_name
from aidotnet_py.arguments import refusal
from aidotnet_py.cli.new_files import require_new_files
from aidotnet_py.cli.paths import path_of
from aidotnet_py.cli.refusals import Debug, refusals
from aidotnet_py.cli.training import Checkpoint, settings_of
from aidotnet_py.data import ImageEncoding, TableEncoding
from aidotnet_py.data.image_folder.listing import is_hidden
from aidotnet_py.data.table.columns import Columns
from aidotnet_py.data.table.reading import read_table
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.runs import RunFolder
from aidotnet_py.runs.opening import checkpoint_of, learner_of
from aidotnet_py.saving import save
from aidotnet_py.whole_files import write_file

__all__ = ["adapt"]

_Row = list[Any]


def adapt(
    run: Annotated[Path, typer.Argument(help="The folder of a run on a folder or a table.", parser=path_of)],
    support: Annotated[
        Path, typer.Option(help="A folder of class folders, or a table with the target's column.", parser=path_of)
    ],
    query: Annotated[Path, typer.Option(help="A folder of images, or a table.", parser=path_of)],
    out: Annotated[Path, typer.Option(help="The CSV file of predictions.", parser=path_of)],
    model: Annotated[
        Path | None,
        typer.Option(help="A file for the adapted model, for aidotnet_py.runs.open_learner.", parser=path_of),
    ] = None,
    checkpoint: Checkpoint = "best",
    debug: Debug = False,
) -> None:
    """Adapt to the examples of a new task, and predict other examples.

    Example: aidotnet-py adapt runs/pets --support new/labelled --query new/photos --out predictions.csv
    """
    with refusals("adapt", debug=debug):
        folder = RunFolder(run)
        made, facts = settings_of(folder, None)
        encoding = facts.require_encoding(run, "adapt its learner in Python, with aidotnet_py.load and Adapt")
        file = checkpoint_of(folder, checkpoint)
        outputs = {"--out": out} if model is None else {"--out": out, "--model": model}
        if model is not None:
            check_file_name("--model", model)
        inputs = [file, Path(made.data), *_files_of(support, "*/*"), *_files_of(query, "*")]
        require_new_files(outputs, inputs, folder.path)
        check_file_name("--out", out, ".csv")
        learner = learner_of(folder, file)
        if isinstance(encoding, ImageEncoding):
            adapted, rows = _predict_images(learner, encoding, made.ways, support, query)
        else:
            adapted, rows = _predict_rows(learner, encoding, support, query, keeps_model=model is not None)
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        # The names of images as their folder has them, in UTF-8 or not.
        write_file(out, text.getvalue().encode("utf-8", sys.getfilesystemencodeerrors()))
        if model is not None:
            save(adapted, model)
        print(f"{len(rows) - 1} predictions: {out}" + (f", adapted model: {model}" if model else ""))


def _predict_images(
    learner: Any, encoding: ImageEncoding, ways: int | None, support: Path, query: Path
) -> tuple[Any, list[_Row]]:
    """Return the adapted model, and for each image of a folder its name, its class, and all classes' probabilities."""
    task = encoding.task(support)
    classes: tuple[str, ...] = task.Metadata["Classes"]
    if ways is not None and len(classes) > ways:
        raise ArgumentException(
            f"--support must have at most {ways} classes, as many as a task of the run, got {len(classes)}"
        )
    if not query.is_dir():
        raise ArgumentException(refusal("--query", "a folder of images", str(query)))
    files = sorted(path for path in _files_of(query, "*") if not is_hidden(path.name))
    if not files:
        raise ArgumentException(f"--query must be a folder with images, got none in {str(query)!r}")
    inputs = encoding.inputs(files)
    adapted = learner.adapt_with_line_search(task)
    scores = np.asarray(adapted.Predict(inputs), np.float64)[:, : len(classes)]
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    chosen = [classes[int(place)] for place in np.argmax(shares, axis=1)]
    rows: list[_Row] = [[*_names_beside(classes, "file", "class"), *classes]]
    rows += [[path.name, name, *own] for path, name, own in zip(files, chosen, shares.round(6).tolist(), strict=True)]
    return adapted, rows


def _predict_rows(
    learner: Any, encoding: TableEncoding, support: Path, query: Path, *, keeps_model: bool
) -> tuple[Any, list[_Row]]:
    """Return the model adapted last, and for each row of a table its number from 1 and its targets.

    The rows of each group are predicted by the model that was adapted to that group.
    """
    known, asked = (
        read_table(path, name, encoding.string_names) for path, name in ((support, "--support"), (query, "--query"))
    )
    parts = _parts_by_group(encoding, known, asked)
    if keeps_model and len(parts) > 1:
        raise ArgumentException(
            f"--model must be left out where --query has several groups, one model for each, got {len(parts)}; adapt "
            "to one group at a time"
        )
    tasks = [(encoding.task(known.take(own)), encoding.inputs(asked.take(rows)), rows) for own, rows in parts]
    values, adapted = dict[int, list[Any]](), None
    for task, inputs, rows in tasks:
        adapted = learner.adapt_with_line_search(task)
        decoded: NDArray[Any] = encoding.decode(adapted.Predict(inputs))
        values.update(zip(rows.tolist(), decoded.reshape(len(inputs), -1).tolist(), strict=True))
    targets = encoding.target_names
    lines = [[row + 1, *values[row]] for row in range(asked.rows)]
    return adapted, [[*_names_beside(targets, "row"), *targets], *lines]


def _parts_by_group(
    encoding: TableEncoding, known: Columns, asked: Columns
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return the rows to adapt to and the rows to predict, of each group that there are rows to predict of.

    A table of one group need not name it.
    """
    supports, queries = encoding.groups(known, "--support"), encoding.groups(asked, "--query")
    if max(len(supports), len(queries)) <= 1 and not (supports and queries):
        return [(np.arange(known.rows), np.arange(asked.rows))]
    for name, own, other, groups in (
        ("--support", supports, "--query", queries),
        ("--query", queries, "--support", supports),
    ):
        if not own:
            raise ArgumentException(
                f"{name} must have the column {encoding.group!r:.80}, in which {other} has {len(groups)} groups, got "
                "none; add it, or give the rows of one group"
            )
    unknown = [group for group in queries if group not in supports]
    if unknown:
        raise ArgumentException(
            f"--query must have groups of --support in column {encoding.group!r:.80}, got {unknown[0]!r:.80}; add rows "
            "of it with known targets to --support"
        )
    return [(supports[group], rows) for group, rows in queries.items()]


def _files_of(path: Path, pattern: str) -> list[Path]:
    """Return the files of a folder, or the one file."""
    return [file for file in path.glob(pattern) if file.is_file()] if path.is_dir() else [path]


def _names_beside(given: Sequence[str], *own: str) -> list[str]:
    """Return names of columns, with underscores after those that columns of the data have."""
    names: list[str] = []
    for name in own:
        while name in given:
            name += "_"
        names.append(name)
    return names
