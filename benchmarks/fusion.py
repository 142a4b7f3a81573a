"""What could run a chain of elementwise work in one pass: ``python -m benchmarks.fusion``.

Batch norm with ReLU, forward, on four tasks of (980, 64) in float32, on one thread. Candidates that are not installed
are left out.
"""

from __future__ import annotations

import ctypes
import importlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.autodiff.transforms.batching import vmap_program
from aidotnet_py.backends import NumPyBackend
from benchmarks.environment import measure_unforced
from benchmarks.report import table

__all__: list[str] = []

Values = NDArray[np.float32]
Step = Callable[[], Any]
TASKS, ROWS, CHANNELS, EPSILON = 4, 980, 64, 1e-5


def _arrays() -> tuple[Values, Values, Values, Values]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((TASKS, ROWS, CHANNELS), np.float32)
    scale, shift = rng.standard_normal((2, TASKS, CHANNELS), np.float32)
    return x, scale, shift, np.empty_like(x)


def _ours(x: Values, scale: Values, shift: Values, out: Values, *, compiled: bool) -> Step:
    single = ad.trace(lambda x, a, b: ad.relu(ad.batch_norm(x, a, b)), x[0], scale[0], shift[0])
    program = vmap_program(single, [True] * 3, TASKS)
    executable = Executable(program, NumPyBackend(compiled=compiled), inputs=[x, scale, shift], outputs=[out])
    executable.compile()
    return executable.run


def _blocked(x: Values, scale: Values, shift: Values, out: Values) -> Step:
    work = np.empty((64, CHANNELS), np.float32)

    def run() -> None:
        for task in range(TASKS):
            mean, variance = x[task].mean(0), np.zeros(CHANNELS, np.float32)
            for start in range(0, ROWS, 64):
                part = x[task, start : start + 64]
                block = np.subtract(part, mean, out=work[: len(part)])
                variance += np.multiply(block, block, out=block).sum(0)
            factor = scale[task] / np.sqrt(variance / ROWS + EPSILON)
            for start in range(0, ROWS, 64):
                part, into = x[task, start : start + 64], out[task, start : start + 64]
                np.subtract(part, mean, out=into)
                np.multiply(into, factor, out=into)
                np.add(into, shift[task], out=into)
                np.maximum(into, 0, out=into)

    return run


def _numexpr(x: Values, scale: Values, shift: Values, out: Values) -> Step:
    numexpr: Any = importlib.import_module("numexpr")
    numexpr.set_num_threads(1)

    def run() -> None:
        mean = x.mean(1, keepdims=True)
        centred = x - mean
        variance = np.einsum("tij,tij->tj", centred, centred)[:, None] / ROWS
        factor, offset = (scale[:, None] / np.sqrt(variance + EPSILON)).astype(np.float32), shift[:, None]
        names = {"x": x, "m": mean, "f": factor, "b": offset}
        numexpr.evaluate("where((x - m) * f + b > 0, (x - m) * f + b, 0)", names, out=out, casting="same_kind")

    return run


def _numba(x: Values, scale: Values, shift: Values, out: Values) -> Step:
    numba: Any = importlib.import_module("numba")

    @numba.njit(fastmath=False)
    def loops(x: Values, scale: Values, shift: Values, out: Values) -> None:
        for t in range(TASKS):
            mean, variance = np.zeros(CHANNELS, np.float32), np.zeros(CHANNELS, np.float32)
            for i in range(ROWS):
                for c in range(CHANNELS):
                    mean[c] += x[t, i, c]
            mean /= np.float32(ROWS)
            for i in range(ROWS):
                for c in range(CHANNELS):
                    d = x[t, i, c] - mean[c]
                    variance[c] += d * d
            factor = scale[t] / np.sqrt(variance / np.float32(ROWS) + np.float32(EPSILON))
            for i in range(ROWS):
                for c in range(CHANNELS):
                    out[t, i, c] = max((x[t, i, c] - mean[c]) * factor[c] + shift[t, c], np.float32(0))

    loops(x, scale, shift, out)
    return lambda: loops(x, scale, shift, out)


_C = """
#include <math.h>
void run(const float *restrict x, const float *restrict scale, const float *restrict shift, float *restrict out) {
    for (int t = 0; t < TASKS; t++) {
        float mean[CHANNELS] = {0}, variance[CHANNELS] = {0}, factor[CHANNELS];
        for (int i = 0; i < ROWS; i++)
            for (int c = 0; c < CHANNELS; c++) mean[c] += x[i * CHANNELS + c];
        for (int c = 0; c < CHANNELS; c++) mean[c] /= ROWS;
        for (int i = 0; i < ROWS; i++)
            for (int c = 0; c < CHANNELS; c++) {
                float d = x[i * CHANNELS + c] - mean[c];
                variance[c] += d * d;
            }
        for (int c = 0; c < CHANNELS; c++) factor[c] = scale[c] / sqrtf(variance[c] / ROWS + EPSILON);
        for (int i = 0; i < ROWS; i++)
            for (int c = 0; c < CHANNELS; c++) {
                float y = (x[i * CHANNELS + c] - mean[c]) * factor[c] + shift[c];
                out[i * CHANNELS + c] = y > 0 ? y : 0;
            }
        x += ROWS * CHANNELS, out += ROWS * CHANNELS, scale += CHANNELS, shift += CHANNELS;
    }
}
"""


def _c(x: Values, scale: Values, shift: Values, out: Values) -> Step:
    if shutil.which("cc") is None:
        raise ModuleNotFoundError("no C compiler")
    folder = Path(tempfile.mkdtemp())
    (folder / "loops.c").write_text(_C)
    sizes = [f"-DTASKS={TASKS}", f"-DROWS={ROWS}", f"-DCHANNELS={CHANNELS}", f"-DEPSILON={EPSILON}f"]
    options = ["-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-shared", "-fPIC"]
    library = folder / "loops.so"
    subprocess.run(["cc", *options, *sizes, "-o", str(library), str(folder / "loops.c"), "-lm"], check=True)
    run = ctypes.CDLL(str(library)).run
    shutil.rmtree(folder)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, scale, shift, out)]
    return lambda: run(*pointers)


def _microseconds(step: Step, repeats: int = 200) -> float:
    times: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return 1e6 * median(times)


def main() -> None:
    """Print a line a candidate: time to prepare, time of a run, distance from NumPy in float64."""
    measure_unforced()
    makers: dict[str, Callable[..., Step]] = {
        "the engine, operation by operation": lambda *arrays: _ours(*arrays, compiled=False),
        "NumPy in blocks": _blocked,
        "numexpr": _numexpr,
        "Numba": _numba,
        "C": _c,
        "the engine, compiled": lambda *arrays: _ours(*arrays, compiled=True),
    }
    x, scale, shift, _ = (a.astype(np.float64) for a in _arrays())
    centred = x - x.mean(1, keepdims=True)
    exact = np.maximum(
        centred / np.sqrt((centred**2).mean(1, keepdims=True) + EPSILON) * scale[:, None] + shift[:, None], 0
    )
    rows: list[list[str]] = []
    for name, make in makers.items():
        arrays = _arrays()
        began = time.perf_counter()
        try:
            step = make(*arrays)
        except ModuleNotFoundError:
            continue
        step()
        prepared = time.perf_counter() - began
        error = float(np.abs(arrays[-1] - exact).max())
        rows.append([name, f"{prepared:.2f}", f"{_microseconds(step):.0f}", f"{error:.0e}"])
    title = f"Batch norm and ReLU of ({TASKS}, {ROWS}, {CHANNELS}), float32"
    table(Console(), title, ["candidate", "s to prepare", "µs a run", "error"], rows)


if __name__ == "__main__":
    main()
