"""The workloads of the benchmarks: names, sizes, operations, targets, and whether contestants compute the same."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

pytest.importorskip("benchmarks", reason="the benchmarks are in a checkout alone")
pytest.importorskip("rich", reason="the benchmarks print with rich")

from benchmarks.arena import Measured
from benchmarks.contestants.ours import model_of
from benchmarks.curvature import curvature_ratio
from benchmarks.flops import step_flops
from benchmarks.photographs import PhotographLoader
from benchmarks.report import targets_of
from benchmarks.workloads import Network, parsed, workload

# Workloads, and who competes beside ours; JAX takes half a minute to compile a step on images.
TORCH = ("torch_eager", "torch_func")
RACES = {
    "sinusoid-2-k2-w8-maml": (*TORCH, "jax_jit"),
    "sinusoid-2-k2-w8-anil": (*TORCH, "jax_jit"),
    "sinusoid-2-k2-w8-adapt": (*TORCH, "jax_jit"),
    "omniglot-2-k2-w4-maml": (*TORCH, "jax_jit"),
    "omniglot-2-k2-w4-anil": TORCH,
    "omniglot-2-k2-w4-adapt": TORCH,
    "resnet-1-k1-w2": TORCH[:1],
}

# All in one process, since each import of PyTorch and JAX takes seconds; apart from the tests, since JAX is set to
# float64 for good, and to one device, since more can be had only before it begins.
AGREEMENT = """
import json, sys
import numpy as np
from benchmarks.contestants import contestant_class
from benchmarks.settings import settings_of
from benchmarks.workloads import workload

def outcome(name, work):
    setting = settings_of(name, work)[0].replace("vmap2", "vmap")
    contestant = contestant_class(name)(workload(work, np.float64), setting, "cpu")
    contestant.step()
    return contestant.outcome()

found = {}
for work, rivals in json.loads(sys.argv[1]).items():
    ours = outcome("ours", work)
    others = {name: outcome(name, work) for name in rivals}
    found[work] = {name: float(np.linalg.norm(o - ours) / np.linalg.norm(ours)) for name, o in others.items()}
print(json.dumps(found))
"""


def test_the_residual_network_has_the_parameters_of_the_paper() -> None:
    parameters = Network("residual", (84, 84, 3), 64, 5).parameters(seed=0)
    assert sum(p.size for p in parameters.values()) == 12_424_320 + 640 * 5 + 5


@pytest.mark.slow
def test_our_residual_network_takes_the_start_weights() -> None:
    work = workload("resnet-1-w2")
    assert model_of(work, "cpu").ParameterCount == sum(p.size for p in work.parameters.values())


@pytest.mark.slow
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


def test_names_say_family_tasks_steps_width_and_method() -> None:
    assert parsed("sinusoid-25") == ("sinusoid", 25, None, None, "imaml")
    assert parsed("mini-4-k5-w16-anil") == ("mini", 4, 5, 16, "anil")
    work = workload("sinusoid-2-k3-maml")
    assert (work.method, work.steps, work.tasks) == ("maml", 3, 2)


@pytest.mark.parametrize("name", ["sinusoid", "sinusoid-4-reptile", "sinusoid-4-maml-k5", "digits-4"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(SystemExit, match=f"'{name}' is no workload"):
        parsed(name)


def test_operations_of_other_methods() -> None:
    # Layers 1→4, 4→4 and 4→1 on ten points of each set.
    weights, gradients, curvatures = [4, 16, 4], [2, 3, 3], [2, 6, 6]

    def counted(times: list[int]) -> int:
        return sum(n * 10 * 2 * w for n, w in zip(times, weights, strict=True))

    through_steps = [3 * (g + c) + g for g, c in zip(gradients, curvatures, strict=True)]
    assert step_flops(workload("sinusoid-1-k3-w4-maml")) == counted(through_steps)
    assert step_flops(workload("sinusoid-1-k3-w4-anil")) == counted([2 + 2, 3 + 3, through_steps[-1]])
    assert step_flops(workload("sinusoid-1-k3-w4-adapt")) == counted([3 * g + 1 for g in gradients])


def test_targets_are_those_of_the_method() -> None:
    def found(work: str) -> list[tuple[str, float]]:
        race = [
            Measured(name, "default", work, 0.0, 0.0, 0.0, [0.0], {}, [[seconds]], {"added": 1})
            for name, seconds in (("ours", 0.2), ("torch_eager", 1.0), ("jax_jit", 0.4))
        ]
        return [(t.what, t.limit) for t in targets_of(race, "cpu") if t.found == 0.5 or "torch" in t.what]

    assert found("sinusoid-4") == [("sinusoid-4: time over jax_jit", 0.8)]
    assert found("sinusoid-25-k5-maml") == [("sinusoid-25-k5-maml: time over jax_jit", 0.7)]
    assert found("omniglot-8-anil") == [("omniglot-8-anil: time over jax_jit", 0.4)]
    assert found("sinusoid-1-adapt") == [
        ("sinusoid-1-adapt: time over jax_jit", 0.6),
        ("sinusoid-1-adapt: time over torch_eager", 0.1),
    ]
    assert found("omniglot-8-w4") == found("sinusoid-4-k2") == []


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "jax")), reason="PyTorch and JAX are not both here"
)
def test_contestants_agree() -> None:
    command = [sys.executable, "-c", AGREEMENT, json.dumps(RACES)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert {work: tuple(distances) for work, distances in found.items()} == RACES
    assert max(distance for distances in found.values() for distance in distances.values()) < 1e-11


def test_photographs_are_drawn() -> None:
    task = PhotographLoader(2, split="train", seed=0).GetNextTask()
    assert (task.SupportInput.shape, task.QueryInput.shape) == ((10, 16, 16, 3), (75, 16, 16, 3))
    assert task.SupportOutput.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert 0 <= task.QueryInput.min() < 0.3 < 0.7 < task.QueryInput.max() <= 1


def test_a_product_is_timed_beside_a_gradient() -> None:
    gradient, product, ratio = curvature_ratio("sinusoid-2", rounds=1, calls=1)
    assert ratio == product / gradient > 0
