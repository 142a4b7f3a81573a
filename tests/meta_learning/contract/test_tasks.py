"""Tasks: what they hold, what they refuse, and that anything with the right properties is one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from aidotnet_py.backends import Backend
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, ArgumentOutOfRangeException
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, MetaLearningTask, MetaLearningTaskBase

X = np.arange(12.0).reshape(6, 2)
Y = np.arange(6)


def make(**changes: Any) -> MetaLearningTask:
    return MetaLearningTask(**{"SupportSetX": X, "SupportSetY": Y, "QuerySetX": X[:4], "QuerySetY": Y[:4], **changes})


class TestMetaLearningTask:
    def test_holds_the_very_arrays_under_both_names(self) -> None:
        query_x, query_y = X[:3], Y[:3]
        task = make(QuerySetX=query_x, QuerySetY=query_y)
        assert task.SupportInput is X
        assert task.SupportSetX is X
        assert task.SupportOutput is Y
        assert task.SupportSetY is Y
        assert task.QueryInput is query_x
        assert task.QuerySetX is query_x
        assert task.QueryOutput is query_y
        assert task.QuerySetY is query_y

    def test_defaults_are_those_of_the_contract(self) -> None:
        task = MetaLearningTask(SupportSetX=X, SupportSetY=Y)
        assert (task.NumWays, task.NumShots, task.NumQueryPerClass) == (5, 1, 15)
        assert task.QueryInput is task.QueryOutput is task.QuerySetX is task.QuerySetY is task.Name is None
        assert dict(task.Metadata) == {}

    def test_every_task_has_an_id_of_its_own_and_seeded_generators_stay_put(self) -> None:
        np.random.seed(3)  # noqa: NPY002 -- the global generator is what must not move
        random.seed(3)
        before = (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
        ids = {make().TaskId for _ in range(50)}
        assert len(ids) == 50
        assert before == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
        assert make(TaskId="mine").TaskId == "mine"
        assert make(TaskId=0).TaskId == 0

    def test_metadata_is_copied_and_can_be_noted(self) -> None:
        given = {"amplitude": 2.0, "nothing": None}
        task = make(Metadata=given)
        task.SetMetadata("phase", 0.5)
        task.SetMetadata("amplitude", 3.0)
        assert given == {"amplitude": 2.0, "nothing": None}
        assert task.TryGetMetadata("phase") == (True, 0.5)
        assert task.TryGetMetadata("amplitude") == (True, 3.0)
        assert task.TryGetMetadata("nothing") == (True, None)
        assert task.TryGetMetadata("elsewhere") == (False, None)
        assert task.Metadata == {"amplitude": 3.0, "nothing": None, "phase": 0.5}

    def test_meets_the_protocol_as_does_anything_with_its_properties(self) -> None:
        class Foreign:
            SupportInput = SupportSetX = QueryInput = QuerySetX = X
            SupportOutput = SupportSetY = QueryOutput = QuerySetY = Y
            Name = None
            Metadata: dict[str, Any] = {}  # noqa: RUF012 -- a stand-in, never written to
            NumWays = NumShots = NumQueryPerClass = 1
            TaskId = 7

        assert isinstance(make(), IMetaLearningTask)
        assert isinstance(Foreign(), IMetaLearningTask)
        assert not isinstance(X, IMetaLearningTask)

    def test_takes_arrays_of_any_backend(self, backend: Backend) -> None:
        x, y = backend.asarray(X), backend.asarray(Y)
        assert MetaLearningTask(SupportSetX=x, SupportSetY=y).SupportInput is x
        with pytest.raises(
            ArgumentException, match=r"must have first axes of one length, .*, got shapes \(6, 2\) and \(4,\)"
        ):
            MetaLearningTask(SupportSetX=x, SupportSetY=backend.asarray(Y[:4]))

    def test_takes_any_sequence_of_examples(self) -> None:
        task = MetaLearningTask(SupportSetX=["a cat", "a dog"], SupportSetY=[0, 1], Name="words")
        assert repr(task) == "<MetaLearningTask 'words': 5-way 1-shot, support (2, …) → (2, …)>"

    def test_shows_its_shapes(self) -> None:
        assert repr(make(TaskId=9)) == (
            "<MetaLearningTask 9: 5-way 1-shot, support (6, 2) → (6,), query (4, 2) → (4,)>"
        )

    def test_its_members_cannot_be_replaced(self) -> None:
        with pytest.raises(AttributeError):
            make().SupportInput = Y  # type: ignore[misc]
        with pytest.raises(AttributeError):
            make().NumWays = 3  # type: ignore[misc]


class TestValidate:
    @pytest.mark.parametrize("name", ["SupportSetX", "SupportSetY"])
    def test_support_data_are_required(self, name: str) -> None:
        with pytest.raises(ArgumentNullException, match=rf"{name} must be an array, got None"):
            make(**{name: None})

    @pytest.mark.parametrize("name", ["QuerySetX", "QuerySetY"])
    def test_half_a_query_set_is_refused(self, name: str) -> None:
        with pytest.raises(ArgumentNullException, match=rf"{name} must be an array, got None"):
            make(**{name: None})

    @pytest.mark.parametrize("kind", ["Support", "Query"])
    def test_lengths_must_agree(self, kind: str) -> None:
        message = rf"{kind}SetX and {kind}SetY must have first axes of one length, .*, got shapes \(6, 2\) and \(5, 3\)"
        with pytest.raises(ArgumentException, match=message):
            make(**{f"{kind}SetX": X, f"{kind}SetY": np.ones((5, 3))})

    @pytest.mark.parametrize("kind", ["Support", "Query"])
    def test_empty_sets_are_refused(self, kind: str) -> None:
        with pytest.raises(ArgumentException, match=rf"{kind}SetX must hold at least one example, got shape \(0, 2\)"):
            make(**{f"{kind}SetX": X[:0], f"{kind}SetY": Y[:0]})

    @pytest.mark.parametrize("data", [np.float64(3.0), np.array(3.0), 3.0])
    def test_data_without_examples_are_refused(self, data: object) -> None:
        with pytest.raises(
            ArgumentException, match=r"SupportSetY must be an array whose first axis counts the examples, got "
        ):
            make(SupportSetY=data)

    @pytest.mark.parametrize("name", ["NumWays", "NumShots", "NumQueryPerClass"])
    def test_counts_must_be_positive_whole_numbers(self, name: str) -> None:
        for count in (0, -2):
            with pytest.raises(ArgumentOutOfRangeException, match=f"{name} must be at least 1, got {count}"):
                make(**{name: count})
        with pytest.raises(ArgumentException, match=f"{name} must be a whole number, got 2.0"):
            make(**{name: 2.0})
        assert type(getattr(make(**{name: np.int64(3)}), name)) is int


class TestMetaLearningTaskBase:
    def test_is_abstract(self) -> None:
        with pytest.raises(TypeError, match="abstract"):
            MetaLearningTaskBase()  # type: ignore[abstract]

    def test_a_subclass_says_where_the_data_come_from(self) -> None:
        class Sine(MetaLearningTaskBase):
            @property
            def SupportInput(self) -> Any:
                return X

            @property
            def SupportOutput(self) -> Any:
                return np.sin(X) if self.Name == "sine" else np.sin(X[1:])

            @property
            def QueryInput(self) -> Any:
                return None

            QueryOutput = QueryInput

        task = Sine(NumWays=1, NumShots=6, Name="sine")
        task.Validate()
        assert isinstance(task, IMetaLearningTask)
        np.testing.assert_array_equal(task.SupportSetY, np.sin(X))
        with pytest.raises(ArgumentException, match=r"got shapes \(6, 2\) and \(5, 2\)"):
            Sine().Validate()
