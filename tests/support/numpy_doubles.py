"""NumPy's backend with more threads than the machine has, and with a count of its calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from aidotnet_py.backends import NumPyBackend

__all__ = ["COUNTED", "CountingBackend", "Threads"]


class Threads(NumPyBackend):
    """NumPy, said to have so many threads."""

    def __init__(self, threads: int) -> None:
        super().__init__(compiled=False)
        self._threads = threads

    @property
    def threads(self) -> int:
        return self._threads


COUNTED = ("astype", "concat", "fold", "matmul", "max", "patches", "scatter_add", "sum", "take")


class CountingBackend(NumPyBackend):
    """NumPy, and how often each operation was called."""

    name = "counting"

    def __init__(self) -> None:
        super().__init__(compiled=False)
        self.calls: Counter[str] = Counter()
        for operation in COUNTED:
            setattr(self, operation, self._counted(operation, getattr(self, operation)))

    def elementwise(self, name: str) -> Any:
        return self._counted(name, super().elementwise(name))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            return function(*args, **kwargs)

        return counted
