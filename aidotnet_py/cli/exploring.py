"""The command that serves the explorer."""

from __future__ import annotations

from typing import Annotated

import typer

from aidotnet_py.cli.refusals import Debug, refusals
from aidotnet_py.explorer import serve

__all__ = ["add_commands"]


def explore(
    port: Annotated[int, typer.Option(help="The port of the pages on this machine.")] = 5006, debug: Debug = False
) -> None:
    """Serve an interactive introduction to iMAML to a browser on this machine, until Ctrl-C.

    Example: aidotnet-py explore
    """
    with refusals("explore", debug=debug):
        serve(port, on_start=_tell)


def _tell(address: str) -> None:
    print(f"The explorer is at {address} (Ctrl-C ends it)", flush=True)


def add_commands(app: typer.Typer) -> None:
    """Give the command line this command."""
    app.command()(explore)
