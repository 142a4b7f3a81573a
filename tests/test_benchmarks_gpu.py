"""The race on a GPU, rehearsed on the processor, and what it says where there is no GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from places import ROOT

pytest.importorskip("benchmarks", reason="the benchmarks are in a checkout alone")
pytest.importorskip("rich", reason="the benchmarks print with rich")

from benchmarks.environment import unforced
from benchmarks.flops import step_bytes, step_flops
from benchmarks.launches import tally
from benchmarks.report import targets_of
from benchmarks.workloads import workload


def race(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300
    )


def rehearsed(path: Path, *contestants: str) -> tuple[str, Any]:
    """What a short rehearsal prints and writes, begun where someone has chosen OpenBLAS's kernels."""
    done = race(
        *("--rehearse", "--workloads", "sinusoid-2", "--rounds", "2", "--seconds", "0.01", "--json", str(path)),
        *("--contestants", *contestants),
        OPENBLAS_CORETYPE="Prescott",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text())


@pytest.mark.slow
def test_without_a_gpu_it_says_so_in_a_line() -> None:
    done = race("--quick", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "no race on cuda: " in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_rehearsal_of_ours(tmp_path: Path) -> None:
    printed, found = rehearsed(tmp_path / "race.json", "ours")
    machine, (ours,) = found["machine"], found["workloads"][0]["contestants"]
    assert machine["taken_out_of_the_environment"]["OPENBLAS_CORETYPE"] == "Prescott"
    for kernels in (machine["kernels"], ours["kernels"]):
        assert "Prescott" not in kernels.values()
    assert machine["peaks"]["flops"] > 0
    assert machine["peaks"]["bandwidth"] > 0
    assert [len(turn) > 0 for turn in ours["rounds"]] == [True, True]
    assert "sinusoid-2: K = 16" in printed
    assert "Prescott" in printed


@pytest.mark.slow
def test_who_fails_does_not_take_the_others_along(tmp_path: Path) -> None:
    path = tmp_path / "race.json"
    # Neither library is to be found, though it may be here.
    done = subprocess.run(
        [sys.executable, "-c", FAILING, str(path)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1
    assert "sinusoid-2: torch_eager: " in done.stderr
    found = json.loads(path.read_text())
    assert [one["contestant"] for work in found["workloads"] for one in work["contestants"]] == ["ours"] * 2
    assert [line.split(": ")[:2] for line in found["failures"]] == [
        [work, "torch_eager"] for work in ("sinusoid-2", "sinusoid-3")
    ]


FAILING = """
import sys
from pathlib import Path
from rich.console import Console
from benchmarks import settings
from benchmarks.contest import Contest
settings._DENSE_CUDA["torch_eager"] = ("dense-nonsense",)
about = {"peaks": {"flops": 1.0, "bandwidth": 1.0}, "kernels": {}, "processor": "", "cores": 1, "versions": {}}
about["taken_out_of_the_environment"] = {}
names = ("torch_eager", "ours")
contest = Contest(Console(width=190), names, "cpu", "cuda", about, 2, 0.01, False, Path(sys.argv[1]))
contest.run(["sinusoid-2", "sinusoid-3"])
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "jax")), reason="PyTorch and JAX are not both here"
)
def test_a_rehearsal_of_everyone(tmp_path: Path) -> None:
    _, found = rehearsed(tmp_path / "race.json", "ours", "torch_eager", "jax_jit")
    (measured,) = found["workloads"]
    assert [one["contestant"] for one in measured["contestants"]] == ["ours", "torch_eager", "jax_jit"]
    assert max(measured["float64_distances"].values()) < 1e-12
    assert max(one["difference"] for one in measured["contestants"]) < 1e-4
    # None of them launches anything on a device that is not there; PyTorch's profiler was asked.
    assert all(set(one["launches"].values()) == {0} for one in measured["contestants"])


def test_what_chooses_kernels_is_taken_out_and_nothing_else() -> None:
    environment = {
        "HOME": "/home/me",
        "OPENBLAS_CORETYPE": "Haswell",
        "ATEN_CPU_CAPABILITY": "default",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2 --xla_dump_to=x",
    }
    kept, out = unforced(environment)
    assert kept == {"HOME": "/home/me", "XLA_FLAGS": "--xla_dump_to=x"}
    assert out == {
        "OPENBLAS_CORETYPE": "Haswell",
        "ATEN_CPU_CAPABILITY": "default",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    }
    assert unforced(kept) == (kept, {})


def test_launches_are_counted_by_kind() -> None:
    events = [
        *[
            ("cudaGraphLaunch", False),
            ("cuGraphLaunch", False),
            ("cudaLaunchKernel", False),
            ("cuLaunchKernelEx", False),
        ],
        *[("fused_loop_3", True), ("sgemm_32x32", True), ("Memcpy HtoD", True), ("Memset (Device)", True)],
        ("cudaStreamSynchronize", False),
    ]
    expected = {"kernels": 1.0, "copies": 1.0, "kernel launches": 1.0, "graph launches": 1.0}
    assert tally(events, steps=2) == expected


def test_targets_on_a_gpu() -> None:
    def measured(work: str, contestant: str, seconds: float) -> Any:
        return SimpleNamespace(
            workload=work, contestant=contestant, rounds=[[seconds]], quantile=lambda q: seconds, memory={"added": 1}
        )

    def found(work: str) -> list[tuple[str, float, float, bool]]:
        times = {"ours": 0.02, "torch_eager": 1.0, "torch_func": 0.1, "jax_jit": 0.01}
        race = [measured(work, name, seconds) for name, seconds in times.items()]
        return [(t.what, round(t.found, 6), t.limit, t.met) for t in targets_of(race, "cuda")]

    assert found("omniglot-32") == [
        ("omniglot-32: time over torch_eager", 0.02, 0.1, True),
        ("omniglot-32: time over jax_jit", 2.0, 0.8, False),
    ]
    assert found("sinusoid-100") == [("sinusoid-100: time over jax_jit", 2.0, 0.5, False)]
    assert found("sinusoid-25") == found("omniglot-8") == found("omniglot-32-k2") == []


def test_operations_and_memory_of_a_step() -> None:
    work = workload("sinusoid-3-k1-w4")
    # Layers 1→4, 4→4 and 4→1 on ten points; two support gradients, one on the query set, ten products of the solve.
    products = [2 * 3 + 10 * 2, 3 * 3 + 10 * 6, 3 * 3 + 10 * 6]
    weights, values = [4, 16, 4], [5, 8, 5]
    assert step_flops(work) == 3 * sum(n * 10 * 2 * w for n, w in zip(products, weights, strict=True))
    assert step_bytes(work) == 3 * 4 * sum(n * (10 * v + w) for n, v, w in zip(products, values, weights, strict=True))
