"""Functions of CUDA C++, and their calls."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from aidotnet_py.backends.cuda.steps import Parameters

__all__ = ["BLOCK", "SHARED", "Launch", "function_text", "unflattened"]

# Threads of a block in which each thread works alone.
BLOCK = 128
# Bytes of shared memory per block on every GPU.
SHARED = 48 * 2**10


@dataclass(frozen=True)
class Launch:
    """A call of a function of CUDA C++.

    Attributes
    ----------
    code : str
        The definition of the function, and of others for the same work. Their names start with NAME, a placeholder.
    suffix : str
        The rest of the function's name, after NAME.
    blocks, threads : int
        The grid, along x alone.
    arguments : tuple of int
        The kernel's arguments that the function takes, as indices.
    """

    code: str
    suffix: str
    blocks: int
    threads: int
    arguments: tuple[int, ...]

    @property
    def module(self) -> str:
        """The name that replaces NAME: equal code has equal names."""
        return "k" + hashlib.sha256(self.code.encode()).hexdigest()[:24]

    @property
    def name(self) -> str:
        """The function's name."""
        return self.module + self.suffix

    @property
    def text(self) -> str:
        """The code with NAME replaced."""
        return self.code.replace("NAME", self.module)


def unflattened(flat: str, axes: Sequence[int], shape: Sequence[int]) -> dict[int, str]:
    """Split a flat index over axes, of which the last is the fastest, into an index along each axis."""
    indices: dict[int, str] = {}
    step = 1
    for axis in reversed(axes):
        index = flat if step == 1 else f"{flat} / {step}u"
        if axis != axes[0]:
            index = f"{index} % {shape[axis]}u"
        indices[axis] = f"(I)({index})"
        step *= shape[axis]
    return indices


def function_text(suffix: str, parameters: Parameters, index: str, body: Sequence[str], threads: int) -> str:
    """Return the definition of a function for the GPU; I and U in its body are the signed and unsigned index types."""
    lines = "".join(f"  {line}\n" for line in body)
    unsigned = "unsigned" if index == "int" else "unsigned long long"
    return (
        f'extern "C" __global__ void __launch_bounds__({threads}) NAME{suffix}({parameters.text()}) {{\n'
        f"  typedef {index} I; typedef {unsigned} U;\n{lines}}}\n"
    )
