"""The pages of the reference: every public name once, from its docstring, under the shortest path to it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

import aidotnet_py


class Page(NamedTuple):
    """One page: its file, its heading, the modules whose names it has, and where these names are defined."""

    file: str
    heading: str
    modules: tuple[str, ...]
    defined_in: str = ""


# A name goes to the first page that takes it.
PAGES = (
    Page("algorithms", "Algorithms and their options", ("meta_learning",), "aidotnet_py.meta_learning.algorithms"),
    Page("contract", "Tasks, options and results", ("meta_learning",), "aidotnet_py.meta_learning.contract"),
    Page("learner", "What all learners share", ("meta_learning", "meta_learning.extend")),
    Page("models", "Models", ("models",)),
    Page("nn", "Layers and networks", ("nn", "nn.extend")),
    Page("losses", "Losses", ("losses",)),
    Page("optimizers", "Optimizers, schedules and minimisers", ("optimizers",)),
    Page("data", "Data", ("data",)),
    Page("runs", "Runs and files", ("runs", "saving")),
    Page("estimators", "Estimators for scikit-learn", ("estimators",)),
    Page("exchange", "PyTorch and ONNX", ("exchange",)),
    Page("solvers", "Solvers", ("solvers",)),
    Page("implicit", "Implicit derivatives", ("implicit",)),
    Page("autodiff", "Automatic differentiation", ("autodiff",)),
    Page("autodiff_extend", "Autodiff, for those who extend it", ("autodiff.extend",)),
    Page("backends", "Backends", ("backends",)),
    Page("testing", "A kit for tests", ("testing", "testing.strategies")),
    Page("comparison", "Comparison, pictures and the explorer", ("comparison", "plotting", "explorer")),
    Page("exceptions", "Errors", ("exceptions",)),
)


def public_names(module: ModuleType) -> list[str]:
    """`__all__`, or what the module itself defines."""
    defined = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return list(getattr(module, "__all__", [name for name in defined if not name.startswith("_")]))


def names_of(page: Page, taken: set[int]) -> Iterator[tuple[str, object]]:
    """Yield the names of one page with their modules, and the objects that they stand for."""
    for name in page.modules:
        module = import_module(f"aidotnet_py.{name}")
        for attribute in public_names(module):
            value = getattr(module, attribute)
            if id(value) in taken or not getattr(value, "__module__", page.defined_in).startswith(page.defined_in):
                continue
            taken.add(id(value))
            home = "aidotnet_py" if attribute in aidotnet_py.__all__ else module.__name__
            yield f"{home}.{attribute}", value


def entry(name: str, value: object) -> str:
    if inspect.isclass(value):
        # scikit-learn makes methods for its own routing of metadata, whose text refers to its own pages.
        return f".. autoclass:: {name}\n   :members:\n   :exclude-members: set_score_request\n   :show-inheritance:\n"
    kind = "function" if callable(value) and inspect.isroutine(value) else "data"
    return f".. auto{kind}:: {name}\n" + ("   :no-value:\n" if kind == "data" else "")


def text_of(page: Page, names: list[tuple[str, object]]) -> str:
    title = f"{page.heading}\n{'=' * len(page.heading)}\n"
    modules = "Module" + "s" * (len(page.modules) > 1) + ": " + ", ".join(f"``aidotnet_py.{m}``" for m in page.modules)
    table = ".. autosummary::\n   :nosignatures:\n\n" + "".join(f"   ~{name}\n" for name, _ in names)
    return "\n".join([title, modules + "\n", table, *(entry(name, value) for name, value in names)])


def write_pages(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    taken: set[int] = set()
    for page in PAGES:
        text = text_of(page, list(names_of(page, taken)))
        path = folder / f"{page.file}.rst"
        # A page that stays as it was is not read again.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def describe_data(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Replace the docstring of a constant's type by the comment ``#: …`` above the constant."""
    if what != "data":
        return
    # The comment is in the module that defines the constant, somewhere in its room.
    room = ".".join(name.split(".")[:2])
    for module in [module for module in sys.modules if module.startswith(room)]:
        comment = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name.rpartition(".")[2]))
        if comment is not None:
            lines[:] = comment
            return


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", describe_data, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
