"""The commands of the package, run in this process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any
from unittest.mock import patch

from typer import testing
from typer.main import get_command

from aidotnet_py.cli.app import app

_command_of = cache(get_command)


def run_command(arguments: Sequence[str], **settings: Any) -> Any:
    """Run a command line and return its output and exit code; settings are those of the runner's `invoke`."""
    # Typer's runner reads the signatures of all commands at each call, which takes longer than most of these.
    with patch.object(testing, "_get_command", _command_of):
        return testing.CliRunner().invoke(app, arguments, **settings)
