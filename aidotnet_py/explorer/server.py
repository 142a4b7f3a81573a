"""The explorer as a server on this machine alone."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from aidotnet_py.arguments import Whole

__all__ = ["serve"]

# Reached from this machine alone, whatever its network.
_ADDRESS = "127.0.0.1"
_PORT = Whole(1, 65535)
# How long a session outlives its page, in milliseconds, and the largest message, in bytes: a long drawing has 400 kB.
_SESSION_LASTS, _LARGEST_MESSAGE = 15_000, 2**20
# Of a request, in bytes: no page takes one, but Tornado reads 100 MB before it says so.
_LARGEST_BODY = 2**10


def serve(port: int = 5006, *, on_start: Callable[[str], object] = print) -> None:
    """Serve the explorer's pages on the loopback address until Ctrl-C.

    Parameters
    ----------
    port : int
        From 1 to 65535.
    on_start : callable
        Called with the address of the first page, once it can be opened.

    Raises
    ------
    ArgumentException
        When the port is no whole number.
    ArgumentOutOfRangeException
        When the port lies outside its range.
    ImportError
        When a library of the extra ``explore`` is not installed.
    OSError
        When another program has the port.
    """
    _PORT.check("port", port)
    try:
        bokeh_server: Any = import_module("bokeh.server.server")
        # Late, since all of its pages need Bokeh.
        pages: Any = import_module("aidotnet_py.explorer.pages.addresses")
        access: Any = import_module("aidotnet_py.explorer.pages.access")
    except ModuleNotFoundError as error:
        raise ImportError(f'the explorer needs {error.name}: pip install "aidotnet-py[explore]"') from error
    _require_free(port)
    hosts = [f"{_ADDRESS}:{port}", f"localhost:{port}"]
    server: Any = bokeh_server.Server(
        pages.applications(),
        port=port,
        address=_ADDRESS,
        # Pages of other sites, which a browser may have open too, get no session and no websocket.
        auth_provider=access.own_visitors(hosts),
        allow_websocket_origin=hosts,
        unused_session_lifetime_milliseconds=_SESSION_LASTS,
        websocket_max_message_size=_LARGEST_MESSAGE,
        http_server_kwargs={"max_body_size": _LARGEST_BODY},
    )
    # A page that is closed while an answer is on its way is nothing to warn of.
    logging.getLogger("bokeh.server.views.ws").setLevel(logging.ERROR)
    server.start()
    try:
        on_start(f"http://{_ADDRESS}:{port}/")
        # Before somebody waits for it: scikit-learn takes a second or two to import.
        threading.Thread(target=pages.prepare, daemon=True).start()
        server.io_loop.start()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()


def _require_free(port: int) -> None:
    """Refuse a port that another program has; Tornado would leave a socket open."""
    with socket.socket() as probe:
        # As servers do: a port that was just left is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_ADDRESS, port))
        except OSError as error:
            raise OSError(f"port must be free, got {port} ({error.strerror}); choose another") from error
