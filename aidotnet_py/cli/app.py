"""The commands and their arguments."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from aidotnet_py.arguments import refusal
from aidotnet_py.cli.tables import tables_of
from aidotnet_py.comparison import ALGORITHMS, PROBLEMS, Comparison, ComparisonSettings
from aidotnet_py.comparison import compare as run_comparison
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException
from aidotnet_py.plotting import draw_adaptation_curves, figure_formats

__all__ = ["app"]


class _OneLine(TyperGroup):
    """A group of commands that reports wrong arguments in one line."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, standalone_mode: bool = True, **more: Any) -> Any:
        """Run a command and, in standalone mode, end the process with its exit code."""
        try:
            code = super().main(args, *rest, **more | {"standalone_mode": False})
        except typer.Abort:
            code = _INTERRUPTED
        except Exception as error:
            # Typer uses click, or in some versions its own copy; the exceptions of both have these two members.
            format_message, code = getattr(error, "format_message", None), getattr(error, "exit_code", None)
            if format_message is None:
                raise
            print(f"aidotnet-py: {' '.join(format_message().split())}", file=sys.stderr)
        if standalone_mode:
            sys.exit(code or 0)
        return code


app = typer.Typer(help="Meta-learning on NumPy.", add_completion=False, cls=_OneLine)

# The exit code of shells for a program that Ctrl-C ended.
_INTERRUPTED = 130

# Written beside the results' files to test for free space.
_PROBE = bytes(2**16)

# The width of tables in files and pipes, which have no width.
_WIDTH = 132

# Options by the argument names of the floors below; the last two names are the loaders'.
_OPTIONS = {
    **{
        name: f"--{name.replace('_', '-')}"
        for name in (*(field.name for field in fields(ComparisonSettings)), "figure", "json")
    },
    "seeds": "--seed",
    "source": "--archive",
    "KShot": "--shots",
}


def _defaults(name: str) -> str:
    return ", ".join(f"{getattr(problem, name)} on {data}" for data, problem in PROBLEMS.items())


@app.callback(invoke_without_command=True)
def _commands(context: typer.Context) -> None:  # pyright: ignore[reportUnusedFunction] -- typer keeps it
    """Meta-learning on NumPy."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def compare(
    data: Annotated[str, typer.Option(help=f"What to learn: {', '.join(PROBLEMS)}.")] = "sinusoid",
    algorithms: Annotated[
        list[str] | None,
        typer.Option(help=f"Names with commas between, of {','.join(ALGORITHMS)}.", show_default="all"),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Steps of training.", show_default=_defaults("iterations"))
    ] = None,
    meta_batch: Annotated[int | None, typer.Option(help="Tasks a step.", show_default=_defaults("meta_batch"))] = None,
    shots: Annotated[
        int | None, typer.Option(help="Support examples, of a class if there are any.", show_default=_defaults("shots"))
    ] = None,
    test_tasks: Annotated[
        int | None, typer.Option(help="Tasks that all are tested on.", show_default=_defaults("test_tasks"))
    ] = None,
    adaptation_steps: Annotated[
        int | None, typer.Option(help="Steps followed in the test.", show_default=_defaults("adaptation_steps"))
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="Of weights and training tasks; give several for more runs.", show_default="0"),
    ] = None,
    archive: Annotated[
        str | None, typer.Option(help="Omniglot's archive or folder, such as images_background_small1.zip.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw the curves into this file (PNG, SVG, PDF …).", dir_okay=False)
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all numbers into this file.", dir_okay=False)] = None,
) -> None:
    """Train algorithms on the same tasks from the same start, and test how they learn new tasks.

    The baselines are a random start, and transfer: one model trained on the pooled examples of the same tasks.
    """
    with _refusals():
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
        _make_ready(figure, json)
        _report(run_comparison(settings), figure, json)


@contextmanager
def _refusals() -> Generator[None]:
    """Print expected errors as one line, and exit with 2 for wrong arguments, 1 for failures of the run."""
    try:
        yield
    except (ArgumentException, ImportError, OSError, InvalidOperationException, MemoryError) as error:
        message = _with_option(str(error)) if isinstance(error, ArgumentException) else str(error)
        if isinstance(error, MemoryError):
            message = "the memory of this machine is not enough; fewer tasks or shots take less"
        print(f"aidotnet-py compare: {message}", file=sys.stderr)
        raise typer.Exit(1 if isinstance(error, (InvalidOperationException, MemoryError)) else 2) from error


def _with_option(message: str) -> str:
    """Replace a message's first word, the name of an argument, by the option of the command line."""
    name, space, rest = message.partition(" ")
    return _OPTIONS.get(name, name) + space + rest


def _make_ready(figure: Path | None, json: Path | None) -> None:
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
        _require_writable(paths)
    except BaseException:
        for folder in sorted(missing, key=lambda parent: len(parent.parts), reverse=True):
            with suppress(OSError):
                folder.rmdir()
        raise


def _require_writable(paths: dict[str, Path]) -> None:
    """Raise unless these are different, writable files; new files are removed again."""
    with ExitStack() as stack:
        seen: dict[tuple[int, int], str] = {}
        for name, path in paths.items():
            if not path.exists():
                # Registered before the file is opened, so that it is closed before its removal.
                stack.callback(path.unlink, missing_ok=True)
            file = stack.enter_context(path.open("ab"))
            status = os.fstat(file.fileno())
            # Several spellings and links may name one file.
            other = seen.setdefault((status.st_dev, status.st_ino), name)
            if other != name:
                raise ArgumentException(f"{refusal(name, 'a file of its own', str(path))}, the file of --{other}")
            # A device that refuses all data refuses even empty data; a full file system refuses only some data.
            try:
                os.write(file.fileno(), b"")
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error
            if path.is_file():
                with tempfile.TemporaryFile(dir=path.parent) as probe:
                    probe.write(_PROBE)


def _report(comparison: Comparison, figure: Path | None, json: Path | None) -> None:
    # Tables first, since printing them cannot fail.
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    for table in tables_of(comparison):
        console.print(table)
    if json is not None:
        json.write_text(comparison.to_json(), encoding="utf-8")
    if figure is not None:
        curves = {f"seed {seed}": comparison.curves(seed) for seed in comparison.settings.seeds}
        # Any: matplotlib's stubs leave the types of its keywords open.
        drawn: Any = draw_adaptation_curves(
            {title: losses for title, (losses, _) in curves.items()},
            {title: accuracies for title, (_, accuracies) in curves.items() if accuracies},
            f"{comparison.settings.test_tasks} new tasks of {comparison.settings.data}, with 95 % intervals",
        )
        drawn.savefig(figure)
    for name, path in (("Figure", figure), ("Numbers", json)):
        if path is not None:
            print(f"{name}: {path}")
