"""The commands that show what the library does: how fast on this machine, and that it learns."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from aidotnet_py.cli.completion import names
from aidotnet_py.cli.refusals import Debug, refusals
from aidotnet_py.cli.tables import print_tables, tables_of
from aidotnet_py.comparison import ALGORITHMS, PROBLEMS, Comparison, ComparisonSettings, compare, measure_speed
from aidotnet_py.runs import environment

__all__ = ["add_commands"]


def bench(
    data: Annotated[
        str, typer.Option(help=f"What to learn: {', '.join(PROBLEMS)}.", autocompletion=names(PROBLEMS))
    ] = "sinusoid",
    algorithms: Annotated[
        str | None,
        typer.Option(
            help=f"Names with commas between, of {', '.join(ALGORITHMS)}.",
            show_default="all",
            autocompletion=names(ALGORITHMS),
        ),
    ] = None,
    archive: Annotated[str | None, typer.Option(help="Omniglot's archive or folder.")] = None,
    seconds: Annotated[float, typer.Option(help="How long each algorithm is measured, once it is compiled.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """Measure a step of training and an adaptation on this machine, as medians.

    Races against PyTorch and JAX are in the repository: make bench.

    Example: aidotnet-py bench --algorithms MAML,iMAML --data digits
    """
    with refusals("bench", debug=debug):
        chosen = None if algorithms is None else [name.strip() for name in algorithms.split(",")]
        settings = ComparisonSettings.of(data, algorithms=chosen, archive=archive)
        speeds = measure_speed(settings, seconds)
        if as_json:
            measured = {speed.algorithm: {"step_ms": speed.step, "adapt_ms": speed.adapt} for speed in speeds}
            print(
                json.dumps({"data": data, "meta_batch": settings.meta_batch, "algorithms": measured, **environment()})
            )
            return
        table = Table(title=f"{data}: median times in milliseconds, {settings.meta_batch} tasks a step")
        for column in ("", "step", "steps a second", "Adapt and Predict"):
            table.add_column(column, justify="left" if column == "" else "right", no_wrap=True)
        for speed in speeds:
            table.add_row(speed.algorithm, f"{speed.step:.2f}", f"{1000 / speed.step:.0f}", f"{speed.adapt:.2f}")
        print_tables([table])


def demo(debug: Debug = False) -> None:
    """Meta-train on sinusoids for some seconds, and show the gain on new sinusoids.

    Example: aidotnet-py demo
    """
    with refusals("demo", debug=debug):
        settings = ComparisonSettings.of(
            "sinusoid", algorithms=["MAML", "iMAML"], iterations=400, test_tasks=200, adaptation_steps=16
        )
        print(
            f"A task is a sine wave of unknown height and phase, of which {settings.shots} points are known. A network "
            f"sees {settings.iterations * settings.meta_batch:,} such tasks, then {settings.test_tasks} new ones."
        )
        found = compare(settings)
        print_tables(tables_of(found))
        print(
            f"From a random start, {settings.adaptation_steps} steps on the known points leave a squared error of "
            f"{_end(found, 'random')}; from one start for all, {_end(found, 'transfer')}; from the start that MAML "
            f"learned, {_end(found, 'MAML')}, and iMAML, {_end(found, 'iMAML')}."
        )


def _end(found: Comparison, name: str) -> str:
    """Return the loss after all steps."""
    return f"{float(found.of(name)[0].losses[-1].Mean):.2f}"


def add_commands(app: typer.Typer) -> None:
    """Give the command line these commands."""
    for command in (bench, demo):
        app.command()(command)
