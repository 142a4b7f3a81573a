"""A backend for PyTorch's tensors on the CPU. It passes `check_backend`, and trains iMAML on sinusoids.

With PyTorch installed: ``python examples/torch_backend.py``. Operations compute a result and copy it into ``out``: the
code is short, not fast.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from aidotnet_py import NeuralNetworkModel, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.backends import register_backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import mlp
from aidotnet_py.testing import check_backend

NUMPY_OF = {
    getattr(torch, name): np.dtype(name)
    for name in ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
}
TORCH_OF = {dtype: kind for kind, dtype in NUMPY_OF.items()}


class Backwards:
    """A NumPy view of the tensor's memory with negative strides, which tensors cannot have."""

    def __init__(self, host: Any) -> None:
        self.host, self.shape, self.dtype = host, host.shape, TORCH_OF[host.dtype]

    def read(self) -> torch.Tensor:
        return torch.from_numpy(self.host.copy())

    def copy_(self, value: torch.Tensor) -> None:
        self.host[...] = value.numpy()

    def fill_(self, number: Any) -> None:
        self.host[...] = number


def plain(array: Any) -> torch.Tensor:
    return array.read() if isinstance(array, Backwards) else array


def seen_by_numpy(array: Any, view: Callable[[Any], Any]) -> Any:
    """A view that NumPy makes of a tensor's memory."""
    host = view(array.host if isinstance(array, Backwards) else array.numpy())
    return Backwards(host) if any(step < 0 for step in host.strides) else torch.from_numpy(host)


def into(out: Any, result: torch.Tensor) -> Any:
    if out is None:
        return result
    out.copy_(result)
    return out


@contextmanager
def errors_of_numpy() -> Any:
    try:
        yield
    except torch.linalg.LinAlgError as error:
        raise np.linalg.LinAlgError(str(error)) from error


# Operations with another name or another function in PyTorch.
FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "equal": torch.eq,
    "not_equal": torch.ne,
    # PyTorch's sign of NaN is 0.
    "sign": lambda x: torch.where(torch.isnan(x), x, torch.sign(x)) if x.is_floating_point() else torch.sign(x),
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
}


class TorchBackend:
    """PyTorch on the CPU as a `Backend`."""

    name = "torch"
    compiler = None
    capturing = None
    # PyTorch runs large operations on its own threads.
    threads = 1
    flops_at_once = 30_000_000

    def owns(self, value: object) -> bool:
        return isinstance(value, (torch.Tensor, Backwards))

    # Arrays, and conversions to and from NumPy.

    def empty(self, shape: tuple[int, ...], dtype: Any) -> torch.Tensor:
        return torch.empty(shape, dtype=TORCH_OF[np.dtype(dtype)])

    def asarray(self, value: Any, dtype: Any = None) -> torch.Tensor:
        if self.owns(value):
            copy = self.empty(tuple(value.shape), self.dtype_of(value) if dtype is None else dtype)
            return copy.copy_(plain(value))
        host = np.array(value, dtype=dtype, order="C")
        return torch.from_numpy(host.astype(host.dtype.newbyteorder("="), copy=False))

    def transfer_aside(self, like: Sequence[Any]) -> Callable[[Sequence[Any]], Sequence[torch.Tensor]]:
        return lambda values: [self.asarray(value) for value in values]

    def to_numpy(self, array: Any) -> Any:
        return array.host if isinstance(array, Backwards) else array.numpy()

    def dtype_of(self, array: Any) -> np.dtype[Any]:
        return NUMPY_OF[array.dtype]

    # Views.

    def strides_of(self, array: Any) -> tuple[int, ...]:
        if isinstance(array, Backwards):
            return tuple(step // array.host.itemsize for step in array.host.strides)
        return tuple(array.stride())

    def reshape(self, array: Any, shape: tuple[int, ...]) -> Any:
        if isinstance(array, Backwards):
            return seen_by_numpy(array, lambda host: host.reshape(shape, copy=False))
        return array.view(shape)

    def permute_dims(self, array: Any, axes: tuple[int, ...]) -> Any:
        if isinstance(array, Backwards):
            return seen_by_numpy(array, lambda host: host.transpose(axes))
        return array.permute(axes)

    def broadcast_to(self, array: Any, shape: tuple[int, ...]) -> Any:
        if isinstance(array, Backwards):
            return seen_by_numpy(array, lambda host: np.broadcast_to(host, shape))
        return array.expand(shape)

    def index(self, array: Any, key: tuple[slice, ...]) -> Any:
        if isinstance(array, Backwards) or any((span.step or 1) < 0 for span in key):
            return seen_by_numpy(array, lambda host: host[key])
        return array[key]

    def copyto(self, out: Any, value: Any) -> None:
        if self.owns(value):
            out.copy_(plain(value))
        else:
            out.fill_(value)

    # Operations.

    def elementwise(self, name: str) -> Callable[..., Any]:
        function = FUNCTIONS.get(name) or getattr(torch, name)

        def run(*operands: Any, out: Any = None) -> Any:
            values = operands[1:] if name == "where" else operands
            # Numbers take the dtype of the other arguments.
            kind = next((value.dtype for value in (*values, out) if self.owns(value)), None)
            tensors = [plain(v) if self.owns(v) else torch.as_tensor(v, dtype=kind) for v in operands]
            return into(out, function(*tensors))

        return run

    def astype(self, array: Any, dtype: Any, out: Any = None) -> Any:
        return into(out, plain(array).to(TORCH_OF[np.dtype(dtype)], copy=True))

    def sum(self, array: Any, axes: tuple[int, ...], out: Any = None) -> Any:
        x = plain(array)
        # PyTorch takes an empty tuple of axes for all axes.
        return into(out, torch.sum(x, axes, dtype=x.dtype) if axes else x.clone())

    def max(self, array: Any, axes: tuple[int, ...], out: Any = None) -> Any:
        return into(out, torch.amax(plain(array), axes) if axes else plain(array).clone())

    def cumulative_sum(self, array: Any, axis: int, out: Any = None) -> Any:
        return into(out, torch.cumsum(plain(array), axis, dtype=array.dtype))

    def vecdot(self, x: Any, y: Any, out: Any = None) -> Any:
        return into(out, torch.linalg.vecdot(plain(x), plain(y)))

    def matmul(self, x: Any, y: Any, out: Any = None) -> Any:
        return into(out, torch.matmul(plain(x), plain(y)))

    def solve(self, matrices: Any, right: Any, out: Any = None) -> Any:
        with errors_of_numpy():
            return into(out, torch.linalg.solve(plain(matrices), plain(right)))

    def cholesky(self, matrices: Any, out: Any = None) -> Any:
        with errors_of_numpy():
            return into(out, torch.linalg.cholesky(plain(matrices)))

    def slogdet(self, matrices: Any, out: Any = None) -> Any:
        return into(out, torch.stack(list(torch.linalg.slogdet(plain(matrices))), -1))

    def stacked(self, arrays: Sequence[Any]) -> None:
        return None

    def concat(self, arrays: Sequence[Any], axis: int, out: Any = None) -> Any:
        return into(out, torch.cat([plain(array) for array in arrays], axis))

    # Rows and windows.

    def wrap_indices(self, indices: Any, length: int, out: Any = None) -> Any:
        places = plain(indices).to(torch.int64)
        if bool(((places < -length) | (places >= length)).any()):
            raise IndexError(f"indices must be from {-length} to {length - 1}, got {places.tolist()}")
        return into(out, torch.where(places < 0, places + length, places))

    def take(self, array: Any, indices: Any, out: Any = None) -> Any:
        return into(out, plain(array)[plain(indices)])

    def scatter_add(self, values: Any, indices: Any, out: Any) -> Any:
        rows = plain(values).reshape(-1, *out.shape[1:])
        # Half precision adds up in single precision.
        total = torch.zeros(tuple(out.shape), dtype=torch.float32 if out.dtype == torch.float16 else out.dtype)
        return into(out, total.index_add_(0, plain(indices).reshape(-1), rows.to(total.dtype)))

    def argsort(self, array: Any, out: Any = None) -> Any:
        return into(out, torch.argsort(plain(array), dim=-1, stable=True))

    def patches(self, array: Any, window: tuple[int, int], stride: tuple[int, int], out: Any = None) -> Any:
        rows = plain(array).unfold(1, window[0], stride[0]).unfold(2, window[1], stride[1])
        return into(out, rows.permute(0, 1, 2, 4, 5, 3).clone())

    def fold(self, patches: Any, stride: tuple[int, int], out: Any) -> Any:
        windows = plain(patches)
        total = torch.zeros(tuple(out.shape), dtype=torch.float32 if out.dtype == torch.float16 else out.dtype)
        _, rows, columns, height, width, _ = windows.shape
        for i in range(height):
            for j in range(width):
                down = slice(i, i + (rows - 1) * stride[0] + 1, stride[0])
                across = slice(j, j + (columns - 1) * stride[1] + 1, stride[1])
                total[:, down, across] += windows[:, :, :, i, j]
        return into(out, total)

    # Contexts.

    def single_threaded(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def errors_ignored(self) -> AbstractContextManager[Any]:
        return np.errstate(all="ignore")

    def synchronize(self) -> None:
        """Return at once: the CPU has no queue."""

    def capture(self, work: Callable[[], object]) -> None:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description="iMAML on sinusoids, on PyTorch's tensors.")
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    # On two busy cores, two threads took twenty times as long as one thread on these small tensors.
    torch.set_num_threads(1)
    register_backend(TorchBackend())
    check_backend("torch")
    print("check_backend: passed")
    model = NeuralNetworkModel(mlp(40, 40, 1), input_shape=(1,), seed=0, backend="torch")
    waves = SinusoidLoader(seed=0, backend="torch")
    options = iMAMLOptions.FromPaper(
        model, Lambda=2.0, DataLoader=waves, InnerLearningRate=0.002, Curvature="gauss-newton"
    )
    learner = iMAMLAlgorithm(options)
    seen = SinusoidLoader(seed=1, backend="torch").GetTaskBatch(100)
    print(f"query loss of 100 new waves: {learner.Evaluate(seen):.2f} before training")
    for _ in range(steps):
        learner.MetaTrainStep(25)
    print(f"query loss of 100 new waves: {learner.Evaluate(seen):.2f} after {steps} steps of 25 waves")
    adapted = learner.Adapt(seen.Tasks[0])
    print(f"an adapted model predicts a {type(adapted.Predict(seen.Tasks[0].QueryInput)).__name__}")


if __name__ == "__main__":
    main()
