"""Results as text and HTML: their numbers, and titled rows of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from aidotnet_py.markup import curve, table
from aidotnet_py.meta_learning.contract.statistics import BasicStats, BestValue

__all__ = ["change", "html", "loss_and_accuracy", "number", "place_of_best", "report", "shown_rows", "spread"]


def number(value: Any) -> str:
    """Return six digits of a number."""
    return f"{float(value):.6g}"


def place_of_best(best: BestValue[Any]) -> str:
    """Return the best of a history with its place; nothing if all are NaN."""
    return "" if math.isnan(best.Value) else f"{number(best.Value)} at iteration {best.Iteration}"


def loss_and_accuracy(loss: Any, accuracy: Any) -> str:
    """Return both; no accuracy that is NaN."""
    return f"loss {number(loss)}" + ("" if math.isnan(accuracy) else f", accuracy {number(accuracy)}")


def change(first: Any, last: Any, improvement: Any) -> str:
    """Return how a number changed; nothing if the improvement is NaN."""
    if math.isnan(improvement):
        return ""
    how = "worsened" if improvement < 0 else "improved"
    return f"{number(first)} → {number(last)} ({how} by {number(abs(improvement))})"


def spread(stats: BasicStats[Any]) -> str:
    """Return the mean with its confidence interval and the extent; nothing if it is NaN."""
    if math.isnan(stats.Mean):
        return ""
    width = float(stats.ConfidenceInterval().HalfWidth)
    extent = f"median {number(stats.Median)}, from {number(stats.Min)} to {number(stats.Max)}"
    return f"{number(stats.Mean)} ± {width:.3g} ({extent})"


def shown_rows(rows: Mapping[str, str], metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return rows and metrics without the empty rows of what has no meaning, such as the accuracy of a regression."""
    shown = {name: text for name, text in rows.items() if text}
    return shown | {name: number(value) for name, value in metrics.items()}


def report(title: str, rows: Mapping[str, str]) -> str:
    """Return rows as lines of text."""
    return "\n".join([title, *(f"  {name:<20} {value}" for name, value in rows.items())])


def html(title: str, rows: Mapping[str, str], losses: NDArray[Any] | None = None) -> str:
    """Return rows as a table, with the curve of losses below."""
    drawn = "" if losses is None or len(losses) < 2 else curve(losses)
    return table(title, (), rows.items()) + drawn
