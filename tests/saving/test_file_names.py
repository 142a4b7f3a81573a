"""Files are written under no name that promises another format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aidotnet_py
from aidotnet_py import ArgumentException, MAMLAlgorithm, MAMLOptions, NeuralNetworkModel
from aidotnet_py.exchange import export_numpy, export_onnx, save_state_dict
from aidotnet_py.nn import mlp


def model() -> NeuralNetworkModel[Any, Any, Any]:
    return NeuralNetworkModel(mlp(4, 1), input_shape=(2,), seed=0)


def learner() -> MAMLAlgorithm[Any, Any, Any]:
    return MAMLAlgorithm(MAMLOptions(model()))


WRITERS: list[Callable[[Any], Any]] = [
    lambda path: model().SaveModel(path),
    lambda path: learner().SaveModel(path),
    lambda path: learner().Save(path),
    lambda path: aidotnet_py.save(learner(), path),
    lambda path: aidotnet_py.save(model(), path),
    lambda path: save_state_dict(model(), path),
]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (".pkl", "of pickle; use 'x.safetensors'$"),
        (".PT", "of PyTorch; use 'x.safetensors'; .*save_state_dict"),
        (".npz", "of NumPy; use 'x.safetensors'$"),
        (".onnx", "of ONNX; use 'x.safetensors'; aidotnet_py.exchange.export_onnx writes ONNX$"),
        (".parquet", "of Parquet; use 'x.safetensors'$"),
    ],
)
def test_another_format(write: Callable[[Any], Any], ending: str, message: str, tmp_path: Path) -> None:
    for path in (tmp_path / f"x{ending}", str(tmp_path / f"x{ending}")):
        with pytest.raises(ArgumentException, match=f"ath must be the name of a .*, got 'x{ending}'.*{message}"):
            write(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("write", "name", "message"),
    [
        (export_onnx, "x.py", "of a file of ONNX, got 'x.py', .* use 'x.onnx'; .*export_numpy writes a module$"),
        (export_onnx, "x.safetensors", "of a file of ONNX, got .* use 'x.onnx'; SaveModel writes safetensors$"),
        (export_numpy, "x.onnx", "of a file of Python, got 'x.onnx', .* use 'x.py'; .*export_onnx writes ONNX$"),
        (export_numpy, "x.npy", "of a file of Python, got 'x.npy', which is one of NumPy; use 'x.py'$"),
    ],
)
def test_exports_under_another_format(write: Any, name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"kept")
    with pytest.raises(ArgumentException, match=f"^path must be the name {message}"):
        write(model(), tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"kept"


@pytest.mark.parametrize("write", [export_onnx, export_numpy])
def test_exports_under_names_that_promise_no_other(write: Any, tmp_path: Path) -> None:
    write(model(), tmp_path / "x")
    assert (tmp_path / "x").stat().st_size > 0


@pytest.mark.parametrize("name", ["x", "x.safetensors", "x.ckpt", "x.1"])
@pytest.mark.parametrize("write", WRITERS)
def test_names_that_promise_no_other(write: Callable[[Any], Any], name: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 0
