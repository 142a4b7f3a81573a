"""The explorer's command and server, as far as no browser is needed."""

from __future__ import annotations

import http.client
import importlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import run_command
from places import ROOT

from aidotnet_py import ArgumentException
from aidotnet_py.explorer import server


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_a_port_that_is_none(port: int) -> None:
    done = run_command(["explore", "--port", str(port)])
    assert done.exit_code == 2
    assert "port must be a whole number from 1 to 65535" in done.stderr


@pytest.mark.slow
def test_a_port_that_is_taken() -> None:
    pytest.importorskip("bokeh", reason="Bokeh is not installed")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run_command(["explore", "--port", str(port)])
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


def page_of(name: str) -> Any:
    document = pytest.importorskip("bokeh.document", reason="Bokeh is not installed").Document()
    module, page = name.split(".")
    return getattr(importlib.import_module(f"aidotnet_py.explorer.pages.{module}"), page)(document)


@pytest.mark.parametrize("name", ["inner_problem_page.InnerProblemPage", "meta_gradient_page.MetaGradientPage"])
@pytest.mark.parametrize("control", ["_strength", "_surface"])
def test_a_client_that_sends_what_no_control_offers(name: str, control: str) -> None:
    shown = page_of(name)
    getattr(shown, control).update(value="nope")
    with shown.refusals():
        shown.respond()
    assert " must be " in shown._alert.text
    assert "nope" in shown._alert.text


def test_a_surface_that_cannot_be_drawn_is_none_of_the_inner_problem() -> None:
    shown = page_of("inner_problem_page.InnerProblemPage")
    before = dict(shown._theta.data)
    shown._surface.update(value="regression with 40 weights")
    assert "the task loss must be an entry of the list" in shown._alert.text
    assert dict(shown._theta.data) == before
    with shown.refusals():
        shown.respond()
    assert "the task loss must be an entry of the list" in shown._alert.text


@pytest.fixture(scope="module")
def shown() -> Any:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    return page_of("digits_page.DigitsPage")


class TestDigitsPage:
    @pytest.mark.filterwarnings("ignore:ColumnDataSource's columns must be of the same length")
    @pytest.mark.parametrize("data", [{}, {"xs": [[1.0]]}, {"xs": [[1.0], [2.0]], "ys": [[1.0]]}])
    def test_a_drawing_that_is_none(self, shown: Any, data: Any) -> None:
        image = shown._image
        shown._strokes.data = data
        assert "the drawing must be lines with as many xs as ys" in shown._alert.text
        assert shown._image is image

    @pytest.mark.parametrize("place", [None, float("nan"), float("inf"), "x", -0.5, 1e308])
    def test_a_press_beside_the_examples_chooses_none(self, shown: Any, place: Any) -> None:
        before = shown._place.options[-1]
        shown._place.value = before
        shown._choose(SimpleNamespace(x=place, y=0.5))
        shown._choose(SimpleNamespace(x=0.5, y=place))
        assert shown._place.value == before
        shown._choose(SimpleNamespace(x=0.5, y=0.5))
        assert shown._place.value == shown._place.options[0]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of an explorer, as the command serves it."""
    pytest.importorskip("bokeh", reason="Bokeh is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "aidotnet_py", "explore", "--port", str(free)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as server:
        assert server.stdout is not None
        assert server.stdout.readline()
        yield free
        server.terminate()


@pytest.mark.slow
class TestVisitors:
    @staticmethod
    def answer(port: int, path: str = "/", method: str = "GET", body: bytes | None = None, **headers: str) -> int:
        named = {name.replace("_", "-"): value.format(port=port) for name, value in headers.items()}
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request(method, path, body, named)
            with connection.getresponse() as response:
                return response.status

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Host": "LocalHost:{port}"},
            {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Dest": "document"},
            {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"},
        ],
    )
    def test_of_this_machine_and_by_links(self, port: int, headers: dict[str, str]) -> None:
        assert self.answer(port, **headers) == 200

    @pytest.mark.parametrize("path", ["/", "/race", "/race/autoload.js?bokeh-autoload-element=a", "/metadata"])
    @pytest.mark.parametrize(
        "headers",
        [
            {"Host": "elsewhere.example:{port}"},
            {"Host": "127.0.0.1"},
            {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "image"},
            {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
        ],
    )
    def test_of_other_sites_get_no_session(self, port: int, path: str, headers: dict[str, str]) -> None:
        assert self.answer(port, path, **headers) == 403

    def test_of_a_site_whose_name_leads_here_get_no_websocket(self, port: int) -> None:
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec_WebSocket_Key": "x3JJHMbDL1EzLkh9GBhXDw==",
            "Sec_WebSocket_Version": "13",
            "Sec_WebSocket_Protocol": "bokeh, token",
        }
        assert self.answer(port, "/ws", Origin="http://127.0.0.1:{port}", **headers) == 101
        elsewhere = {"Host": "elsewhere.example:{port}", "Origin": "http://elsewhere.example:{port}"}
        assert self.answer(port, "/ws", **elsewhere, **headers) == 403

    def test_bodies_are_not_read(self, port: int) -> None:
        assert self.answer(port, method="POST", body=bytes(2**11)) == 400
        assert self.answer(port) == 200
