"""What all commands print: warnings, and to a standard output that takes no more."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Generator
from contextlib import redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

import pytest
from command_line import run_command
from rich.table import Table

from aidotnet_py import RunFolder
from aidotnet_py.cli.app import app
from aidotnet_py.cli.output import both_streams
from aidotnet_py.cli.tables import print_tables

COMMANDS = [[], ["--help"], ["--version"], ["info"], ["info", "--json"]]


def code_of(arguments: list[Any], stdout: TextIO) -> Any:
    with redirect_stdout(stdout), pytest.raises(SystemExit) as done:
        app([str(argument) for argument in arguments])
    return done.value.code


@pytest.fixture
def full() -> Generator[TextIO]:
    """A file on a full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w", encoding="utf-8") as stream:
        yield stream


@pytest.fixture
def closed_pipe() -> Generator[TextIO]:
    """A pipe to a program that has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        yield stream


class TestFullDisk:
    @pytest.mark.parametrize("arguments", COMMANDS)
    def test_is_a_failure_in_one_line(
        self, arguments: list[str], full: TextIO, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert code_of(arguments, full) == 1
        assert capsys.readouterr().err == (
            "aidotnet-py: standard output must take what is printed, got [Errno 28] No space left on device\n"
        )

    def test_keeps_the_run(self, tmp_path: Path, full: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aidotnet_py.runs.folder.draw_training", lambda *_: (_ for _ in ()).throw(ImportError()))
        assert isinstance(full, TextIOWrapper)
        # As for PYTHONUNBUFFERED=1: it fails at the first line.
        full.reconfigure(write_through=True)
        short = ("--iterations", 2, "--set", "options.MetaBatchSize=1", "--set", "options.EvaluationFrequency=0")
        assert code_of(["train", "sinusoid", "--run", tmp_path / "run", *short], full) == 1
        assert RunFolder(tmp_path / "run").checkpoints[-1].name == "checkpoint_MAML_2.safetensors"

    @pytest.mark.slow
    def test_keeps_the_files_of_a_comparison(self, tmp_path: Path, full: TextIO) -> None:
        found, joined = tmp_path / "found.json", tmp_path / "joined.json"
        short = ("--iterations", "1", "--meta-batch", "1", "--test-tasks", "2", "--adaptation-steps", "1")
        assert code_of(["compare", "--algorithms", "FOMAML", *short, "--json", found], StringIO()) == 0
        assert isinstance(full, TextIOWrapper)
        full.reconfigure(write_through=True)
        assert code_of(["merge", found, "--json", joined], full) == 1
        assert joined.read_text() == found.read_text()

    def test_changes_no_refusal(self, tmp_path: Path, full: TextIO, capsys: pytest.CaptureFixture[str]) -> None:
        assert code_of(["evaluate", tmp_path / "nowhere"], full) == 2
        assert "path must be the folder of a run" in capsys.readouterr().err


class TestClosedPipe:
    @pytest.mark.parametrize("arguments", COMMANDS)
    def test_ends_a_command_as_shells_have_it(
        self, arguments: list[str], closed_pipe: TextIO, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert code_of(arguments, closed_pipe) == 141
        assert capsys.readouterr().err == ""

    @pytest.mark.slow
    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_ends_the_process_as_shells_have_it(self, closed_pipe: TextIO, unbuffered: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "aidotnet_py", "info"],
            stdout=closed_pipe,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
        assert (done.returncode, done.stderr) == (141, b"")


class TestNoStream:
    """A process that was started with a stream closed, as by a service or by pythonw."""

    def test_tables_need_no_standard_output(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdout", None)
        with both_streams():
            print_tables([Table("algorithm")])
        assert sys.stdout is None

    def test_a_refusal_does_not_come_out_of_standard_output(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "stderr", None)
        with pytest.raises(SystemExit) as done:
            app(["evaluate", "nowhere", "--json"])
        assert done.value.code == 2
        assert capsys.readouterr().out == ""


def test_characters_that_standard_output_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aidotnet_py.cli.information.environment", lambda: {"of": "1 ± 2"})
    written = BytesIO()
    assert code_of(["info"], TextIOWrapper(written, encoding="ascii")) == 0
    assert written.getvalue().split() == [b"of", b"1", b"\\xb1", b"2"]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("command", ["info", "evaluate", "adapt", "compare", "bench"])
def test_warnings_are_one_line(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def warn(*_: Any, **__: Any) -> Any:
        warnings.warn("of this\nand that", stacklevel=2)
        return {}

    arguments = {
        "evaluate": [str(tmp_path)],
        "adapt": [str(tmp_path), *("--support", "a", "--query", "b", "--out", "c")],
    }
    monkeypatch.setattr("aidotnet_py.cli.information.environment", warn)
    for module in ("training", "adapting"):
        monkeypatch.setattr(f"aidotnet_py.cli.{module}.settings_of", warn)
    monkeypatch.setattr("aidotnet_py.cli.comparing.ComparisonSettings.of", warn)
    monkeypatch.setattr("aidotnet_py.cli.measuring.measure_speed", warn)
    before = warnings.showwarning
    done = run_command([command, *arguments.get(command, [])])
    assert "aidotnet-py: of this and that\n" in done.stderr
    assert "UserWarning" not in done.stderr
    assert warnings.showwarning is before
