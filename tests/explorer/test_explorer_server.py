"""The explorer's command and server, as far as no browser is needed."""

from __future__ import annotations

import importlib
import socket
from typing import Any

import pytest
from typer.testing import CliRunner

from aidotnet_py import ArgumentException
from aidotnet_py.cli.app import app
from aidotnet_py.explorer import server


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_a_port_that_is_none(port: int) -> None:
    done = CliRunner().invoke(app, ["explore", "--port", str(port)])
    assert done.exit_code == 2
    assert "port must be a whole number from 1 to 65535" in done.stderr


@pytest.mark.slow
def test_a_port_that_is_taken() -> None:
    pytest.importorskip("bokeh", reason="Bokeh is not installed")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = CliRunner().invoke(app, ["explore", "--port", str(port)])
    assert done.exit_code == 2
    assert f"port must be free, got {port}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_bokeh_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name="bokeh")

    monkeypatch.setattr(server, "import_module", missing)
    with pytest.raises(ImportError, match=r"needs bokeh: pip install \"aidotnet-py\[explore\]\""):
        server.serve(5006)
    with pytest.raises(ArgumentException, match="port must be"):
        server.serve("5006")  # type: ignore[arg-type]


def test_the_room_itself_needs_no_bokeh() -> None:
    assert importlib.import_module("aidotnet_py.explorer").__all__ == ["serve"]


@pytest.mark.parametrize("name", ["inner_problem_page.InnerProblemPage", "meta_gradient_page.MetaGradientPage"])
@pytest.mark.parametrize("control", ["_strength", "_surface"])
def test_a_client_that_sends_what_no_control_offers(name: str, control: str) -> None:
    document = pytest.importorskip("bokeh.document", reason="Bokeh is not installed").Document()
    module, page = name.split(".")
    shown = getattr(importlib.import_module(f"aidotnet_py.explorer.pages.{module}"), page)(document)
    getattr(shown, control).update(value="nope")
    with shown.refusals():
        shown.respond()
    assert " must be " in shown._alert.text
    assert "nope" in shown._alert.text
