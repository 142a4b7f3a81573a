"""CuPy's elementwise and reduction kernels on the host: their text, compiled by the machine's own C++ compiler."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

COMPILER = shutil.which("g++") or shutil.which("clang++")

_TYPES = {
    "bool": "bool",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
    "float32": "float",
    "float64": "double",
}

_HEAD = "#include <cmath>\n#include <cstddef>\nusing namespace std;\n"


@cache
def compiled(source: str) -> Any:
    """The function ``run`` of a C++ source."""
    if COMPILER is None:
        pytest.skip("g++ or clang++ must be installed to run kernels of CUDA on the processor")
    with tempfile.TemporaryDirectory() as folder:
        text, library = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
        text.write_text(source)
        # No contraction of a product and a sum into one rounding: nvcc does it, NumPy does not.
        flags = ["-std=c++14", "-O0", "-ffp-contract=off", "-shared", "-fPIC"]
        subprocess.run([COMPILER, *flags, str(text), "-o", str(library)], check=True, capture_output=True)
        function = ctypes.CDLL(str(library)).run
    function.restype = None
    return function


class _Parameter:
    def __init__(self, text: str) -> None:
        *modifiers, self.kind, self.name = text.split()
        self.raw = "raw" in modifiers
        self.generic = self.kind not in _TYPES


def _kinds(parameters: Sequence[_Parameter], arrays: Sequence[Any]) -> dict[str, np.dtype[Any]]:
    """The dtype of each type letter; TypeError where two arrays disagree, as CuPy's."""
    found: dict[str, np.dtype[Any]] = {}
    for parameter, array in zip(parameters, arrays, strict=True):
        if not isinstance(array, np.ndarray):
            continue
        known = found.setdefault(parameter.kind, array.dtype) if parameter.generic else np.dtype(parameter.kind)
        if known != array.dtype:
            raise TypeError(f"Type is mismatched. {parameter.name} {array.dtype} {known}")
    return found


def _typedefs(kinds: dict[str, np.dtype[Any]]) -> str:
    return "".join(f"typedef {_TYPES[dtype.name]} {letter};\n" for letter, dtype in sorted(kinds.items()))


def _pointers(arrays: Sequence[Any]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))


def run_elementwise(
    texts: Sequence[str], operation: str, preamble: str, inputs: Sequence[Any], like: Any | None
) -> Any:
    """The result of an ElementwiseKernel of one output on NumPy arrays and numbers; ``like`` is its ``out``."""
    parameters = [_Parameter(text) for text in texts]
    kinds = _kinds(parameters, [*inputs, like])
    plain = [a for p, a in zip(parameters, [*inputs, like], strict=True) if isinstance(a, np.ndarray) and not p.raw]
    shape = np.broadcast_shapes(*(a.shape for a in plain))
    # The host's compiler may have no half precision: its numbers are computed in single precision, and rounded once.
    given = [kinds[p.kind] if p.generic else np.dtype(p.kind) for p in parameters]
    kinds = {letter: _computed(dtype) for letter, dtype in kinds.items()}
    dtypes = [_computed(dtype) for dtype in given]
    hosts, lines = [], []
    for place, (p, dtype) in enumerate(zip(parameters, dtypes, strict=True)):
        last = place == len(inputs)
        kind = f"{'' if last else 'const '}{_TYPES[dtype.name]}"
        if last:
            hosts.append(np.empty(shape, dtype))
        elif p.raw or not isinstance(inputs[place], np.ndarray):
            hosts.append(np.ascontiguousarray(np.asarray(inputs[place], dtype)))
        else:
            hosts.append(np.ascontiguousarray(np.broadcast_to(inputs[place], shape), dtype))
        step = "" if p.raw else "[i]" if last or isinstance(inputs[place], np.ndarray) else "[0]"
        lines.append(f"{kind} {'*' if p.raw else '&'}{p.name} = (({kind} *)pointers[{place}]){step};\n")
    body = "".join(lines)
    loop = f"for (ptrdiff_t i = 0; i < size; ++i) {{\n{body}{operation};\n}}\n"
    source = f'{_HEAD}{_typedefs(kinds)}{preamble}\nextern "C" void run(ptrdiff_t size, void **pointers) {{\n{loop}}}\n'
    compiled(source)(ctypes.c_ssize_t(hosts[-1].size), _pointers(hosts))
    return hosts[-1].astype(given[-1], copy=False)


def _computed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def run_reduction(texts: Sequence[str], text: tuple[str, str, str, str], inputs: Sequence[Any], axis: int) -> Any:
    """The result of a ReductionKernel on NumPy arrays, over one axis."""
    parameters = [_Parameter(t) for t in texts]
    kinds = _kinds(parameters[:-1], inputs)
    wide = [np.ascontiguousarray(np.moveaxis(a, axis, -1)) for a in np.broadcast_arrays(*inputs)]
    shape, (result,) = wide[0].shape, parameters[-1:]
    hosts = [*wide, np.empty(shape[:-1], kinds[result.kind])]
    mapped, reduced, finished, identity = text
    reads = "".join(
        f"const {p.kind} &{p.name} = (({p.kind} *)pointers[{j}])[o * n + k];\n" for j, p in enumerate(parameters[:-1])
    )
    kind = result.kind
    source = (
        f'{_HEAD}{_typedefs(kinds)}extern "C" void run(ptrdiff_t count, ptrdiff_t n, void **pointers) {{\n'
        f"for (ptrdiff_t o = 0; o < count; ++o) {{\n{kind} total = {identity};\n"
        f"for (ptrdiff_t k = 0; k < n; ++k) {{\n{reads}{kind} a = total, b = {mapped};\ntotal = {reduced};\n}}\n"
        f"{kind} a = total, &{result.name} = (({kind} *)pointers[{len(wide)}])[o];\n{finished};\n}}\n}}\n"
    )
    sizes = ctypes.c_ssize_t(hosts[-1].size), ctypes.c_ssize_t(shape[-1])
    compiled(source)(*sizes, _pointers(hosts))
    return hosts[-1]
