"""Who gets a session: requests to this server by its own name, and not from pages of other sites."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from importlib import import_module
from typing import Any

__all__ = ["own_visitors"]

# By name, as Bokeh's models.
_auth: Any = import_module("bokeh.server.auth_provider")
_web: Any = import_module("tornado.web")


def own_visitors(hosts: Collection[str]) -> Any:
    """Return a provider of Bokeh that refuses requests by other hosts' names, and those that other sites' pages make.

    The origin of a websocket is no such check: a site whose name leads to this machine (DNS rebinding) is its own
    origin. Pages come before websockets, and each costs a session.

    Parameters
    ----------
    hosts : collection of str
        The names of this server, with its port.
    """

    async def check(handler: Any) -> str:
        headers = handler.request.headers
        host = str(handler.request.host).lower()
        if (host if ":" in host else f"{host}:80") not in hosts:
            raise _web.HTTPError(403, "the host must be one of %s, got %r", ", ".join(hosts), host)
        # Browsers tell who asks. A link of another site may lead here; its frames, images and scripts may not.
        is_foreign = headers.get("Sec-Fetch-Site", "none") in ("cross-site", "same-site")
        if is_foreign and headers.get("Sec-Fetch-Dest") != "document":
            raise _web.HTTPError(403, "a page of another site must not embed this one")
        return "visitor"

    class OwnVisitors(_auth.AuthProvider):  # type: ignore[misc]
        get_user_async: Callable[[Any], Awaitable[str]] = staticmethod(check)
        # Bokeh requires one; no visitor is asked to log in.
        login_url = "/"

    return OwnVisitors()
