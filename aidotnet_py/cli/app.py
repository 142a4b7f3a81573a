"""The command line: its group of commands, and what holds for all of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from aidotnet_py.cli import adapting, comparing, exploring, information, measuring, training
from aidotnet_py.cli.output import OutputError, both_streams, checked_output, discard_output, warnings_in_lines
from aidotnet_py.cli.refusals import INTERRUPTED
from aidotnet_py.version import __version__

__all__ = ["app"]


class _OneLine(TyperGroup):
    """A group of commands that reports wrong arguments, warnings and a failed output in one line."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, standalone_mode: bool = True, **more: Any) -> Any:
        """Run a command and, in standalone mode, end the process with its exit code."""
        with both_streams():
            try:
                with warnings_in_lines(), checked_output():
                    code = self._code_of(args, *rest, **more)
            except OutputError as error:
                code = error.exit_code
                if not error.is_closed_pipe:
                    print(f"aidotnet-py: {error}", file=sys.stderr)
                if standalone_mode:
                    discard_output()
        if standalone_mode:
            sys.exit(code or 0)
        return code

    def _code_of(self, args: Sequence[str] | None, *rest: Any, **more: Any) -> Any:
        """Run a command, and return its exit code."""
        try:
            return super().main(args, *rest, **more | {"standalone_mode": False})
        except typer.Abort:
            return INTERRUPTED
        except Exception as error:
            # Typer uses click, or in some versions its own copy; the exceptions of both have these two members.
            format_message, code = getattr(error, "format_message", None), getattr(error, "exit_code", None)
            if format_message is None:
                raise
            print(f"aidotnet-py: {' '.join(format_message().split())}", file=sys.stderr)
            return code


app = typer.Typer(help="Meta-learning on NumPy.", cls=_OneLine)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"aidotnet-py {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _commands(  # pyright: ignore[reportUnusedFunction] -- typer keeps it
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Meta-learning on NumPy."""
    if context.invoked_subcommand is None:
        print(context.get_help())


training.add_commands(app)
app.command()(adapting.adapt)
comparing.add_commands(app)
measuring.add_commands(app)
exploring.add_commands(app)
information.add_commands(app)
