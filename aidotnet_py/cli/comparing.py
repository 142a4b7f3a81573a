"""The commands that compare algorithms, and join what several machines found."""

from __future__ import annotations

import io
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from aidotnet_py.arguments import refusal
from aidotnet_py.cli.completion import names
from aidotnet_py.cli.new_files import require_new_files, write_output
from aidotnet_py.cli.paths import path_of
from aidotnet_py.cli.refusals import INTERRUPTED, Debug, refusals
from aidotnet_py.cli.tables import print_tables, tables_of
from aidotnet_py.cli.workers import Scheduler, Workers
from aidotnet_py.comparison import ALGORITHMS, PROBLEMS, Comparison, ComparisonSettings
from aidotnet_py.comparison import compare as run_comparison
from aidotnet_py.comparison import merge as join_comparisons
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.plotting import draw_adaptation_curves, figure_formats
from aidotnet_py.runs.executors import executor_of
from aidotnet_py.whole_files import read_file

__all__ = ["add_commands"]

# Options by the argument names of the floors below; the last two names are the loaders'.
_OPTIONS = {
    **{
        name: f"--{name.replace('_', '-')}"
        for name in (*(field.name for field in fields(ComparisonSettings)), "figure", "json")
    },
    "seeds": "--seed",
    "source": "--archive",
    "KShot": "--shots",
    "earlier": "the --json file",
}


_Figure = Annotated[Path | None, typer.Option(help="Draw the curves into this file (PNG, SVG, PDF …).", dir_okay=False)]
_Json = Annotated[Path | None, typer.Option(help="Write all numbers into this file.", dir_okay=False)]


def _defaults(name: str) -> str:
    return ", ".join(f"{getattr(problem, name)} on {data}" for data, problem in PROBLEMS.items())


def compare(
    data: Annotated[
        str, typer.Option(help=f"What to learn: {', '.join(PROBLEMS)}.", autocompletion=names(PROBLEMS))
    ] = "sinusoid",
    algorithms: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Names with commas between, of {', '.join(ALGORITHMS)}.",
            show_default="all",
            autocompletion=names(ALGORITHMS),
        ),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Steps of training.", show_default=_defaults("iterations"))
    ] = None,
    meta_batch: Annotated[int | None, typer.Option(help="Tasks a step.", show_default=_defaults("meta_batch"))] = None,
    shots: Annotated[
        int | None,
        typer.Option(help="Support examples, per class if there are classes.", show_default=_defaults("shots")),
    ] = None,
    test_tasks: Annotated[
        int | None, typer.Option(help="Number of new tasks in the test.", show_default=_defaults("test_tasks"))
    ] = None,
    adaptation_steps: Annotated[
        int | None, typer.Option(help="Steps of adaptation in the test.", show_default=_defaults("adaptation_steps"))
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="Of weights and training tasks; give several for more runs.", show_default="0"),
    ] = None,
    archive: Annotated[
        str | None, typer.Option(help="Omniglot's archive or folder, such as images_background_small1.zip.")
    ] = None,
    figure: _Figure = None,
    json: _Json = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the runs of the --json file, and make the missing runs.")
    ] = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    debug: Debug = False,
) -> None:
    """Train algorithms on the same tasks from the same start, and test how they learn new tasks.

    The baselines are a random start, and transfer: one model trained on the pooled examples of the same tasks; for
    classes, the nearest class mean too, of raw inputs and after the untrained network without its last layer. Each run
    is in the --json file when it ends, for --resume.

    Example: aidotnet-py compare --algorithms iMAML,MAML --seed 0 --seed 1 --json found.json --figure curves.png
    """
    with refusals("compare", debug=debug, spell=_with_option):
        settings = ComparisonSettings.of(
            data,
            algorithms=[name.strip() for given in algorithms for name in given.split(",")] if algorithms else None,
            iterations=iterations,
            meta_batch=meta_batch,
            shots=shots,
            test_tasks=test_tasks,
            adaptation_steps=adaptation_steps,
            seeds=seed or (0,),
            archive=archive,
        )
        if not resume:
            _require_no_runs(json)
        earlier = _earlier(json) if resume else None
        executor = executor_of(workers, scheduler)
        _make_ready(figure, json)
        file = json if json is not None and _is_or_will_be_file(json) else None
        kept = None if file is None else _KeptRuns(file)
        with _told_how_to_resume(file):
            found = run_comparison(settings, earlier=earlier, on_run=kept, executor=executor)
        _report(found, figure, json)


def merge(
    files: Annotated[list[Path], typer.Argument(help="Files that `compare --json` wrote.", parser=path_of)],
    figure: _Figure = None,
    json: _Json = None,
    debug: Debug = False,
) -> None:
    """Join comparisons of the same data and lengths from several machines, each with its own seeds.

    Example: aidotnet-py merge here.json there.json --json all.json --figure curves.png
    """
    with refusals("merge", debug=debug, spell=_with_option):
        found: dict[str, Comparison] = {}
        for file in files:
            if str(file) in found:
                raise ArgumentException(f"files must be different, got {str(file)!r} twice")
            found[str(file)] = _read(file)
        joined = join_comparisons(found)
        _make_ready(figure, json, files)
        _require_none_lost(json, joined)
        _report(joined, figure, json)


def add_commands(app: typer.Typer) -> None:
    """Give the command line these commands."""
    for command in (compare, merge):
        app.command()(command)


def _read(file: Path) -> Comparison:
    """Return the comparison of a file."""
    try:
        return Comparison.from_json(read_file(file).decode())
    except (ArgumentException, UnicodeDecodeError) as error:
        raise ArgumentException(
            f"{str(file)!r} must be a file that compare --json wrote, got another: {error!s:.200}"
        ) from error


def _earlier(json: Path | None) -> Comparison | None:
    """Return the comparison to go on with; None where a stopped one has not ended its first run."""
    if json is None:
        raise ArgumentException("--resume must have a --json file to take runs from, got none")
    # A kill at its very beginning leaves an empty file, if any.
    return _read(json) if json.exists() and json.stat().st_size else None


def _require_no_runs(json: Path | None) -> None:
    """Raise ArgumentException if a new comparison would overwrite another one, which may have taken hours."""
    if json is not None and json.is_file() and json.stat().st_size:
        raise ArgumentException(
            f"{refusal('json', 'a new or empty file', str(json))}; pass --resume to keep its runs, or remove it"
        )


def _require_none_lost(json: Path | None, joined: Comparison) -> None:
    """Raise ArgumentException if a file would be overwritten that holds other runs than those that are joined."""
    if json is None or not json.is_file() or not json.stat().st_size:
        return
    curves = [(run.seed, run.algorithm, run.losses, run.accuracies) for run in joined.runs]
    for run in _read(json).runs:
        if (run.seed, run.algorithm, run.losses, run.accuracies) not in curves:
            raise ArgumentException(
                f"{refusal('json', 'a new file, or one of the runs that are joined', str(json))}, which has another "
                f"{run.algorithm} from seed {run.seed}; give another name, or remove it"
            )


def _is_or_will_be_file(json: Path) -> bool:
    """Return whether a path is none of a device or a pipe, which would get each of the runs several times."""
    return json.is_file() or not json.exists()


class _KeptRuns:
    """A file that gets the runs so far after each run, unless another command has written there since."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = self._content()

    def __call__(self, so_far: Comparison) -> None:
        if self._content() not in (b"", self._known):
            raise ArgumentException(
                f"{refusal('json', 'the file of one command at a time', str(self._file))}, which another one has "
                "written meanwhile; give each command a file of its own, and join them by aidotnet-py merge"
            )
        data = so_far.to_json().encode()
        write_output(self._file, data)
        self._known = data

    def _content(self) -> bytes:
        return read_file(self._file) if self._file.exists() else b""


@contextmanager
def _told_how_to_resume(file: Path | None) -> Generator[None]:
    """Say after Ctrl-C which file has the runs that have ended, if one has."""
    try:
        yield
    except KeyboardInterrupt as error:
        where = "no run is kept; with --json FILE they would be" if file is None else f"{file} has the runs that ended"
        remedy = "" if file is None else "; the same command with --resume goes on"
        print(f"aidotnet-py compare: stopped, {where}{remedy}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from error


def _with_option(message: str) -> str:
    """Replace a message's first word, the name of an argument, by the option of the command line."""
    name, space, rest = message.partition(" ")
    return _OPTIONS.get(name, name) + space + rest


def _make_ready(figure: Path | None, json: Path | None, inputs: Sequence[Path] = ()) -> None:
    """Check before the work that the results can be written, and create missing folders."""
    if figure is not None:
        formats = figure_formats()
        if figure.suffix.removeprefix(".").lower() not in formats:
            raise ArgumentException(refusal("figure", f"a name that ends in one of {', '.join(formats)}", str(figure)))
    paths = {name: path for name, path in (("figure", figure), ("json", json)) if path is not None}
    for name, path in paths.items():
        file = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
        if file is not None:
            raise ArgumentException(f"{refusal(name, 'in a folder', str(path))}, where {str(file)!r} is a file")
    missing = {parent for path in paths.values() for parent in path.parents if not parent.exists()}
    try:
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        require_new_files({f"--{name}": path for name, path in paths.items()}, inputs, streams=["--json"])
    except BaseException:
        for folder in sorted(missing, key=lambda parent: len(parent.parts), reverse=True):
            with suppress(OSError):
                folder.rmdir()
        raise


def _report(comparison: Comparison, figure: Path | None, json: Path | None) -> None:
    try:
        # Tables first: they have all numbers, if a file cannot be written.
        print_tables(tables_of(comparison))
    finally:
        _write(comparison, figure, json)
    for name, path in (("Figure", figure), ("Numbers", json)):
        if path is not None:
            print(f"{name}: {path}")


def _write(comparison: Comparison, figure: Path | None, json: Path | None) -> None:
    if json is not None:
        write_output(json, comparison.to_json().encode())
    if figure is not None:
        curves = {f"seed {seed}": comparison.curves(seed) for seed in comparison.settings.seeds}
        # Any: matplotlib's stubs leave the types of its keywords open.
        drawn: Any = draw_adaptation_curves(
            {title: losses for title, (losses, _) in curves.items()},
            {title: accuracies for title, (_, accuracies) in curves.items() if accuracies},
            f"{comparison.settings.test_tasks} new tasks of {comparison.settings.data}, with 95 % intervals",
        )
        image = io.BytesIO()
        drawn.savefig(image, format=figure.suffix.removeprefix(".").lower())
        write_output(figure, image.getvalue())
