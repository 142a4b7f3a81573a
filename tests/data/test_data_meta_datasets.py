"""Meta-datasets: the formulas of the synthetic ones, sizes that fit, seeds, and measured difficulties."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data import (
    GaussianClassificationMetaDataset,
    MetaDatasetBase,
    RotatedDigitsMetaDataset,
    SineWaveMetaDataset,
)
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, ArgumentOutOfRangeException
from aidotnet_py.meta_learning.contract.sources import IEpisode, IMetaDataset, IResumable

SYNTHETIC: list[Any] = [SineWaveMetaDataset, GaussianClassificationMetaDataset, RotatedDigitsMetaDataset]
SETS = ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput")
each = pytest.mark.parametrize("kind", SYNTHETIC)


def ways_of(kind: Any) -> int:
    return 1 if kind is SineWaveMetaDataset else 4


def bits(episodes: Any, backend: str = "numpy") -> list[bytes]:
    to_numpy = get_backend(backend).to_numpy
    return [to_numpy(getattr(episode.Task, which)).tobytes() for episode in episodes for which in SETS]


@each
def test_it_is_the_contracts_dataset(kind: Any) -> None:
    dataset = kind(numClasses=6, examplesPerClass=9, seed=0)
    assert isinstance(dataset, IMetaDataset)
    assert isinstance(dataset, IResumable)
    assert (dataset.TotalClasses, dataset.TotalExamples) == (6, 54)
    assert dataset.ClassExampleCounts == dict.fromkeys(range(6), 9)
    assert f"{dataset.Name}MetaDataset" == kind.__name__
    episode = dataset.SampleEpisode(ways_of(kind), 2, 3)
    assert isinstance(episode, IEpisode)
    assert (episode.Domain, episode.Difficulty, episode.LastLoss, episode.SampleCount) == (dataset.Name, None, None, 0)
    task = episode.Task
    assert (task.NumWays, task.NumShots, task.NumQueryPerClass, task.Name) == (ways_of(kind), 2, 3, dataset.Name)


def test_defaults() -> None:
    sizes = [(d.TotalClasses, d.TotalExamples) for d in (kind() for kind in SYNTHETIC)]
    assert sizes == [(100, 5000), (100, 5000), (50, 1500)]
    widths = [kind().SampleEpisode(2, 1, 1).Task.SupportInput.shape[1] for kind in SYNTHETIC[1:]]
    assert widths == [20, 8]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_waves_are_sines_at_the_stored_inputs(dtype: Any, backend: Backend) -> None:
    dataset = SineWaveMetaDataset(seed=3, dtype=dtype, backend=backend)
    for episode in dataset.SampleEpisodes(5, 1, 10, 20):
        task = episode.Task
        (wave,) = task.Metadata["Classes"]
        x, y = (
            np.concatenate([backend.to_numpy(support), backend.to_numpy(query)])
            for support, query in ((task.SupportInput, task.QueryInput), (task.SupportOutput, task.QueryOutput))
        )
        assert (x.shape, y.shape, x.dtype, y.dtype) == ((30, 1), (30, 1), dtype, dtype)
        amplitude, phase = float(dataset.amplitudes[wave]), float(dataset.phases[wave])
        truth = [[amplitude * math.sin(float(v) + phase)] for v in x[:, 0]]
        np.testing.assert_allclose(y, truth, rtol=np.finfo(dtype).eps / 2 + 4e-16, atol=2e-15)


def test_waves_have_the_ranges_that_were_given() -> None:
    dataset = SineWaveMetaDataset(2000, 2, 1.0, 2.0, -1.0, 0.5, 3.0, 4.0, seed=5, dtype=np.float64)
    inputs = np.concatenate([e.Task.SupportInput[:, 0] for e in dataset.SampleEpisodes(2000, 1, 1, 1)])
    for values, low, high in ((dataset.amplitudes, 1, 2), (dataset.phases, -1, 0.5), (inputs, 3, 4)):
        assert low <= min(values) <= max(values) <= high
    for values, low, high in ((dataset.amplitudes, 1, 2), (dataset.phases, -1, 0.5)):
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.01


def all_of(dataset: Any, c: int) -> np.ndarray:
    """All examples of a class, from episodes that take all of them."""
    n = dataset.ClassExampleCounts[0]
    for episode in iter(lambda: dataset.SampleEpisode(2, 1, n - 1), None):
        task = episode.Task
        if c in task.Metadata["Classes"]:
            label = task.Metadata["Classes"].index(c)
            return np.concatenate(
                [task.SupportInput[task.SupportOutput == label], task.QueryInput[task.QueryOutput == label]]
            )
    raise AssertionError


def test_clusters_are_gaussian_about_their_means() -> None:
    dataset = GaussianClassificationMetaDataset(3, 400, 5, 3.0, 0.5, seed=1, dtype=np.float64)
    noise = np.concatenate([((all_of(dataset, c) - dataset.means[c]) / 0.5).ravel() for c in range(3)])
    assert stats.kstest(noise, stats.norm.cdf).pvalue > 0.01
    means = GaussianClassificationMetaDataset(400, 2, 10, 3.0, seed=2).means
    assert stats.kstest(means.ravel() / 3.0, stats.norm.cdf).pvalue > 0.01


def test_rotations_are_harmonics_of_one_angle() -> None:
    dataset = RotatedDigitsMetaDataset(5, 300, 7, noiseStdDev=0.0, seed=1, dtype=np.float64)
    turns = []
    for c in range(5):
        x = all_of(dataset, c)
        z = x[:, 0] + 1j * x[:, 1]
        # De Moivre: cos hα + i sin hα = (cos α + i sin α)^h.
        np.testing.assert_allclose(x[:, 2] + 1j * x[:, 3], z**2, atol=1e-14)
        np.testing.assert_allclose(x[:, 4] + 1j * x[:, 5], z**3, atol=1e-14)
        np.testing.assert_allclose(x[:, 6], (z**4).real, atol=1e-14)
        turns.extend(np.angle(z * np.exp(-2j * np.pi * c / 5)) / 0.2)
    assert stats.kstest(turns, stats.norm.cdf).pvalue > 0.01
    noisy = RotatedDigitsMetaDataset(5, 300, 7, noiseStdDev=0.3, seed=1, dtype=np.float64)
    noise = (noisy._pool.inputs - dataset._pool.inputs) / 0.3
    assert stats.kstest(noise.ravel(), stats.norm.cdf).pvalue > 0.01


@each
def test_both_precisions_have_the_same_data_and_draws(kind: Any) -> None:
    single, double = (kind(seed=2, dtype=d).SampleEpisode(ways_of(kind), 3, 4).Task for d in (np.float32, np.float64))
    assert single.Metadata == double.Metadata
    np.testing.assert_array_equal(single.QueryInput, double.QueryInput.astype(np.float32))


@each
def test_the_same_seed_gives_the_same_bits_on_every_backend(kind: Any, backend: Backend) -> None:
    ways = ways_of(kind)
    here, host = kind(seed=5, backend=backend), kind(seed=5)
    assert bits(here.SampleEpisodes(3, ways, 2, 4), backend.name) == bits(host.SampleEpisodes(3, ways, 2, 4))


@each
def test_several_episodes_are_so_many_single_ones_and_a_seed_keeps_the_data(kind: Any) -> None:
    dataset, ways = kind(seed=4), ways_of(kind)
    data = dataset._pool.inputs.tobytes()
    together = bits(dataset.SampleEpisodes(4, ways, 2, 3))
    dataset.SetSeed(4)
    assert bits([dataset.SampleEpisode(ways, 2, 3) for _ in range(4)]) == together
    assert dataset._pool.inputs.tobytes() == data
    assert kind(seed=4)._pool.inputs.tobytes() == data
    assert kind(seed=5)._pool.inputs.tobytes() != data
    assert kind()._pool.inputs.tobytes() != kind()._pool.inputs.tobytes()


def test_the_data_and_the_draws_of_a_seed_have_no_number_in_common() -> None:
    clusters = GaussianClassificationMetaDataset(50, 2, 4, classSeparation=1.0, seed=7, dtype=np.float64)
    numbers = clusters._stream.generator.standard_normal(200)
    assert not set(numbers.tolist()) & set(clusters.means.ravel().tolist())


@each
def test_it_resumes(kind: Any) -> None:
    dataset, ways = kind(seed=4), ways_of(kind)
    dataset.SampleEpisodes(3, ways, 1, 2)
    state, copy = json.loads(json.dumps(dataset.GetState())), pickle.loads(pickle.dumps(dataset))
    wanted = bits(dataset.SampleEpisodes(3, ways, 1, 2))
    resumed = kind(seed=4)
    resumed.SetState(state)
    assert bits(resumed.SampleEpisodes(3, ways, 1, 2)) == bits(copy.SampleEpisodes(3, ways, 1, 2)) == wanted


@given(
    counts=st.lists(st.integers(1, 8), min_size=2, max_size=6),
    ways=st.integers(0, 7),
    shots=st.integers(0, 5),
    queries=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_what_is_supported_is_sampled_from_classes_with_enough_examples(
    counts: list[int], ways: int, shots: int, queries: int, seed: int
) -> None:
    rows = np.array([[c, i] for c, n in enumerate(counts) for i in range(n)], float)
    dataset = MetaDatasetBase("mine", rows, rows[:, 0], seed=seed)
    enough = {c for c, n in enumerate(counts) if n >= shots + queries}
    fits = ways >= 2 and min(shots, queries) >= 1 and len(enough) >= ways
    assert dataset.SupportsConfiguration(ways, shots, queries) == fits
    if not fits:
        with pytest.raises(ArgumentException):
            dataset.SampleEpisode(ways, shots, queries)
        return
    task = dataset.SampleEpisode(ways, shots, queries).Task
    assert set(task.Metadata["Classes"]) <= enough
    drawn = np.concatenate([task.SupportInput, task.QueryInput])
    assert len({tuple(row) for row in drawn.tolist()}) == ways * (shots + queries)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_sizes_may_be_narrow_integers(kind: Any) -> None:
    dataset = MetaDatasetBase("mine", np.arange(600.0).reshape(600, 1), np.arange(600) % 2, seed=0)
    task = dataset.SampleEpisode(kind(2), kind(100), kind(100 if kind is np.int8 else 200)).Task
    assert (len(task.SupportOutput), len(task.QueryOutput)) == (200, 200 if kind is np.int8 else 400)


class TestDifficulty:
    def test_of_classes_is_the_share_of_the_scatter_within_them(self) -> None:
        """Classes at 0 ± 1, 3 ± 2 and 10 ± 0; variances 1, 4 and 0 within."""
        X = np.array([[-1.0], [1.0], [1.0], [5.0], [10.0], [10.0]])
        dataset = MetaDatasetBase("line", X, [0, 0, 1, 1, 2, 2])
        # Between 0 and 3, 2 · 1.5²; between 3 and 10, 2 · 3.5²; of all three, means − 13/3.
        np.testing.assert_allclose(dataset.difficulty([0, 1]), 5 / (5 + 4.5))
        np.testing.assert_allclose(dataset.difficulty([1, 2]), 4 / (4 + 24.5))
        between = sum((m - 13 / 3) ** 2 for m in (0, 3, 10))
        np.testing.assert_allclose(dataset.difficulty([0, 1, 2]), 5 / (5 + between))

    @pytest.mark.parametrize("unit", [2.0**1015, 2.0**-1030])
    def test_does_not_depend_on_the_unit(self, unit: float) -> None:
        """Also where squares overflow, or vanish."""
        X, y = np.array([[-1.0], [1.0], [1.0], [5.0], [10.0], [10.0]]), [0, 0, 1, 1, 2, 2]
        for targets in (None, X):
            one, other = (
                MetaDatasetBase("line", X * u, y, targets=None if targets is None else targets * u) for u in (1.0, unit)
            )
            for classes in ([0, 1, 2], [1]):
                assert other.difficulty(classes) == one.difficulty(classes)

    def test_of_equal_examples_is_one(self) -> None:
        assert MetaDatasetBase("flat", np.ones((4, 2)), [0, 0, 1, 1]).difficulty([0, 1]) == 1.0

    def test_of_targets_is_the_share_of_the_largest_variance(self) -> None:
        X, y = np.zeros((6, 1)), [0, 0, 1, 1, 2, 2]
        dataset = MetaDatasetBase("steps", X, y, targets=np.array([[0.0], [2.0], [0.0], [4.0], [5.0], [5.0]]))
        assert [dataset.difficulty([c]) for c in range(3)] == [0.25, 1.0, 0.0]
        flat = MetaDatasetBase("flat", X, y, targets=X)
        assert flat.difficulty([0]) == 0.0

    def test_grows_with_the_width_of_clusters(self) -> None:
        found = [
            GaussianClassificationMetaDataset(10, 30, 4, clusterStdDev=width, seed=0).difficulty(range(10))
            for width in (0.1, 0.5, 2.0, 8.0)
        ]
        assert 0 < found[0] < found[1] < found[2] < found[3] < 1


X, Y = np.random.default_rng(0).normal(size=(30, 2)), np.repeat(range(3), 10)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: SineWaveMetaDataset(1),
            ArgumentOutOfRangeException,
            "numClasses must be a whole number of at least 2",
        ),
        (
            lambda: SineWaveMetaDataset(5, 1),
            ArgumentOutOfRangeException,
            "examplesPerClass must be a whole number of at",
        ),
        (
            lambda: SineWaveMetaDataset(amplitudeMin=6.0),
            ArgumentOutOfRangeException,
            "amplitudeMax must be a number of at least amplitudeMin = 6.0, got 5.0",
        ),
        (
            lambda: SineWaveMetaDataset(xMax=math.inf),
            ArgumentOutOfRangeException,
            "xMax must be a finite number, got inf",
        ),
        (lambda: SineWaveMetaDataset(dtype=np.dtype("f8")), ArgumentException, "dtype must be a NumPy floating type"),  # type: ignore[call-overload]
        (
            lambda: SineWaveMetaDataset(seed=-1),
            ArgumentOutOfRangeException,
            "seed must be a whole number of at least 0",
        ),
        (
            lambda: SineWaveMetaDataset(seed=0).SampleEpisode(5, 1, 15),
            ArgumentOutOfRangeException,
            "numWays must be a whole number from 1 to 1, got 5",
        ),
        (lambda: GaussianClassificationMetaDataset(featureDim=0), ArgumentOutOfRangeException, "featureDim must be"),
        (
            lambda: GaussianClassificationMetaDataset(clusterStdDev=-0.5),
            ArgumentOutOfRangeException,
            "clusterStdDev must be a finite number of at least 0, got -0.5",
        ),
        (
            lambda: RotatedDigitsMetaDataset(featureDim=1),
            ArgumentOutOfRangeException,
            "featureDim must be a whole number",
        ),
        (lambda: RotatedDigitsMetaDataset(noiseStdDev="0"), ArgumentException, "noiseStdDev must be a finite number"),  # type: ignore[call-overload]
        (
            lambda: RotatedDigitsMetaDataset().SampleEpisode(1, 1, 15),
            ArgumentOutOfRangeException,
            "numWays must be a whole number of at least 2, got 1",
        ),
        (
            lambda: RotatedDigitsMetaDataset(numClasses=4).SampleEpisode(5, 1, 15),
            ArgumentOutOfRangeException,
            "numWays must be at most 4, the number of classes, got 5",
        ),
        (
            lambda: MetaDatasetBase("m", X, Y).SampleEpisode(2, 5, 6),
            ArgumentException,
            r"numShots \+ numQueryPerClass must be at most the examples of numWays = 2 classes, got 5 \+ 6 = 11; 0",
        ),
        (
            lambda: MetaDatasetBase("m", X, Y).SampleEpisodes(0, 2, 1, 1),
            ArgumentOutOfRangeException,
            "count must be a whole number of at least 1, got 0",
        ),
        (lambda: MetaDatasetBase("m", None, Y), ArgumentNullException, "X must be an array"),  # type: ignore[arg-type]
        (lambda: MetaDatasetBase("m", X, Y[:-1]), ArgumentException, "y must have as many labels as X has examples"),
        (
            lambda: MetaDatasetBase("m", X, Y, targets=X[:-1]),
            ArgumentException,
            "targets must be as many as the examples of X, 30, got 29",
        ),
        (
            lambda: MetaDatasetBase("m", X, Y, targets=X * np.nan),
            ArgumentException,
            r"targets must be finite, got nan at \[0, 0\]",
        ),
        (lambda: MetaDatasetBase("m", X, Y).SetState({}), ArgumentException, "state must have the keys"),
    ],
)
def test_arguments_that_do_not_fit(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        call()
