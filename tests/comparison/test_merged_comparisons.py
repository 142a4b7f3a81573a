"""Comparisons that were stopped go on, and those of several machines are joined."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from aidotnet_py.comparison import Comparison, ComparisonSettings, compare, measure_speed, merge, running
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException
from aidotnet_py.meta_learning import ConfidenceInterval


@pytest.fixture(autouse=True)
def no_memory_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes ten times as long as these trainings, and is another test's."""
    monkeypatch.setattr(running, "_peak_of_a_step", lambda start: 1)


def settings(**changes: Any) -> ComparisonSettings:
    tiny: dict[str, Any] = {"iterations": 2, "meta_batch": 3, "test_tasks": 4, "adaptation_steps": 3}
    return ComparisonSettings.of("sinusoid", **{"algorithms": ["FOMAML"], **tiny, **changes})


@cache
def compared(**changes: Any) -> Comparison:
    """Return the comparison of such settings, which no test changes."""
    return compare(settings(**changes))


def curves(comparison: Comparison) -> list[Any]:
    """All but times and memory."""
    return [(run.algorithm, run.seed, run.losses, run.accuracies) for run in comparison.runs]


class TestGoingOn:
    @pytest.mark.slow
    def test_a_stopped_one_ends_as_one_that_was_not(self) -> None:
        kept: list[Comparison] = []

        def keep(so_far: Comparison) -> None:
            kept.append(Comparison.from_json(so_far.to_json()))
            if len(kept) == 4:
                raise KeyboardInterrupt

        wanted = compared(seeds=(0, 1))
        with pytest.raises(KeyboardInterrupt):
            compare(settings(seeds=[0, 1]), on_run=keep)
        assert [len(one.runs) for one in kept] == [1, 2, 3, 4]
        made: list[str] = []
        found = compare(
            settings(seeds=[0, 1]), earlier=kept[-1], on_run=lambda so_far: made.append(so_far.runs[-1].algorithm)
        )
        assert curves(found) == curves(wanted)
        assert made == ["transfer", "FOMAML"]
        assert found.runs[:4] == kept[-1].runs

    def test_seeds_and_algorithms_may_be_added(self) -> None:
        earlier = compared()
        found = compare(settings(algorithms=["Reptile", "FOMAML"], seeds=[1, 0]), earlier=earlier)
        assert [(run.seed, run.algorithm) for run in found.runs] == [
            (seed, name) for seed in (1, 0) for name in ("random", "transfer", "Reptile", "FOMAML")
        ]
        assert found.of("FOMAML")[1] is earlier.of("FOMAML")[0]

    def test_runs_that_are_not_reached_yet_are_kept(self) -> None:
        earlier = compared(seeds=(0, 1))
        kept: list[Comparison] = []

        def keep(so_far: Comparison) -> None:
            kept.append(so_far)
            raise KeyboardInterrupt

        wanted = settings(algorithms=["FOMAML", "Reptile"], seeds=[2, 0, 1])
        with pytest.raises(KeyboardInterrupt):
            compare(wanted, earlier=earlier, on_run=keep)
        assert [(run.seed, run.algorithm) for run in kept[-1].runs] == [
            (2, "random"),
            *((seed, name) for seed in (0, 1) for name in ("random", "transfer", "FOMAML")),
        ]
        assert kept[-1].runs[1:] == earlier.runs

    @pytest.mark.parametrize(
        ("changes", "others"),
        [
            ({"algorithms": ["Reptile"], "seeds": [0, 1]}, "FOMAML"),
            ({"seeds": [1, 2]}, "seed 0"),
            ({"algorithms": ["Reptile"], "seeds": [2]}, "FOMAML, seed 0, seed 1"),
        ],
    )
    def test_runs_that_would_be_lost_are_refused_before_any_work(self, changes: dict[str, Any], others: str) -> None:
        earlier = compared(seeds=(0, 1))
        with pytest.raises(
            ArgumentException,
            match=f"earlier must have only algorithms and seeds of the settings, got also {others}; add them, or keep",
        ):
            compare(settings(**changes), earlier=earlier, on_run=lambda _: pytest.fail("a run was made"))

    def test_other_settings_are_refused_before_any_work(self) -> None:
        earlier = compared()
        with pytest.raises(ArgumentException, match="earlier must have iterations 5, got 2"):
            compare(settings(iterations=5), earlier=earlier, on_run=lambda _: pytest.fail("a run was made"))


class TestMerge:
    def test_of_seeds_is_the_comparison_of_all(self) -> None:
        wanted = compare(settings(seeds=[0, 1, 2]))
        parts = {f"{seeds}": compared(seeds=seeds) for seeds in ((2,), (0, 1))}
        found = merge(parts)
        assert curves(found) == curves(wanted)
        assert found.settings == wanted.settings
        assert Comparison.from_json(found.to_json()) == found

    @pytest.mark.slow
    def test_of_algorithms_takes_the_baselines_once(self) -> None:
        parts = {name: compared(algorithms=(name,)) for name in ("FOMAML", "Reptile")}
        found = merge(parts)
        assert found.contestants == ("random", "transfer", "FOMAML", "Reptile")
        assert curves(found) == curves(compare(settings(algorithms=["FOMAML", "Reptile"])))

    def test_differences_are_named(self) -> None:
        one = compared()
        with pytest.raises(ArgumentException, match=r"^b must have iterations 2, as in a, got 3$"):
            merge({"a": one, "b": compare(settings(iterations=3, seeds=[1]))})
        with pytest.raises(ArgumentException, match=r"got none of Reptile from seed 0, FOMAML from seed 1$"):
            merge({"a": one, "b": compare(settings(algorithms=["Reptile"], seeds=[1]))})
        moved = replace(
            one.runs[2], losses=(ConfidenceInterval(np.float64(9.0), np.float64(1.0)), *one.runs[2].losses[1:])
        )
        with pytest.raises(
            ArgumentException, match="FOMAML from seed 0 must have the same curves in a and b, got others"
        ):
            merge({"a": one, "b": replace(one, runs=(*one.runs[:2], moved))})
        with pytest.raises(ArgumentException, match="at least one entry"):
            merge({})

    def test_baselines_alone_are_refused(self) -> None:
        one = compared()
        early = replace(one, runs=one.runs[:2])
        assert merge({"early": early, "whole": one}).contestants == ("random", "transfer", "FOMAML")
        with pytest.raises(
            ArgumentException,
            match=r"^comparisons must have runs of at least one algorithm, got random, transfer; let compare make",
        ):
            merge({"early": early})
        with pytest.raises(ArgumentException, match="at least one algorithm, got none"):
            merge({"earlier still": replace(one, runs=())})

    def test_arguments_of_another_kind(self) -> None:
        one: Any = compared()
        with pytest.raises(
            ArgumentException, match=r"comparisons must be a mapping of names to comparisons, got .*; give each a name"
        ):
            merge([one, one])  # type: ignore[arg-type]
        with pytest.raises(ArgumentNullException, match=r"comparisons must be a mapping of names .*, got None"):
            merge(None)  # type: ignore[arg-type]
        with pytest.raises(ArgumentException, match=r"^b must be a Comparison, got 'b.json'$"):
            merge({"a": one, "b": "b.json"})  # type: ignore[dict-item]

    def test_archives_may_lie_in_other_folders(self) -> None:
        one = compared()
        here = replace(one, settings=replace(one.settings, seeds=(0,)))
        object.__setattr__(here.settings, "archive", "/here/images.zip")
        there = replace(one, settings=replace(one.settings, seeds=(0,)))
        object.__setattr__(there.settings, "archive", "/there/images.zip")
        with pytest.raises(ArgumentException, match="must be left out"):
            # Joined settings are checked: sinusoids have no archive.
            merge({"here": here, "there": there})
        object.__setattr__(there.settings, "archive", "/there/other.zip")
        with pytest.raises(ArgumentException, match=r"archive 'images.zip', as in here, got 'other.zip'"):
            merge({"here": here, "there": there})


class TestSpeed:
    @pytest.mark.slow
    def test_of_all_that_are_asked(self) -> None:
        found = measure_speed(settings(algorithms=["FOMAML", "ANIL"]), 0.01)
        assert [speed.algorithm for speed in found] == ["FOMAML", "ANIL"]
        assert all(speed.step > 0 and speed.adapt > 0 for speed in found)

    @pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), "1"])
    def test_seconds_must_be_above_zero(self, seconds: Any) -> None:
        with pytest.raises(ArgumentException, match="seconds must be"):
            measure_speed(settings(), seconds)
