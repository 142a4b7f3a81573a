"""The pages by their addresses, as applications of a Bokeh server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from aidotnet_py.explorer.digits import DigitTask
from aidotnet_py.explorer.pages.digits_page import DigitsPage
from aidotnet_py.explorer.pages.inner_problem_page import InnerProblemPage
from aidotnet_py.explorer.pages.meta_gradient_page import MetaGradientPage
from aidotnet_py.explorer.pages.page import Page
from aidotnet_py.explorer.pages.race_page import RacePage

__all__ = ["applications", "prepare"]

_PAGES: Mapping[str, type[Page]] = {
    "/": InnerProblemPage,
    "/gradient": MetaGradientPage,
    "/race": RacePage,
    "/digits": DigitsPage,
}


def applications() -> dict[str, Any]:
    """Return an application for each page, which makes a document of its own for each session."""
    function_handler: Any = import_module("bokeh.application.handlers.function").FunctionHandler
    application: Any = import_module("bokeh.application.application").Application
    return {path: application(function_handler(_maker(page))) for path, page in _PAGES.items()}


def prepare() -> None:
    """Do what takes long at the first page of a kind."""
    DigitTask()


def _maker(page: type[Page]) -> Callable[[Any], None]:
    titles = {path: other.title for path, other in _PAGES.items()}

    def make(document: Any) -> None:
        document.template_variables["pages"] = titles
        page(document)

    return make
