"""The command that tells of versions and devices."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from aidotnet_py.runs import environment

__all__ = ["add_commands"]


def info(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Show versions, BLAS kernels, threads, GPUs and the cache of compiled kernels.

    Example: aidotnet-py info --json
    """
    known = environment()
    if as_json:
        print(json.dumps(known))
        return
    for name, value in known.items():
        print(f"{name:12} {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items()) or "none"  # pyright: ignore[reportUnknownVariableType] -- of anything
    if isinstance(value, list):
        return "; ".join(map(_shown, value)) or "none"  # pyright: ignore[reportUnknownArgumentType] -- of anything
    return "none" if value is None else str(value)


def add_commands(app: typer.Typer) -> None:
    """Give the command line this command."""
    app.command()(info)
