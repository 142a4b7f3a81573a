"""The progress bar of long work: in terminals and notebooks, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

__all__ = ["progress_bar"]


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """Return tqdm's bar: a widget in a notebook that has ipywidgets, else a line of text.

    Parameters
    ----------
    iterable : iterable, optional
        What the bar counts; None: its ``update`` is called.
    **options
        Of `tqdm.tqdm`, but ``disable``: the bar hides where standard error is none, or neither terminal nor notebook.

    Examples
    --------
    >>> from aidotnet_py.progress import progress_bar
    >>> sum(progress_bar(range(3)))
    3
    """
    in_notebook = _is_in_notebook()
    # Imported here, since it takes a fifth of the time that the whole package takes.
    if in_notebook and find_spec("ipywidgets") is None:
        # tqdm.auto would draw the same line, and warn.
        from tqdm import tqdm
    else:
        from tqdm.auto import tqdm
    # A notebook's standard error says that it is no terminal; tqdm asks, where it is None here.
    disable = False if in_notebook else None
    if "file" not in options and getattr(sys.stderr, "closed", sys.stderr is None):
        disable = True
    return tqdm(iterable, disable=disable, **options)


def _is_in_notebook() -> bool:
    """Return whether the process is a notebook's kernel, as tqdm.autonotebook finds out."""
    get_shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = None if get_shell is None else get_shell()
    return "IPKernelApp" in getattr(shell, "config", {})
