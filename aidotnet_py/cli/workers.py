"""The options of commands whose steps can be shared out to workers."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Scheduler", "Workers"]

Workers = Annotated[
    int | None, typer.Option(help="Processes that share the tasks of a step.", show_default="this one alone")
]
Scheduler = Annotated[
    str | None, typer.Option(help="A Dask scheduler whose workers share the tasks, such as tcp://127.0.0.1:8786.")
]
