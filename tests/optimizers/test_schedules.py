"""Learning-rate schedules against their formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aidotnet_py import ArgumentException, ConstantSchedule, CosineSchedule, StepSchedule, WarmUpSchedule
from aidotnet_py.descriptions import describe


def test_cosine() -> None:
    for step in range(40):
        wanted = 0.2 + 0.8 * (1 + math.cos(math.pi * min(step, 30) / 30)) / 2
        assert CosineSchedule(30, final=0.2)(step) == pytest.approx(wanted, rel=1e-15)


def test_steps() -> None:
    assert [StepSchedule(3, factor=0.5)(step) for step in range(7)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert StepSchedule(1)(10**6) > 0
    assert math.isfinite(StepSchedule(1, factor=2.0)(10**6))


def test_warm_up_then_another() -> None:
    schedule = WarmUpSchedule(5, then=CosineSchedule(10))
    assert [schedule(step) for step in range(5)] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert [schedule(step) for step in (5, 9, 15)] == [CosineSchedule(10)(step) for step in (0, 4, 10)]
    assert WarmUpSchedule(0)(0) == ConstantSchedule()(7) == 1.0


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (ConstantSchedule, {"factor": 0}),
        (CosineSchedule, {"steps": 0}),
        (CosineSchedule, {"steps": 10, "final": 0.0}),
        (StepSchedule, {"every": 1.5}),
        (StepSchedule, {"every": 1, "factor": -1}),
        (WarmUpSchedule, {"steps": -1}),
        (WarmUpSchedule, {"steps": 1, "then": 0.5}),
        (WarmUpSchedule, {"steps": 1, "then": ConstantSchedule}),
    ],
)
def test_refusals(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ArgumentException, match="must be"):
        kind(**settings)


def test_files_tell_of_them() -> None:
    held = describe(WarmUpSchedule(5, then=StepSchedule(2)))
    assert held == {"type": "WarmUpSchedule", "steps": 5, "then": {"type": "StepSchedule", "every": 2, "factor": 0.1}}
