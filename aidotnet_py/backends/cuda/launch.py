"""Functions of CUDA C++ and the calls of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from aidotnet_py.backends.cuda.steps import Parameters

__all__ = ["BLOCK", "SHARED", "Launch", "function_text", "unflattened"]

# Threads of a block that do not work together.
BLOCK = 128
# Bytes of shared memory that any GPU has for a block.
SHARED = 48 * 2**10


@dataclass(frozen=True)
class Launch:
    """A call of a function of CUDA C++.

    Attributes
    ----------
    code : str
        Its definition, and those of others of the same work; NAME stands for a name that all of them begin with.
    suffix : str
        What follows NAME in its own.
    blocks, threads : int
        The grid, along x alone.
    arguments : tuple of int
        Which arguments of the kernel it takes.
    """

    code: str
    suffix: str
    blocks: int
    threads: int
    arguments: tuple[int, ...]

    @property
    def module(self) -> str:
        """The name that the code is known by: equal code, equal name."""
        return "k" + hashlib.sha256(self.code.encode()).hexdigest()[:24]

    @property
    def name(self) -> str:
        """The function's."""
        return self.module + self.suffix

    @property
    def text(self) -> str:
        """The code under its name."""
        return self.code.replace("NAME", self.module)


def unflattened(flat: str, axes: Sequence[int], shape: Sequence[int]) -> dict[int, str]:
    """The index along each of these axes, the last of which is the fastest, of one that counts them all."""
    found: dict[int, str] = {}
    step = 1
    for axis in reversed(axes):
        index = flat if step == 1 else f"{flat} / {step}u"
        if axis != axes[0]:
            index = f"{index} % {shape[axis]}u"
        found[axis] = f"(I)({index})"
        step *= shape[axis]
    return found


def function_text(suffix: str, parameters: Parameters, index: str, body: Sequence[str], threads: int) -> str:
    """A function that a GPU runs; in its body, I and U are the integers that count, with and without a sign."""
    lines = "".join(f"  {line}\n" for line in body)
    unsigned = "unsigned" if index == "int" else "unsigned long long"
    return (
        f'extern "C" __global__ void __launch_bounds__({threads}) NAME{suffix}({parameters.text()}) {{\n'
        f"  typedef {index} I; typedef {unsigned} U;\n{lines}}}\n"
    )
