"""The tables of a comparison."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

import numpy as np
from rich.console import Console
from rich.table import Table

from aidotnet_py.comparison import Comparison, Run
from aidotnet_py.comparison.results import Curve, Interval
from aidotnet_py.meta_learning import BasicStats

__all__ = ["print_tables", "tables_of"]

# The width of tables in files and pipes, which have no width, and one that no table has.
_WIDTH, _ANY_WIDTH = 132, 10**6


def print_tables(tables: Iterable[Table]) -> None:
    """Print tables with all of their numbers: where one is wider than the terminal, its lines are broken there."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    within = console.width
    for table in tables:
        # Rich would cut numbers and names off to fit.
        whole = console.measure(table, options=console.options.update(width=_ANY_WIDTH)).maximum
        console.width = max(within, whole)
        console.print(table)


def tables_of(comparison: Comparison) -> list[Table]:
    """Return a table of losses and, for classification, tables of accuracies; with means if there are several seeds."""
    tables = [_table("Mean query loss", comparison, lambda run: run.losses, "{:.3f} ± {:.3f}")]
    if comparison.settings.problem.classification:
        form = "{:.1%} ± {:.1%}"
        tables.append(_table("Query accuracy", comparison, lambda run: run.accuracies or (), form))
        if all(run.single_accuracy is not None for run in comparison.runs):
            tables.append(_single_table(comparison, form))
    return tables


def _single_table(comparison: Comparison, form: str) -> Table:
    """Return the table of accuracies after all steps, for predictions of one example at a time."""
    settings = comparison.settings
    table = Table(title=f"Accuracy one example at a time, after {settings.adaptation_steps} steps")
    for name in ("", *(f"seed {seed}" for seed in settings.seeds)):
        table.add_column(name, justify="left" if name == "" else "right", no_wrap=True)
    for algorithm in comparison.contestants:
        singles = [run.single_accuracy for run in comparison.of(algorithm)]
        table.add_row(algorithm, *(_cell(single, form) for single in singles if single is not None))
    return table


def _table(quantity: str, comparison: Comparison, curve_of: Callable[[Run], Curve], form: str) -> Table:
    settings = comparison.settings
    several = len(settings.seeds) > 1
    last = settings.adaptation_steps
    shown = sorted({0, 1, last // 2, last})
    where = f"{settings.test_tasks} new tasks of {settings.data}"
    table = Table(title=f"{quantity} on {where} after so many steps of adaptation, with 95 % intervals")
    for name in ("", *(["seed"] if several else []), *map(str, shown), "training", "peak memory"):
        table.add_column(name, justify="left" if name == "" else "right", no_wrap=True)
    for algorithm in comparison.contestants:
        runs = comparison.of(algorithm)
        for run in runs:
            cells = [_cell(curve_of(run)[step], form) for step in shown]
            table.add_row(algorithm, *([str(run.seed)] if several else []), *cells, *_costs([run]))
        if several:
            over = [BasicStats.of(np.array([curve_of(run)[step].Mean for run in runs])) for step in shown]
            cells = [_cell(stats.ConfidenceInterval(), form) for stats in over]
            table.add_row(algorithm, "all", *cells, *_costs(runs), style="bold", end_section=True)
    return table


def _cell(interval: Interval, form: str) -> str:
    return form.format(interval.Mean, interval.HalfWidth)


def _costs(runs: list[Run] | tuple[Run, ...]) -> tuple[str, str]:
    """Return the means over the runs."""
    seconds = [run.training_seconds for run in runs if run.training_seconds is not None]
    peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
    return (
        f"{np.mean(seconds):.1f} s" if seconds else "",
        f"{np.mean(peaks) / 2**20:.2f} MiB" if peaks else "",
    )
