"""The ResNet-12 of the benchmarks: its size, its operations, and whether contestants compute the same on it."""

from __future__ import annotations

import importlib.util

import pytest

pytest.importorskip("benchmarks", reason="the benchmarks are in a checkout alone")
pytest.importorskip("rich", reason="the benchmarks print with rich")

from benchmarks.arena import agreement
from benchmarks.contestants.ours import model_of
from benchmarks.flops import step_flops
from benchmarks.settings import settings_of
from benchmarks.workloads import Network, workload


def test_the_residual_network_has_the_parameters_of_the_paper() -> None:
    parameters = Network("residual", (84, 84, 3), 64, 5).parameters(seed=0)
    assert sum(p.size for p in parameters.values()) == 12_424_320 + 640 * 5 + 5


def test_our_residual_network_takes_the_start_weights() -> None:
    work = workload("resnet-1-w2")
    assert model_of(work, "cpu").ParameterCount == sum(p.size for p in work.parameters.values())


def test_operations_of_a_residual_step() -> None:
    work = workload("resnet-1-k1-w2")
    # Blocks of 2, 5, 10 and 20 filters, on images of 84, 42, 21 and 10 rows; the shortcut last.
    of_examples = 84**2 * (9 * 3 * 2 + 3 * 2)
    blocks = [
        84**2 * (9 * 2 * 2 + 9 * 2 * 2),
        42**2 * (9 * 2 * 5 + 9 * 5 * 5 + 9 * 5 * 5 + 2 * 5),
        21**2 * (9 * 5 * 10 + 9 * 10 * 10 + 9 * 10 * 10 + 5 * 10),
        10**2 * (9 * 10 * 20 + 9 * 20 * 20 + 9 * 20 * 20 + 10 * 20),
    ]
    later = sum(blocks) + 20 * 5
    # Two gradients and five products on 5 images, one gradient on 75.
    multiplied = of_examples * (2 * 2 * 5 + 5 * 2 * 5 + 2 * 75) + later * (2 * 3 * 5 + 5 * 6 * 5 + 3 * 75)
    assert step_flops(work) == 2 * multiplied


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "jax")), reason="PyTorch and JAX are not both here"
)
def test_contestants_agree_on_a_residual_network() -> None:
    work, failed = "resnet-2-k1-w2", dict[str, str]()
    entries = [(name, settings_of(name, work)[0]) for name in ("ours", "torch_eager", "jax_jit")]
    distances = agreement(entries, work, "cpu", failed)
    assert failed == {}
    assert len(distances) == 3
    assert max(distances.values()) < 1e-11
