"""Batches of tasks: agreement of the tasks, statistics against the statistics module, ranges and splits."""

from __future__ import annotations

import copy
import itertools
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py.backends import Backend
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, ArgumentOutOfRangeException
from aidotnet_py.meta_learning.contract.enums import BatchingStrategy, CurriculumStage, MetaLearningAlgorithmType
from aidotnet_py.meta_learning.contract.sources import (
    IEpisode,
    IEpisodicDataLoader,
    IMetaDataset,
    IResumable,
    ITaskSampler,
)
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import MetaLearningTask

X, Y = np.ones((4, 3)), np.ones(4)


def task(**changes: Any) -> MetaLearningTask:
    return MetaLearningTask(**{"SupportSetX": X, "SupportSetY": Y, **changes})


def tasks(n: int) -> list[MetaLearningTask]:
    return [task(TaskId=i) for i in range(n)]


def full_batch(n: int) -> TaskBatch:
    similarities = np.arange(n * n, dtype=np.float32).reshape(n, n)
    return TaskBatch(tasks(n), BatchingStrategy.DifficultyBased, np.arange(n) / 2, similarities, CurriculumStage.Medium)


class TestMembers:
    def test_what_it_was_given(self) -> None:
        given_tasks = [task(NumWays=3, NumShots=2, NumQueryPerClass=7) for _ in range(2)]
        batch = TaskBatch(iter(given_tasks), BatchingStrategy.Adaptive, curriculumStage=CurriculumStage.Hard)
        assert batch.Tasks == tuple(given_tasks)
        assert batch.BatchSize == len(batch) == 2
        assert (batch.NumWays, batch.NumShots, batch.NumQueryPerClass) == (3, 2, 7)
        assert batch.BatchingStrategy is BatchingStrategy.Adaptive
        assert batch.CurriculumStage is CurriculumStage.Hard
        assert repr(batch) == "<TaskBatch of 2: support (4, 3) → (4,)>"

    def test_defaults(self) -> None:
        batch = TaskBatch(tasks(1))
        assert batch.BatchingStrategy is BatchingStrategy.Uniform
        assert batch.CurriculumStage is CurriculumStage.General
        assert batch.TaskDifficulties is batch.TaskSimilarities is None
        assert batch.AverageDifficulty == batch.DifficultyVariance == batch.AverageTaskSimilarity == 0

    def test_is_indexed_and_iterated_as_a_list_is(self) -> None:
        given_tasks = tasks(4)
        batch = TaskBatch(given_tasks)
        assert list(batch) == given_tasks
        assert batch[0] is given_tasks[0]
        assert batch[-1] is given_tasks[3]
        assert batch[np.int64(2)] is given_tasks[2]
        assert batch[1:] == given_tasks[1:]
        assert batch[::-2] == given_tasks[::-2]
        assert given_tasks[2] in batch
        with pytest.raises(IndexError):
            batch[4]

    def test_metadata(self) -> None:
        batch = TaskBatch(tasks(1))
        batch.SetMetadata("epoch", 3)
        assert batch.GetMetadata("epoch") == 3
        assert batch.GetMetadata("other") is None

    @pytest.mark.parametrize(("dtype", "most"), [(np.float16, 6e4), (np.float32, 3e38), (np.float64, 1.7e308)])
    def test_numbers_whose_sum_is_too_large(self, dtype: Any, most: float) -> None:
        known = {"taskDifficulties": np.full(3, most, dtype), "taskSimilarities": np.full((3, 3), most, dtype)}
        batch = TaskBatch(tasks(3), **known)
        assert batch.AverageDifficulty == batch.AverageTaskSimilarity == dtype(most)
        assert batch.DifficultyVariance == 0
        assert {type(value) for value in (batch.AverageDifficulty, batch.DifficultyVariance)} == {dtype}
        # No number of the type is so large.
        apart = TaskBatch(tasks(2), taskDifficulties=np.array([0.0, most], dtype))
        assert apart.AverageDifficulty == dtype(most / 2)
        assert apart.DifficultyVariance == np.inf

    def test_does_not_change(self) -> None:
        difficulties = np.array([1.0, 2.0])
        batch = TaskBatch(tasks(2), taskDifficulties=difficulties, taskSimilarities=np.eye(2))
        difficulties[0] = 9.0
        assert batch.TaskDifficulties is not None
        assert batch.TaskDifficulties.tolist() == [1.0, 2.0]
        for copied in (batch, copy.deepcopy(batch)):
            with pytest.raises(ValueError, match="read-only"):
                copied.TaskDifficulties[0] = 3.0
            with pytest.raises(ValueError, match="read-only"):
                copied.TaskSimilarities[0, 1] = 3.0  # type: ignore[index]
        with pytest.raises(AttributeError):
            batch.Tasks = ()  # type: ignore[misc]


class TestStatistics:
    @given(st.lists(st.floats(0, 1e6), min_size=1, max_size=9))
    def test_of_difficulties(self, values: list[float]) -> None:
        batch = TaskBatch(tasks(len(values)), taskDifficulties=values)
        assert batch.AverageDifficulty == pytest.approx(statistics.fmean(values), rel=1e-12)
        # The deviations are exact to an ulp of the largest value, hence the absolute bound.
        bound = (max(values) * 1e-15) ** 2
        assert batch.DifficultyVariance == pytest.approx(statistics.pvariance(values), rel=1e-9, abs=bound)

    @given(st.integers(2, 6), st.integers(0, 2**32 - 1))
    def test_similarity_is_the_mean_over_pairs(self, n: int, seed: int) -> None:
        matrix = np.random.default_rng(seed).normal(size=(n, n))
        pairs = [matrix[i, j] for i, j in itertools.combinations(range(n), 2)]
        average = TaskBatch(tasks(n), taskSimilarities=matrix).AverageTaskSimilarity
        assert average == pytest.approx(statistics.fmean(pairs), rel=1e-9, abs=1e-12)

    def test_a_single_task_has_no_pairs(self) -> None:
        assert TaskBatch(tasks(1), taskSimilarities=[[1.0]]).AverageTaskSimilarity == 0

    def test_numbers_keep_their_type(self) -> None:
        batch = TaskBatch(tasks(2), taskDifficulties=np.float32([1, 2]), taskSimilarities=[[1, 0], [0, 1]])
        assert isinstance(batch.AverageDifficulty, np.float32)
        assert isinstance(batch.DifficultyVariance, np.float32)
        assert isinstance(batch.AverageTaskSimilarity, np.float64)

    def test_memory_is_that_of_the_arrays(self, backend: Backend) -> None:
        x, y = backend.asarray(np.ones((4, 250), np.float32)), backend.asarray(np.zeros(4, np.int64))
        whole = MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y)
        half = MetaLearningTask(SupportSetX=x, SupportSetY=y)
        assert TaskBatch([whole, whole]).EstimatedMemoryMB == 4 * (4 * 250 * 4 + 4 * 8) / 1e6
        assert TaskBatch([whole, half]).EstimatedMemoryMB == 3 * (4 * 250 * 4 + 4 * 8) / 1e6

    def test_memory_of_other_data_is_estimated_too(self) -> None:
        assert TaskBatch([task(SupportSetX=["a", "b"], SupportSetY=[0, 1])]).EstimatedMemoryMB > 0


class TestRefusals:
    def test_nothing_to_work_on(self) -> None:
        with pytest.raises(ArgumentNullException, match="tasks must be a sequence of tasks, got None"):
            TaskBatch(None)  # type: ignore[arg-type]
        with pytest.raises(ArgumentException, match="tasks must hold at least one task, got none"):
            TaskBatch([])

    def test_what_is_not_a_task(self) -> None:
        with pytest.raises(ArgumentException, match="tasks must be a sequence of tasks, got 3"):
            TaskBatch(3)  # type: ignore[arg-type]
        with pytest.raises(ArgumentNullException, match=r"tasks\[1\] must be an IMetaLearningTask, got None"):
            TaskBatch([task(), None])  # type: ignore[list-item]
        with pytest.raises(ArgumentException, match=r"tasks\[0\] must be an IMetaLearningTask, got a ndarray"):
            TaskBatch([X])  # type: ignore[list-item]

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("NumWays", "NumWays 2, NumShots 1 and NumQueryPerClass 15"),
            ("NumShots", "NumWays 5, NumShots 2 and NumQueryPerClass 15"),
            ("NumQueryPerClass", "NumWays 5, NumShots 1 and NumQueryPerClass 2"),
        ],
    )
    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_the_odd_one_is_named_wherever_it_stands(self, name: str, shown: str, place: int) -> None:
        mixed = tasks(2)
        mixed.insert(place, task(**{name: 2}, Name="stranger", TaskId="id-7"))
        message = (
            rf"tasks\[{place}\] \(Name 'stranger', TaskId 'id-7'\) must have NumWays 5, NumShots 1 and "
            rf"NumQueryPerClass 15 like the others of the batch, got {shown}"
        )
        with pytest.raises(ArgumentException, match=message):
            TaskBatch(mixed)

    def test_labels_that_are_none(self) -> None:
        with pytest.raises(ArgumentException, match="batchingStrategy must be a BatchingStrategy, got 'Uniform'"):
            TaskBatch(tasks(1), "Uniform")  # type: ignore[arg-type]
        with pytest.raises(ArgumentException, match="curriculumStage must be a CurriculumStage, got 'Easy'"):
            TaskBatch(tasks(1), curriculumStage="Easy")  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("difficulties", "message"),
        [
            ([1.0], r"taskDifficulties must have shape \(2,\) for 2 tasks, got \(1,\)"),
            ([[1.0, 2.0]], r"taskDifficulties must have shape .*, got \(1, 2\)"),
            ([1.0, -0.5], r"taskDifficulties\[1\] must be at least 0, got -0.5"),
            ([1.0, float("nan")], r"taskDifficulties\[1\] must be finite, got nan"),
            ([1.0, float("inf")], r"taskDifficulties\[1\] must be finite, got inf"),
            (["easy", "hard"], r"taskDifficulties must hold real numbers, got dtype <U4"),
            ([1.0, [2.0]], r"taskDifficulties must be an array of shape \(2,\), got \[1.0, \[2.0\]\]"),
        ],
    )
    def test_difficulties_that_do_not_fit(self, difficulties: Any, message: str) -> None:
        with pytest.raises(ArgumentException, match=message):
            TaskBatch(tasks(2), taskDifficulties=difficulties)

    @pytest.mark.parametrize("shape", [(2,), (2, 3), (3, 3), (2, 2, 1)])
    def test_similarities_that_do_not_fit(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ArgumentException, match=r"taskSimilarities must have shape \(2, 2\) for 2 tasks, got"):
            TaskBatch(tasks(2), taskSimilarities=np.ones(shape))

    def test_similarities_that_are_not_numbers(self) -> None:
        with pytest.raises(ArgumentException, match=r"taskSimilarities\[0, 1\] must be finite, got nan"):
            TaskBatch(tasks(2), taskSimilarities=[[1.0, np.nan], [0.0, 1.0]])


class TestParts:
    def test_a_range_keeps_what_belongs_to_its_tasks(self) -> None:
        batch = full_batch(5)
        part = batch.GetRange(1, 3)
        assert part.Tasks == batch.Tasks[1:4]
        assert part.TaskDifficulties is not None
        assert part.TaskSimilarities is not None
        assert part.TaskDifficulties.tolist() == [0.5, 1.0, 1.5]
        assert part.TaskSimilarities.tolist() == [[6, 7, 8], [11, 12, 13], [16, 17, 18]]
        assert part.TaskSimilarities.dtype == np.float32
        assert part.BatchingStrategy is BatchingStrategy.DifficultyBased
        assert part.CurriculumStage is CurriculumStage.Medium

    def test_a_range_of_a_bare_batch_is_bare(self) -> None:
        part = TaskBatch(tasks(3)).GetRange(0, 2)
        assert part.TaskDifficulties is part.TaskSimilarities is None

    @pytest.mark.parametrize(("start", "count"), [(-1, 2), (0, 0), (0, -1), (0, 4), (2, 2), (3, 1)])
    def test_bad_ranges(self, start: int, count: int) -> None:
        with pytest.raises(
            ArgumentOutOfRangeException, match=f"within the 3 of the batch, got startIndex {start} and count {count}"
        ):
            full_batch(3).GetRange(start, count)

    @given(st.integers(1, 20), st.data())
    def test_split_keeps_order_and_evens_sizes(self, size: int, data: st.DataObject) -> None:
        n = data.draw(st.integers(1, size))
        batch = full_batch(size)
        parts = batch.Split(n)
        assert len(parts) == n
        assert [t for part in parts for t in part] == list(batch)
        sizes = [part.BatchSize for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert [d for part in parts for d in part.TaskDifficulties] == batch.TaskDifficulties.tolist()  # type: ignore

    @pytest.mark.parametrize("n", [0, -1, 4])
    def test_bad_splits(self, n: int) -> None:
        with pytest.raises(
            ArgumentOutOfRangeException, match=f"numSubBatches must be from 1 to the batch size, 3, got {n}"
        ):
            full_batch(3).Split(n)

    def test_small_integers_of_numpy_do_not_wrap_around(self) -> None:
        # 100 + 100 is −56 in int8, within any batch, and a range from 100 to −56 was an error of an empty batch.
        batch = TaskBatch(tasks(1) * 130)
        hundred: Any = np.int8(100)
        with pytest.raises(ArgumentOutOfRangeException, match="within the 130 of the batch, got startIndex 100 and"):
            batch.GetRange(hundred, hundred)
        assert [part.BatchSize for part in batch.Split(np.int8(3))] == [44, 43, 43]  # type: ignore[arg-type]


def test_the_enums_have_the_members_of_the_contract() -> None:
    assert [m.name for m in BatchingStrategy] == [
        "Uniform",
        "DifficultyBased",
        "SimilarityBased",
        "CurriculumAware",
        "Adaptive",
        "MultiResolution",
        "DomainBalanced",
        "HardNegativeMining",
    ]
    assert [m.name for m in CurriculumStage] == ["Easy", "Medium", "Hard", "Mixed", "General"]
    assert MetaLearningAlgorithmType.iMAML.name == "iMAML"
    assert all(kind[m.value] is m for kind in (BatchingStrategy, CurriculumStage) for m in kind)


def test_sources_of_tasks_are_known_by_what_they_offer() -> None:
    class Loader:
        NWay = KShot = QueryShots = AvailableClasses = 5

        def GetNextTask(self) -> MetaLearningTask:
            return task()

        def GetTaskBatch(self, n: int) -> TaskBatch:
            return TaskBatch(tasks(n))

        def SetSeed(self, seed: int) -> None: ...

    class Sampler:
        NumWays = NumShots = NumQueryPerClass = 5

        def SampleBatch(self, batchSize: int) -> TaskBatch:
            return TaskBatch(tasks(batchSize))

        def SampleOne(self) -> Any:
            return Episode()

        def UpdateWithFeedback(self, episodes: Any, losses: Any) -> None: ...

        def SetSeed(self, seed: int) -> None: ...

        def GetState(self) -> dict[str, Any]:
            return {}

        def SetState(self, state: Any) -> None: ...

    class Episode:
        Task, EpisodeId, Domain, Difficulty, LastLoss, SampleCount = task(), 1, "lines", 0.5, None, 0

    class Dataset:
        Name, TotalClasses, TotalExamples, ClassExampleCounts = "lines", 1, 9, {0: 9}

        def SampleEpisode(self, numWays: int, numShots: int, numQueryPerClass: int) -> Any:
            return Episode()

        def SampleEpisodes(self, count: int, numWays: int, numShots: int, numQueryPerClass: int) -> Any:
            return [Episode()] * count

        def SetSeed(self, seed: int) -> None: ...

        def SupportsConfiguration(self, numWays: int, numShots: int, numQueryPerClass: int) -> bool:
            return numWays == 1

    protocols = (IEpisodicDataLoader, ITaskSampler, IResumable, IEpisode, IMetaDataset)
    assert [isinstance(Loader(), p) for p in protocols] == [True, False, False, False, False]
    assert [isinstance(Sampler(), p) for p in protocols] == [False, True, True, False, False]
    assert [isinstance(Episode(), p) for p in protocols] == [False, False, False, True, False]
    assert [isinstance(Dataset(), p) for p in protocols] == [False, False, False, False, True]
