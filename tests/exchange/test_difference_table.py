"""The table of differences from PyTorch and ONNX has every layer, network and loss, and they agree to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from places import ROOT

from aidotnet_py import losses, nn

pytest.importorskip("torch", reason="the table compares with PyTorch")
pytest.importorskip("onnxruntime", reason="the table compares with onnxruntime")
exchange = pytest.importorskip("benchmarks.exchange", reason="the benchmarks are in a checkout alone")

# Units in the last place of the largest number: sums of some hundred numbers, and the depth of the residual networks.
LIMITS = {"resnet12": 100, "resnet18": 500}


def test_every_layer_network_and_loss_is_there() -> None:
    assert set(exchange.CASES) == {name for name in nn.__all__ if name != "Layer"}
    assert set(exchange.LOSSES) == {name for name in losses.__all__ if name.endswith("Loss")}
    for name, (layer, _) in exchange.CASES.items():
        if isinstance(getattr(nn, name), type):
            assert name in repr(layer)


def test_the_page_has_the_same_rows() -> None:
    page = (ROOT / "docs" / "exchange.md").read_text(encoding="utf-8")
    _, _, after = page.partition("python -m benchmarks.exchange")
    named = [line.split("`")[1] for line in after.splitlines() if line.startswith("| `")]
    assert named == [*exchange.CASES, *exchange.LOSSES]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("resnet12", "resnet18")))
        for name in (*exchange.CASES, *exchange.LOSSES)
    ],
)
def test_differences_are_rounding(name: str, dtype: Any) -> None:
    row = (exchange.row_of_loss if name in exchange.LOSSES else exchange.row_of_layer)(name, dtype)
    limit = LIMITS.get(name, 20) * np.finfo(dtype).eps
    assert max(row.torch_output, row.torch_gradient, row.onnx_output) <= limit


def test_a_wrong_layer_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Tanh, "apply", lambda self, parameters, x: np.tanh(x) + 1e-3 * x)
    assert exchange.row_of_layer("Tanh", np.float64).torch_output > 1e-4


@pytest.mark.slow
def test_the_command_prints_a_line_for_each(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["exchange"])
    exchange.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert len(lines) == len(exchange.CASES) + len(exchange.LOSSES)
    assert all(line.count("e-") + line.count("0e+00") == 6 for line in lines)
