"""One plan for all who run a Program in one way, on arrays of their own, for no longer than the Program lives."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np

from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.autodiff.execution.planner import shared_plan
from aidotnet_py.autodiff.program import Program
from aidotnet_py.backends import get_backend
from aidotnet_py.backends.kernel import LoopRules


def program() -> Program:
    return ad.trace(lambda x, y: np.sum(np.tanh(x) * y, axis=0) + x, np.ones((4, 3)), np.ones((4, 3)))


C, FORTRAN = (3, 1), (1, 4)
RULES = LoopRules()


def test_a_plan_is_made_once_for_each_way_to_run() -> None:
    one, other = program(), program()
    plans = [
        shared_plan(one, [0, 1], [C, C], [None], None, RULES),
        shared_plan(one, None, [C, C], [None], None, RULES),
        shared_plan(one, [0, 1], [FORTRAN, C], [None], None, RULES),
        shared_plan(one, [0, 1], [C, C], [C], None, RULES),
        shared_plan(one, [0, 1], [C, C], [None], {0: 0}, RULES),
        shared_plan(one, [0, 1], [C, C], [None], None, LoopRules(any_sums=True)),
        shared_plan(other, [0, 1], [C, C], [None], None, RULES),
    ]
    assert len(set(map(id, plans))) == len(plans)
    assert shared_plan(one, (0, 1), (C, C), (None,), {}, LoopRules()) is plans[0]


def test_a_plan_goes_with_its_program() -> None:
    of = program()
    kept = weakref.ref(shared_plan(of, None, [C, C], [None], None, RULES))
    assert kept() is not None
    del of
    gc.collect()
    assert kept() is None


def test_who_shares_a_plan_shares_no_memory() -> None:
    of, barrier = program(), Barrier(4)

    def run(seed: int) -> tuple[bool, Executable]:
        rng = np.random.default_rng(seed)
        barrier.wait()
        executable = Executable(of, get_backend("numpy"), stages=[0, 1])
        x, y = (rng.standard_normal((4, 3)) for _ in range(2))
        executable.inputs[0][...], executable.inputs[1][...] = x, y
        barrier.wait()
        executable.run(0)
        barrier.wait()
        executable.run(1)
        return bool(np.allclose(executable.outputs[0], np.sum(np.tanh(x) * y, axis=0) + x)), executable

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, range(4)))
    assert all(right for right, _ in found)
    outputs = [executable.outputs[0] for _, executable in found]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(outputs) for b in outputs[:i])
