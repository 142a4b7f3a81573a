"""Draws of classes and examples: their counts, their probabilities, and that nothing is drawn twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from aidotnet_py.data import draws


def capped_shares(weights: np.ndarray, ways: int) -> np.ndarray:
    """min(1, t·w) with t found by bisection, not by the order of the weights."""
    if (weights > 0).sum() <= ways:
        rest = weights == 0
        return np.where(rest, (ways - (~rest).sum()) / max(rest.sum(), 1), 1.0)
    t = optimize.brentq(
        lambda t: np.minimum(1.0, t * weights).sum() - ways, 0.0, ways / weights[weights > 0].min(), xtol=1e-300
    )
    return np.minimum(1.0, t * weights)


weights_and_ways = st.lists(st.integers(0, 50), min_size=2, max_size=9).flatmap(
    lambda weights: st.tuples(st.just(np.array(weights, np.int64)), st.integers(1, len(weights)))
)


@given(weights_and_ways)
def test_probabilities_are_capped_shares(case: tuple[np.ndarray, int]) -> None:
    weights, ways = case
    found = draws.inclusion_probabilities(weights, ways)
    np.testing.assert_allclose(found, capped_shares(weights.astype(float), ways), atol=1e-9)
    np.testing.assert_allclose(found.sum(), ways, rtol=1e-12)


class EachStart:
    """A generator that leaves orders alone and starts at a given point."""

    def __init__(self, start: int) -> None:
        self.start, self.total = start, 0

    def permutation(self, values: Any) -> np.ndarray:
        return np.arange(values) if isinstance(values, int) else np.array(values)

    def integers(self, total: int) -> int:
        self.total = total
        return self.start % total


@given(weights_and_ways)
def test_the_probabilities_are_met_exactly(case: tuple[np.ndarray, int]) -> None:
    """Over all starts, each class is picked as often as its probability says, in whole numbers."""
    weights, ways = case
    total = int(weights.sum()) + len(weights)
    seen: list[np.ndarray] = []
    for start in range(total):
        generator = EachStart(start)
        picks = draws.draw_proportionally(generator, weights, ways)  # type: ignore[arg-type]
        assert len(set(picks.tolist())) == ways
        seen.append(picks)
        if generator.total and start == generator.total - 1:
            break
    counts = np.bincount(np.concatenate(seen), minlength=len(weights))
    wanted = draws.inclusion_probabilities(weights, ways) * len(seen)
    np.testing.assert_allclose(counts, wanted, atol=1e-6)


@pytest.mark.slow
def test_frequencies_are_the_probabilities() -> None:
    weights, generator, n = np.array([80, 10, 6, 3, 1]), np.random.default_rng(2), 20000
    counts = np.zeros((5, 2), int)
    for _ in range(n):
        counts[draws.draw_proportionally(generator, weights, 2), [0, 1]] += 1
    wanted = draws.inclusion_probabilities(weights, 2)
    assert wanted.tolist() == [1.0, 0.5, 0.3, 0.15, 0.05]
    # Five standard deviations of a binomial.
    assert (abs(counts.sum(axis=1) / n - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / n)).all()
    # A class is in each place equally often.
    assert (abs(counts[:, 0] - counts[:, 1]) <= 5 * np.sqrt(counts.sum(axis=1))).all()


@given(st.integers(2, 12).flatmap(lambda c: st.tuples(st.just(c), st.integers(1, c))), st.integers(1, 60))
def test_uses_differ_by_one_at_most(case: tuple[int, int], episodes: int) -> None:
    (classes, ways), generator = case, np.random.default_rng(1)
    uses, seen = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for episode in range(1, episodes + 1):
        picks = draws.draw_least_used(generator, uses, ways)
        assert len(set(picks.tolist())) == ways
        seen[picks] += 1
        np.testing.assert_array_equal(uses, seen)
        assert set(uses) <= {episode * ways // classes, -(-episode * ways // classes)}


def test_ties_are_broken_at_random() -> None:
    generator, first = np.random.default_rng(3), np.zeros((5, 3), int)
    for _ in range(3000):
        first[draws.draw_least_used(generator, np.zeros(5, np.int64), 3), range(3)] += 1
    assert stats.chisquare(first.ravel()).pvalue > 0.01


@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=20), st.integers(1, 5))
def test_whole_weights_keep_the_proportions(values: list[float], ways: int) -> None:
    weights = draws.whole_weights(np.array(values), ways)
    assert weights.sum() * ways <= 2**63 - 1
    if max(values):
        np.testing.assert_allclose(weights / weights.max(), np.array(values) / max(values), atol=2**-50)
    else:
        assert set(weights.tolist()) == {1}


@pytest.mark.parametrize("most_keys", [0, 1024])
@given(counts=st.lists(st.integers(3, 9), min_size=1, max_size=5), seed=st.integers(0, 99), data=st.data())
def test_rows_are_different_and_of_their_class(
    monkeypatch: pytest.MonkeyPatch, most_keys: int, counts: list[int], seed: int, data: Any
) -> None:
    monkeypatch.setattr(draws, "_MOST_KEYS", most_keys)
    sizes = np.array(counts)
    starts, examples = np.cumsum(sizes) - sizes, data.draw(st.integers(1, min(counts)))
    chosen = np.random.default_rng(seed).permutation(len(counts))
    rows = draws.draw_rows(np.random.default_rng(seed), starts[chosen], sizes[chosen], max(counts), examples)
    for c, own in zip(chosen, rows, strict=True):
        assert len(set(own.tolist())) == examples
        assert starts[c] <= own.min() <= own.max() < starts[c] + counts[c]


@pytest.mark.parametrize("most_keys", [0, 1024])
def test_every_row_is_in_every_place_equally_often(monkeypatch: pytest.MonkeyPatch, most_keys: int) -> None:
    monkeypatch.setattr(draws, "_MOST_KEYS", most_keys)
    generator, table = np.random.default_rng(5), np.zeros((3, 4), int)
    for _ in range(2000):
        table[range(3), draws.draw_rows(generator, np.array([0]), np.array([4]), 4, 3)[0]] += 1
    assert stats.chisquare(table.ravel()).pvalue > 0.01
