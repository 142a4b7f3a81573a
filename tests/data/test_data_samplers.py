"""Task samplers: how each chooses, what feedback changes, saved states, and learners trained from them."""

from __future__ import annotations

import itertools
import json
import math
import pickle
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from aidotnet_py import (
    BatchingStrategy,
    CrossEntropyLoss,
    CurriculumStage,
    MAMLAlgorithm,
    MAMLOptions,
    NeuralNetworkModel,
)
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data import (
    ArrayLoader,
    BalancedTaskSampler,
    CurriculumTaskSampler,
    DigitsLoader,
    DynamicTaskSampler,
    Episode,
    GaussianClassificationMetaDataset,
    GaussianNoise,
    MetaDatasetBase,
    RotatedDigitsMetaDataset,
    SineWaveMetaDataset,
    SinusoidLoader,
    UniformTaskSampler,
)
from aidotnet_py.data.class_pool import ClassPool
from aidotnet_py.exceptions import (
    ArgumentException,
    ArgumentNullException,
    ArgumentOutOfRangeException,
    InvalidOperationException,
)
from aidotnet_py.meta_learning.contract.sources import IEpisode, IResumable, ITaskSampler
from aidotnet_py.nn import Dense, Sequential, Tanh

SEEDED: list[Any] = [BalancedTaskSampler, CurriculumTaskSampler, DynamicTaskSampler]
SAMPLERS: list[Any] = [UniformTaskSampler, *SEEDED]
SETS = ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput")
each = pytest.mark.parametrize("kind", SAMPLERS)
seeded = pytest.mark.parametrize("kind", SEEDED)


def clusters(classes: int = 8, backend: str | Backend = "numpy") -> GaussianClassificationMetaDataset[Any]:
    return GaussianClassificationMetaDataset(classes, 20, 3, 2.0, 1.0, seed=0, dtype=np.float64, backend=backend)


def make(kind: Any, dataset: Any = None, ways: int = 3, seed: int = 5, **options: Any) -> Any:
    """A sampler whose draws start at the seed, over a dataset of its own."""
    if kind is not UniformTaskSampler:
        return kind(dataset or clusters(), ways, 2, 4, seed=seed, **options)
    sampler = kind(dataset or clusters(), ways, 2, 4)
    sampler.SetSeed(seed)
    return sampler


def bits(tasks: Any, backend: str = "numpy") -> list[bytes]:
    to_numpy = get_backend(backend).to_numpy
    return [to_numpy(getattr(task, which)).tobytes() for task in tasks for which in SETS]


def feed(sampler: Any, batches: int, seed: int = 0) -> None:
    """Let the sampler learn from random losses."""
    generator = np.random.default_rng(seed)
    for _ in range(batches):
        sampler.UpdateWithFeedback([sampler.SampleOne() for _ in range(3)], generator.uniform(0, 2, 3).tolist())


@each
def test_it_is_the_contracts_sampler(kind: Any) -> None:
    sampler = make(kind)
    assert isinstance(sampler, ITaskSampler)
    assert isinstance(sampler, IResumable)
    assert (sampler.NumWays, sampler.NumShots, sampler.NumQueryPerClass) == (3, 2, 4)
    episode = sampler.SampleOne()
    assert isinstance(episode, IEpisode)
    assert episode.Domain == "GaussianClassification"
    default = kind(clusters())
    assert (default.NumWays, default.NumShots, default.NumQueryPerClass) == (5, 1, 15)


@each
@given(data=st.data())
def test_every_episode_has_its_classes_and_no_example_twice(kind: Any, data: Any) -> None:
    counts = data.draw(st.lists(st.integers(3, 9), min_size=2, max_size=7))
    rows = np.array([[c, i] for c, n in enumerate(counts) for i in range(n)], float)
    names = np.array([f"class {c}" for c in range(len(counts))])
    dataset = MetaDatasetBase("mine", rows, names[rows[:, 0].astype(int)], seed=1)
    ways, shots = data.draw(st.integers(2, len(counts))), data.draw(st.integers(1, min(counts) - 1))
    queries = data.draw(st.integers(1, min(counts) - shots))
    sampler = kind(dataset, ways, shots, queries)
    for task in [*sampler.SampleBatch(2), sampler.SampleOne().Task]:
        own = task.Metadata["Classes"]
        assert len(set(own)) == ways
        assert task.SupportOutput.tolist() == np.repeat(range(ways), shots).tolist()
        assert task.QueryOutput.tolist() == np.repeat(range(ways), queries).tolist()
        drawn = np.concatenate([task.SupportInput, task.QueryInput])
        labels = np.concatenate([task.SupportOutput, task.QueryOutput])
        assert [f"class {int(c)}" for c in drawn[:, 0]] == [own[label] for label in labels]
        assert len({tuple(row) for row in drawn.tolist()}) == ways * (shots + queries)
        sampler.UpdateWithFeedback([Episode(task)], [1.0])


@each
def test_the_same_seed_and_feedback_give_the_same_bits_on_every_backend(kind: Any, backend: Backend) -> None:
    here, host = make(kind, clusters(backend=backend)), make(kind)
    for _ in range(4):
        batch = here.SampleBatch(3)
        assert all(backend.owns(task.SupportInput) for task in batch)
        assert bits(batch, backend.name) == bits(host.SampleBatch(3))
        feed(here, 1)
        feed(host, 1)
        assert here.GetState() == host.GetState()


@each
def test_a_batch_is_so_many_single_episodes(kind: Any) -> None:
    one, many = make(kind), make(kind)
    feed(one, 2)
    feed(many, 2)
    assert bits(many.SampleBatch(5)) == bits([one.SampleOne().Task for _ in range(5)])
    assert one.GetState() == many.GetState()
    assert bits(make(kind, seed=6).SampleBatch(5)) != bits(make(kind).SampleBatch(5))


@seeded
def test_samplers_draw_for_themselves(kind: Any) -> None:
    dataset = clusters()
    place = dataset.GetState()
    first, second, alone = make(kind, dataset), make(kind, dataset), make(kind)
    wanted = [bits(alone.SampleBatch(2)) for _ in range(3)]
    assert [bits(first.SampleBatch(2)) for _ in range(3)] == [bits(second.SampleBatch(2)) for _ in range(3)] == wanted
    assert dataset.GetState() == place


@each
@given(rounds=st.integers(0, 4), seed=st.integers(0, 99))
def test_a_saved_state_goes_through_json_and_resumes_bit_for_bit(kind: Any, rounds: int, seed: int) -> None:
    sampler = make(kind, seed=seed)
    feed(sampler, rounds, seed)
    state, copy = json.loads(json.dumps(sampler.GetState())), pickle.loads(pickle.dumps(sampler))
    resumed = make(kind, seed=1)
    resumed.SetState(state)
    found = []
    for own in (sampler, resumed, copy):
        tasks = bits(own.SampleBatch(3))
        feed(own, 2)
        found.append((tasks, bits(own.SampleBatch(3)), own.GetState()))
    assert found[0] == found[1] == found[2]


@each
def test_feedback_is_noted_on_the_episodes(kind: Any) -> None:
    sampler = make(kind)
    first, second = sampler.SampleOne(), sampler.SampleOne()
    sampler.UpdateWithFeedback([first, second], [np.float32(0.5), 2])
    sampler.UpdateWithFeedback([first], [0.25])
    assert (first.LastLoss, first.SampleCount, second.LastLoss, second.SampleCount) == (0.25, 2, 2.0, 1)
    assert [type(episode.LastLoss) for episode in (first, second)] == [float, float]


@each
def test_feedback_of_generators_is_noted(kind: Any) -> None:
    sampler = make(kind)
    own = [sampler.SampleOne(), sampler.SampleOne()]
    sampler.UpdateWithFeedback((episode for episode in own), (loss for loss in (0.5, 2.0)))  # type: ignore[arg-type]
    assert [episode.LastLoss for episode in own] == [0.5, 2.0]


def test_strategies_and_stages_of_batches() -> None:
    batches = [make(kind).SampleBatch(2) for kind in SAMPLERS]
    assert [batch.BatchingStrategy for batch in batches] == [
        BatchingStrategy.Uniform,
        BatchingStrategy.DomainBalanced,
        BatchingStrategy.CurriculumAware,
        BatchingStrategy.Adaptive,
    ]
    assert [batch.CurriculumStage for batch in batches] == [
        *[CurriculumStage.General] * 2,
        CurriculumStage.Easy,
        CurriculumStage.General,
    ]


class TestUniform:
    def test_classes_are_equally_frequent(self) -> None:
        counts = Counter(c for task in make(UniformTaskSampler).SampleBatch(2000) for c in task.Metadata["Classes"])
        # A class is in a task with probability 3/8; five standard deviations.
        assert max(abs(counts[c] / 2000 - 3 / 8) for c in range(8)) <= 5 * math.sqrt(15 / 64 / 2000)

    def test_any_dataset_of_the_contract_will_do(self) -> None:
        class Waves:
            Name, TotalClasses, TotalExamples, ClassExampleCounts = "waves", 1, 99, {0: 99}

            def __init__(self) -> None:
                self.loader = SinusoidLoader(2, 4, seed=0)

            def SampleEpisode(self, numWays: int, numShots: int, numQueryPerClass: int) -> Any:
                return Episode(self.loader.GetNextTask())

            def SampleEpisodes(self, count: int, numWays: int, numShots: int, numQueryPerClass: int) -> Any:
                return [self.SampleEpisode(numWays, numShots, numQueryPerClass) for _ in range(count)]

            def SetSeed(self, seed: int) -> None:
                self.loader.SetSeed(seed)

            def SupportsConfiguration(self, *sizes: int) -> bool:
                return sizes == (1, 2, 4)

        sampler = UniformTaskSampler(Waves(), 1, 2, 4)
        sampler.SetSeed(3)
        state = sampler.GetState()
        assert state == {"dataset": None}
        sampler.SetState(state)
        assert bits(sampler.SampleBatch(2)) == bits(SinusoidLoader(2, 4, seed=3).GetTaskBatch(2))
        with pytest.raises(ArgumentException, match="must be sizes that waves supports, got 2, 2 and 4"):
            UniformTaskSampler(Waves(), 2, 2, 4)
        with pytest.raises(ArgumentException, match=r"dataset must be a MetaDatasetBase, .*, got <"):
            BalancedTaskSampler(Waves(), 1, 2, 4)  # type: ignore[arg-type]


class TestBalanced:
    @given(st.integers(2, 9).flatmap(lambda c: st.tuples(st.just(c), st.integers(2, c))), st.integers(1, 40))
    def test_classes_differ_by_one_task_at_most(self, case: tuple[int, int], tasks: int) -> None:
        classes, ways = case
        sampler = make(BalancedTaskSampler, clusters(classes), ways)
        counts = Counter(c for task in sampler.SampleBatch(tasks) for c in task.Metadata["Classes"])
        assert {counts[c] for c in range(classes)} <= {tasks * ways // classes, -(-tasks * ways // classes)}

    def test_only_classes_with_enough_examples_take_part(self) -> None:
        X, y = np.random.default_rng(0).normal(size=(33, 2)), [0] * 10 + [1] * 3 + [2] * 10 + [3] * 10
        sampler = BalancedTaskSampler(MetaDatasetBase("m", X, y), 2, 2, 4, seed=0)
        counts = Counter(c for task in sampler.SampleBatch(30) for c in task.Metadata["Classes"])
        assert counts == {0: 20, 2: 20, 3: 20}

    def test_a_seed_sets_the_counts_to_zero(self) -> None:
        sampler = make(BalancedTaskSampler)
        sampler.SampleBatch(5)
        sampler.SetSeed(5)
        assert sampler.GetState() == make(BalancedTaskSampler).GetState()


class TestDatasetsOfLoaders:
    def test_of_arrays_are_those_of_the_arrays(self) -> None:
        X, y = np.random.default_rng(0).normal(size=(60, 3)), np.repeat(["a", "b", "c", "d"], 15)
        named, own = MetaDatasetBase("ArrayLoader", X, y, seed=2), ArrayLoader(X, y, 2, 1, 2).dataset(seed=2)
        assert (own.Name, own.labels, own.ClassExampleCounts) == (named.Name, named.labels, named.ClassExampleCounts)
        assert own.difficulty([0, 3]) == named.difficulty([0, 3])
        for one, other in zip(own.SampleEpisodes(4, 3, 2, 2), named.SampleEpisodes(4, 3, 2, 2), strict=True):
            assert (one.Task.QueryInput == other.Task.QueryInput).all()
        assert own.TotalExamples == 60

    def test_of_images_have_turned_classes_and_measure_them(self) -> None:
        digits = pytest.importorskip("sklearn.datasets").load_digits()
        pool = {c: digits.images[digits.target == c][..., np.newaxis] / 16 for c in (0, 1, 6, 8, 9)}
        turned = {(c, turn): np.rot90(images, turn, axes=(1, 2)) for turn in range(4) for c, images in pool.items()}
        X = np.concatenate(list(turned.values()))
        y = np.repeat(np.arange(20), [len(images) for images in turned.values()])
        wanted, dataset = MetaDatasetBase("turned", X, y), DigitsLoader(2, seed=0).dataset(seed=0)
        assert dataset.labels[:6] == ("0", "1", "6", "8", "9", "0@90")
        assert list(dataset.ClassExampleCounts.values()) == [len(images) for images in turned.values()]
        for classes in ([0, 5], [1, 6, 12], [2, 4, 14, 19]):
            np.testing.assert_allclose(dataset.difficulty(classes), wanted.difficulty(classes), rtol=1e-12)

    @pytest.mark.parametrize("kind", [CurriculumTaskSampler, DynamicTaskSampler, BalancedTaskSampler])
    def test_samplers_draw_the_classes_of_a_part(self, kind: Any, backend: Backend) -> None:
        train, test = DigitsLoader(2, rotations=False, backend=backend).split(["0", "6", "8"], ["1", "9"])
        sampler = kind(train.dataset(seed=0), 2, 1, 3, seed=1)
        host = kind(DigitsLoader(2, rotations=False).split(["0", "6", "8"])[0].dataset(seed=0), 2, 1, 3, seed=1)
        for task, same in zip(sampler.SampleBatch(20), host.SampleBatch(20), strict=True):
            assert set(task.Metadata["Classes"]) < {"0", "6", "8"}
            assert (backend.to_numpy(task.QueryInput) == same.QueryInput).all()
        assert test.dataset().TotalClasses == 2

    def test_labels_of_images_are_made_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Some six thousand classes of Omniglot took three quarters of a minute, each time all of them."""
        dataset, made = DigitsLoader(NWay=2, seed=0).dataset(seed=0), Counter[int]()
        label = ClassPool._label

        def counted(pool: ClassPool, index: int) -> str:
            made[index] += 1
            return label(pool, index)

        monkeypatch.setattr(ClassPool, "_label", counted)
        sampler = BalancedTaskSampler(dataset, 2, 1, 1, seed=0)
        assert set(made.values()) == {1}
        made.clear()
        sampler.SampleBatch(3)
        dataset.SampleEpisode(2, 1, 1)
        # Those of the tasks' own classes.
        assert made.total() == 8

    def test_a_curriculum_over_images_goes_from_easy_to_hard(self) -> None:
        dataset = DigitsLoader(2, seed=0).dataset(seed=0)
        means = []
        for level in (0.0, 0.5, 1.0):
            batch = CurriculumTaskSampler(dataset, 2, 1, 5, initialDifficulty=level, seed=0).SampleBatch(100)
            labels = {label: index for index, label in enumerate(dataset.labels)}
            measured = [dataset.difficulty([labels[c] for c in task.Metadata["Classes"]]) for task in batch]
            assert (batch.TaskDifficulties == measured).all()
            means.append(np.mean(measured))
        assert means[0] + 0.05 < means[1] < means[2] - 0.05

    def test_a_learner_trains_on_one(self) -> None:
        X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 4
        sampler = DynamicTaskSampler(ArrayLoader(X, y, 2, 1, 2).dataset(seed=0), 2, 1, 3, seed=0)
        model: Any = NeuralNetworkModel(
            Sequential(Dense(2)), input_shape=(3,), loss=CrossEntropyLoss(), seed=0, dtype=np.float64
        )
        result = MAMLAlgorithm(MAMLOptions(model, NumMetaIterations=3)).Train(sampler)
        assert len(result.LossHistory) == 3

    def test_transforms_are_refused(self) -> None:
        loader = DigitsLoader(2).with_transform(GaussianNoise(0.1))
        with pytest.raises(InvalidOperationException, match="must be made of a loader without transforms"):
            loader.dataset()


class TestCurriculum:
    @given(st.integers(0, 200), st.lists(st.floats(0, 1), min_size=2, max_size=8).map(sorted))
    def test_tasks_are_ordered_by_measured_difficulty(self, seed: int, levels: list[float]) -> None:
        """From the same place of the stream, a higher level gives a task at least as hard."""
        dataset = clusters(12)
        sampler = make(CurriculumTaskSampler, dataset, seed=seed)
        place, found = sampler.GetState(), []
        for level in levels:
            sampler.SetState(place | {"level": level})
            episode = sampler.SampleOne()
            assert episode.Difficulty == dataset.difficulty(episode.Task.Metadata["Classes"])
            found.append(episode.Difficulty)
        assert found == sorted(found)

    def test_measured_difficulty_is_that_of_real_images_and_the_curriculum_orders_by_it(self) -> None:
        """Against what a nearest mean gets wrong with one shot, which knows nothing of the measure."""
        digits = pytest.importorskip("sklearn.datasets").load_digits()
        dataset = MetaDatasetBase("digits", digits.images.reshape(-1, 64) / 16, digits.target, seed=0)

        def error(task: Any) -> float:
            distances = ((task.QueryInput[:, np.newaxis] - task.SupportInput) ** 2).sum(axis=2)
            return float(np.mean(distances.argmin(axis=1) != task.QueryOutput))

        generator, pairs = np.random.default_rng(0), list(itertools.combinations(range(10), 2))
        draw = lambda pair: dataset.draw(generator, 30, lambda: np.array(pair), 1, 15).tasks_on(dataset.backend)  # noqa: E731
        errors = [np.mean([error(task) for task in draw(pair)]) for pair in pairs]
        assert stats.spearmanr(errors, [dataset.difficulty(pair) for pair in pairs]).statistic > 0.8

        batches = [
            CurriculumTaskSampler(dataset, 2, 1, 15, initialDifficulty=level, seed=0).SampleBatch(200)
            for level in (0.0, 0.5, 1.0)
        ]
        wrong = [float(np.mean([error(task) for task in batch])) for batch in batches]
        assert wrong[0] < 0.08 < 0.1 < wrong[1] < 0.16 < 0.18 < wrong[2]

    @pytest.mark.slow
    def test_the_first_level_takes_the_easiest_of_eight_and_the_last_the_hardest(self) -> None:
        """The least and the largest of eight uniform ranks have the means 1/9 and 8/9."""
        dataset, n = clusters(12), 200
        everything = sorted(
            make(UniformTaskSampler, dataset).SampleBatch(1000), key=lambda t: dataset.difficulty(t.Metadata["Classes"])
        )
        scale = [dataset.difficulty(task.Metadata["Classes"]) for task in everything]
        for level, mean in ((0.0, 1 / 9), (1.0, 8 / 9)):
            sampler = make(CurriculumTaskSampler, dataset, initialDifficulty=level)
            ranks = np.searchsorted(scale, sampler.SampleBatch(n).TaskDifficulties) / 1000
            # The standard deviation of such a rank is 0.099; of the scale itself at most 0.01.
            assert abs(ranks.mean() - mean) <= 5 * 0.099 / math.sqrt(n) + 0.02

    @given(
        st.floats(0, 1),
        st.floats(1e-3, 2.0),
        st.lists(st.lists(st.floats(-3, 1e4), min_size=1, max_size=3), min_size=1, max_size=4),
    )
    def test_the_level_rises_by_the_formula(self, start: float, pace: float, feedback: list[list[float]]) -> None:
        sampler = make(CurriculumTaskSampler, paceRate=pace, initialDifficulty=start)
        level = start
        for losses in feedback:
            sampler.UpdateWithFeedback([sampler.SampleOne() for _ in losses], losses)
            mean = min(sum(losses) / len(losses), 700.0)
            level = min(1.0, level + pace / (1.0 + math.exp(mean - 1.0)))
            assert sampler.level == pytest.approx(level, rel=1e-12)

    def test_large_losses_leave_the_level_finite(self) -> None:
        sampler = make(CurriculumTaskSampler, initialDifficulty=0.5)
        sampler.UpdateWithFeedback([sampler.SampleOne() for _ in range(3)], [1.7e308] * 3)
        assert sampler.level == 0.5

    @pytest.mark.parametrize(("level", "stage"), [(0.0, "Easy"), (0.33, "Medium"), (0.65, "Medium"), (0.66, "Hard")])
    def test_stages(self, level: float, stage: str) -> None:
        batch = make(CurriculumTaskSampler, initialDifficulty=level).SampleBatch(2)
        assert batch.CurriculumStage is CurriculumStage[stage]

    def test_a_seed_leaves_the_level(self) -> None:
        sampler = make(CurriculumTaskSampler)
        feed(sampler, 3)
        level = sampler.level
        sampler.SetSeed(5)
        assert sampler.level == level > 0.1

    def test_of_functions(self) -> None:
        waves = SineWaveMetaDataset(20, 40, seed=0)
        easy, hard = (
            CurriculumTaskSampler(waves, 1, 5, 10, initialDifficulty=level, seed=0).SampleBatch(200)
            for level in (0.0, 1.0)
        )
        amplitudes = [np.mean([waves.amplitudes[t.Metadata["Classes"][0]] for t in batch]) for batch in (easy, hard)]
        assert amplitudes[0] < amplitudes[1] - 1


def expected_probabilities(history: dict[int, list[float]], classes: int, ways: int, explore: float) -> np.ndarray:
    """By the formula, with means as sums, and the cap found by bisection."""
    means = {c: sum(i * x for i, x in enumerate(xs, 1)) / sum(range(1, len(xs) + 1)) for c, xs in history.items()}
    other = sum(means.values()) / len(means) if means else 0.0
    weights = np.array([max(means.get(c, other), 0.0) for c in range(classes)])
    positive = weights > 0
    if positive.sum() <= ways:
        chosen = np.where(positive, 1.0, (ways - positive.sum()) / max((~positive).sum(), 1))
    else:
        high = ways / weights[positive].min()
        t = optimize.brentq(lambda t: np.minimum(1, t * weights).sum() - ways, 0.0, high, xtol=1e-300, rtol=1e-14)
        chosen = np.minimum(1, t * weights)
    return explore * ways / classes + (1 - explore) * chosen


class TestDynamic:
    @given(
        seed=st.integers(0, 99),
        explore=st.floats(0, 1),
        losses=st.lists(st.floats(-1, 5).map(lambda x: round(x, 3)), max_size=25),
    )
    def test_probabilities_follow_the_losses_that_were_fed_back(
        self, seed: int, explore: float, losses: list[float]
    ) -> None:
        sampler = make(DynamicTaskSampler, seed=seed, explorationRate=explore)
        history: dict[int, list[float]] = defaultdict(list)
        for loss in losses:
            episode = sampler.SampleOne()
            sampler.UpdateWithFeedback([episode], [loss])
            for c in episode.Task.Metadata["Classes"]:
                history[c].append(loss)
        wanted = expected_probabilities(history, 8, 3, explore)
        np.testing.assert_allclose(sampler.class_probabilities, wanted, atol=1e-9)
        assert sampler.class_probabilities.sum() == pytest.approx(3)

    @pytest.mark.parametrize("losses", [[1.7e308] * 6, [-1.7e308, 1.7e308] * 3])
    def test_large_losses_leave_the_probabilities_finite(self, losses: list[float]) -> None:
        sampler = make(DynamicTaskSampler)
        for loss in losses:
            sampler.UpdateWithFeedback([sampler.SampleOne()], [loss])
        assert sampler.class_probabilities.sum() == pytest.approx(3)
        restored = make(DynamicTaskSampler)
        restored.SetState(sampler.GetState())
        assert restored.SampleOne().Task.Metadata == sampler.SampleOne().Task.Metadata

    @pytest.mark.slow
    def test_draws_have_these_probabilities(self) -> None:
        sampler, n = make(DynamicTaskSampler, explorationRate=0.2), 6000
        generator = np.random.default_rng(1)
        for _ in range(40):
            episode = sampler.SampleOne()
            sampler.UpdateWithFeedback(
                [episode], [float(generator.uniform(0, 0.2) + sum(episode.Task.Metadata["Classes"]))]
            )
        wanted = sampler.class_probabilities
        assert wanted.max() - wanted.min() > 0.1
        counts = Counter(c for task in sampler.SampleBatch(n) for c in task.Metadata["Classes"])
        found = np.array([counts[c] for c in range(8)]) / n
        # Five standard deviations of a binomial.
        assert (abs(found - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / n)).all()

    def test_a_hard_class_is_drawn_more_often_than_an_easy_one(self) -> None:
        sampler = make(DynamicTaskSampler, ways=2, explorationRate=0.0)
        for _ in range(60):
            episode = sampler.SampleOne()
            sampler.UpdateWithFeedback([episode], [4.0 if 0 in episode.Task.Metadata["Classes"] else 0.5])
        assert sampler.class_probabilities.argmax() == 0
        assert sampler.class_probabilities[0] > 1.5 * np.sort(sampler.class_probabilities)[-2]

    def test_difficulties_are_shares_of_the_largest_loss(self) -> None:
        sampler = make(DynamicTaskSampler, clusters(4), ways=2)
        assert sampler.SampleBatch(2).TaskDifficulties is None
        assert sampler.SampleOne().Difficulty is None
        state = sampler.GetState() | {"losses": [4.0, 2.0, 1.0, -1.0], "counts": [1, 1, 1, 1]}
        sampler.SetState(state)
        share = {0: 1.0, 1: 0.5, 2: 0.25, 3: 0.0}
        for task, difficulty in zip(batch := sampler.SampleBatch(20), batch.TaskDifficulties, strict=True):
            assert difficulty == np.mean([share[c] for c in task.Metadata["Classes"]])
        sampler.SetState(state | {"losses": [0.0] * 4})
        assert sampler.SampleOne().Difficulty == 0.0

    def test_tasks_at_the_start_are_uniform(self) -> None:
        counts = Counter(c for task in make(DynamicTaskSampler).SampleBatch(2000) for c in task.Metadata["Classes"])
        assert max(abs(counts[c] / 2000 - 3 / 8) for c in range(8)) <= 5 * math.sqrt(15 / 64 / 2000)
        np.testing.assert_allclose(make(DynamicTaskSampler).class_probabilities, 3 / 8)

    def test_a_seed_leaves_the_losses(self) -> None:
        sampler = make(DynamicTaskSampler)
        feed(sampler, 3)
        before = sampler.class_probabilities
        sampler.SetSeed(5)
        np.testing.assert_array_equal(sampler.class_probabilities, before)


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"dataset": None}, ArgumentNullException, "dataset must be an? I?MetaDataset(Base)?, got None"),
            ({"dataset": SinusoidLoader()}, ArgumentException, "dataset must be an? I?MetaDataset"),
            ({"numWays": 1}, ArgumentOutOfRangeException, "numWays must be a whole number of at least 2, got 1"),
            ({"numWays": 9}, ArgumentOutOfRangeException, "numWays must be at most 8, the number of classes, got 9"),
            ({"numShots": 0}, ArgumentOutOfRangeException, "numShots must be a whole number of at least 1, got 0"),
            ({"numQueryPerClass": True}, ArgumentException, "numQueryPerClass must be a whole number of at least 1"),
            (
                {"numShots": 15, "numQueryPerClass": 6},
                ArgumentException,
                r"numShots \+ numQueryPerClass must be at most",
            ),
        ],
    )
    @each
    def test_arguments(self, kind: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=f"^{message}"):
            kind(**({"dataset": clusters()} | arguments))

    @pytest.mark.parametrize(
        ("kind", "arguments", "message"),
        [
            (CurriculumTaskSampler, {"paceRate": 0}, "paceRate must be a finite number above 0, got 0"),
            (
                CurriculumTaskSampler,
                {"initialDifficulty": 1.1},
                r"initialDifficulty must be a number in \[0, 1\], got 1.1",
            ),
            (DynamicTaskSampler, {"explorationRate": -0.1}, r"explorationRate must be a number in \[0, 1\], got -0.1"),
            (BalancedTaskSampler, {"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ],
    )
    def test_arguments_of_one(self, kind: Any, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ArgumentOutOfRangeException, match=f"^{message}"):
            kind(clusters(), **arguments)

    @each
    def test_batches_of_no_size(self, kind: Any) -> None:
        with pytest.raises(ArgumentOutOfRangeException, match="batchSize must be a whole number of at least 1, got 0"):
            make(kind).SampleBatch(0)

    @each
    @pytest.mark.parametrize(
        ("episodes", "losses", "error", "message"),
        [
            (None, [1.0], ArgumentNullException, "episodes must be a sequence of episodes, got None"),
            (1, None, ArgumentNullException, "losses must be a sequence of numbers, got None"),
            (2, [1.0], ArgumentException, "losses must be as many as the episodes, at least one, got 1 and 2"),
            (0, [], ArgumentException, "losses must be as many as the episodes, at least one, got 0 and 0"),
            (2, [1.0, math.nan], ArgumentOutOfRangeException, r"losses\[1\] must be a finite number, got nan"),
            (2, [math.inf, 1.0], ArgumentOutOfRangeException, r"losses\[0\] must be a finite number, got inf"),
            (1, ["low"], ArgumentException, r"losses\[0\] must be a finite number, got 'low'"),
        ],
    )
    def test_feedback_changes_nothing(
        self, kind: Any, episodes: Any, losses: Any, error: type[Exception], message: str
    ) -> None:
        sampler = make(kind)
        own = None if episodes is None else [sampler.SampleOne() for _ in range(episodes)]
        before = sampler.GetState()
        with pytest.raises(error, match=f"^{message}"):
            sampler.UpdateWithFeedback(own, losses)
        assert sampler.GetState() == before
        assert all(episode.SampleCount == 0 for episode in own or [])

    @seeded
    def test_feedback_on_strange_episodes_changes_nothing(self, kind: Any) -> None:
        sampler = make(kind)
        before = sampler.GetState()
        own, wave = sampler.SampleOne(), Episode(SinusoidLoader(seed=0).GetNextTask())
        other = RotatedDigitsMetaDataset(seed=0).SampleEpisode(5, 1, 2)
        # Of as many classes, with the same labels.
        double = MetaDatasetBase("others", np.eye(24), np.arange(24) % 8).SampleEpisode(3, 1, 2)
        sampler.SetState(before)
        classes = "must have 3 classes of GaussianClassification"
        for strange, message in ((wave, classes), (other, classes), (double, "must be of Gaussian.*, got 'others'")):
            with pytest.raises(ArgumentException, match=rf"^episodes\[1\] {message}"):
                sampler.UpdateWithFeedback([own, strange], [1.0, 1.0])
        for labels in (5, None, [[0], [1], [2]]):
            own.Task.Metadata["Classes"] = labels
            with pytest.raises(ArgumentException, match=rf"^episodes\[0\] {classes}"):
                sampler.UpdateWithFeedback([own], [1.0])
        with pytest.raises(ArgumentException, match=r"^episodes\[0\] must be an IEpisode, got <MetaLearningTask"):
            sampler.UpdateWithFeedback([own.Task], [1.0])
        assert sampler.GetState() == before
        assert own.SampleCount == 0

    @pytest.mark.parametrize(
        ("kind", "change", "message"),
        [
            (UniformTaskSampler, {"more": 1}, "state must be a mapping with the key dataset, got"),
            (UniformTaskSampler, {"dataset": {}}, "state must have the keys bit_generator"),
            (CurriculumTaskSampler, {"level": -1.0}, r"state\['level'\] must be a number in \[0, 1\], got -1.0"),
            (
                DynamicTaskSampler,
                {"losses": [math.nan] * 8},
                r"state\['losses'\]\[0\] must be a finite number, got nan",
            ),
            (DynamicTaskSampler, {"losses": [0.0] * 9}, r"state\['losses'\] must be a list of 8 numbers, got"),
            (DynamicTaskSampler, {"counts": [0.5] * 8}, r"state\['counts'\]\[0\] must be a whole number"),
        ],
    )
    def test_states_change_nothing(self, kind: Any, change: dict[str, Any], message: str) -> None:
        sampler = make(kind)
        feed(sampler, 1)
        before = sampler.GetState()
        with pytest.raises(ArgumentException, match=message):
            sampler.SetState(before | change)
        assert sampler.GetState() == before


def learner(backend: str = "numpy", **options: Any) -> MAMLAlgorithm[Any, Any, Any]:
    model: NeuralNetworkModel[Any] = NeuralNetworkModel(
        Sequential(Dense(8), Tanh(), Dense(3)),
        input_shape=(3,),
        loss=CrossEntropyLoss(),
        dtype=np.float64,
        backend=backend,
        seed=0,
    )
    settings = {"MetaBatchSize": 4, "InnerLearningRate": 0.3, "OuterLearningRate": 0.01, "AdaptationSteps": 2}
    # Of first order, for which there is half as much to trace.
    return MAMLAlgorithm(MAMLOptions(model, **(settings | {"UseFirstOrder": True} | options)))


@contextmanager
def recorded(sampler: Any) -> Iterator[list[tuple[Any, Any]]]:
    """Note what the sampler is told."""
    told, update = [], sampler.UpdateWithFeedback
    sampler.UpdateWithFeedback = lambda episodes, losses: (told.append((episodes, losses)), update(episodes, losses))
    yield told
    del sampler.UpdateWithFeedback


class TestTraining:
    @pytest.mark.slow
    @pytest.mark.parametrize("kind", SAMPLERS)
    def test_a_learner_trained_from_a_sampler_gets_better(self, kind: Any) -> None:
        own, sampler = learner(UseFirstOrder=False, NumMetaIterations=120), make(kind)
        test = make(UniformTaskSampler, seed=99).SampleBatch(40)
        before = own.Evaluate(test)
        with recorded(sampler) as told:
            result = own.Train(sampler)
        assert own.Evaluate(test) < 0.8 * before
        assert len(told) == result.TotalIterations == own.CurrentIteration == 120
        for loss, (episodes, losses) in zip(result.LossHistory, told, strict=True):
            assert [episode.LastLoss for episode in episodes] == losses
            assert [episode.SampleCount for episode in episodes] == [1] * 4
            assert np.mean(losses) == pytest.approx(loss, rel=1e-12)

    @pytest.mark.costly
    @each
    def test_single_steps_leave_the_feedback_to_their_caller(self, kind: Any) -> None:
        own, twin, sampler = learner(), learner(), make(kind)
        with recorded(sampler) as told:
            steps = [own.MetaTrainStep(sampler, 3).MetaLoss for _ in range(4)]
        assert told == []
        same = make(kind)
        assert steps == [twin.MetaTrain(same.SampleBatch(3)) for _ in range(4)]

    def test_the_curriculum_moves_while_a_learner_trains(self) -> None:
        sampler = make(CurriculumTaskSampler, paceRate=0.1)
        learner(NumMetaIterations=40).Train(sampler)
        assert sampler.level == 1.0

    def test_the_probabilities_of_a_trained_sampler_are_of_its_losses(self) -> None:
        sampler, history = make(DynamicTaskSampler), defaultdict(list)
        with recorded(sampler) as told:
            learner(NumMetaIterations=15).Train(sampler)
        for episodes, losses in told:
            for episode, loss in zip(episodes, losses, strict=True):
                for c in episode.Task.Metadata["Classes"]:
                    history[c].append(loss)
        np.testing.assert_allclose(sampler.class_probabilities, expected_probabilities(history, 8, 3, 0.1), atol=1e-9)

    @pytest.mark.costly
    @each
    def test_a_run_goes_on_where_learner_and_sampler_were_saved(self, kind: Any, tmp_path: Any) -> None:
        whole, first, second = (learner(NumMetaIterations=n) for n in (6, 3, 3))
        wanted = whole.Train(make(kind)).LossHistory
        sampler, resumed = make(kind), make(kind, seed=1)
        found = first.Train(sampler).LossHistory
        first.Save(tmp_path / "run")
        state = json.loads(json.dumps(sampler.GetState()))
        second.Load(tmp_path / "run")
        resumed.SetState(state)
        assert [*found, *second.Train(resumed).LossHistory] == list(wanted)
        assert second.BaseModel.GetParameters().tobytes() == whole.BaseModel.GetParameters().tobytes()

    @each
    def test_a_step_that_fails_puts_the_sampler_back(self, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        own, sampler = learner(NumMetaIterations=1), make(kind)
        own.Train(sampler)
        before = sampler.GetState()
        monkeypatch.setattr(own, "_meta_update", lambda gradients: 1 / 0)
        for step in (lambda: own.Train(sampler), lambda: own.MetaTrainStep(sampler, 2)):
            with pytest.raises(ZeroDivisionError):
                step()
            assert sampler.GetState() == before
        assert own.CurrentIteration == 1

    @pytest.mark.costly
    @each
    def test_on_a_device_the_losses_are_those_of_the_host(self, kind: Any) -> None:
        there = learner("simulated", NumMetaIterations=3).Train(make(kind, clusters(backend="simulated")))
        here = learner(NumMetaIterations=3).Train(make(kind))
        np.testing.assert_allclose(there.LossHistory, here.LossHistory, rtol=1e-9)
