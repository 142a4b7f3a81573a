"""θ as text: two numbers that a person types instead of dragging."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.explorer.inner_problem import as_point
from aidotnet_py.explorer.pages.page import Page, numbers_in, widget

__all__ = ["StartInput"]


class StartInput:
    """A text field that shows where a handle is, and moves it."""

    def __init__(self, page: Page, handle: Any) -> None:
        self._handle = handle
        self.input = widget("TextInput", title="θ", value="")
        page.on_value(self.input, self._read)
        self._shown = ""

    def show(self, theta: NDArray[np.float64]) -> None:
        """Show where the handle is."""
        self._shown = f"{theta[0]:.2f}, {theta[1]:.2f}".replace("-", "−")
        self.input.value = self._shown

    def _read(self, text: str) -> None:
        # What is shown has fewer digits than the handle.
        if text == self._shown:
            return
        x, y = as_point("θ", numbers_in("θ", text), 2).tolist()
        self._handle.data = {"x": [x], "y": [y]}
