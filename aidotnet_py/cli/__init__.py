"""The command `aidotnet-py`, by typer and rich (the ``cli`` extra).

`app` reads the arguments, `tables` writes the results; the floors below do the work.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command; without the extra, print the command that installs it."""
    try:
        from aidotnet_py.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f'aidotnet-py needs {error.name}: pip install "aidotnet-py[cli]"')
    except KeyboardInterrupt:
        # As shells have it; the imports take most of a second.
        sys.exit(130)
    try:
        app()
    except KeyboardInterrupt:
        # Typer reads the commands' signatures first.
        sys.exit(130)
