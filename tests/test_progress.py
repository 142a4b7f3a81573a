"""Progress bars: in terminals and notebooks, and nowhere else."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from aidotnet_py.progress import progress_bar


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without ipywidgets, as IPython tells of it."""
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr("aidotnet_py.progress.find_spec", lambda name: None)


def test_a_notebook_without_widgets_gets_a_line_of_text_and_no_warning(notebook: None) -> None:
    out = io.StringIO()
    assert list(progress_bar(range(3), desc="training", file=out)) == [0, 1, 2]
    assert "training: 100%" in out.getvalue()


def test_a_log_gets_nothing() -> None:
    out = io.StringIO()
    out.isatty = lambda: False  # type: ignore[method-assign]
    assert list(progress_bar(range(3), file=out)) == [0, 1, 2]
    assert out.getvalue() == ""


def test_a_terminal_gets_a_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out: Any = Terminal()
    with progress_bar(total=2, desc="training", file=out) as bar:
        bar.update()
        bar.update()
    assert "training: 100%" in out.getvalue()


@pytest.mark.parametrize("closed", [False, True])
def test_a_process_without_standard_error_gets_no_bar(monkeypatch: pytest.MonkeyPatch, closed: bool) -> None:
    # As under pythonw, and in services that close it.
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream if closed else None)
    assert list(progress_bar(range(3), desc="training")) == [0, 1, 2]
