"""A batch shared out to the workers of an executor; what comes back has the bits of one process.

The tasks go out in as many shares as there are workers, each with θ. A worker keeps a learner of the same options, and
calls one method of it on its share. Nothing that is computed for a task sees another task, and sums over tasks are
taken in an order that the batch alone decides (`sums`).
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import os
import pickle
import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass
from itertools import pairwise
from threading import current_thread
from typing import Any, NamedTuple

import numpy as np

from aidotnet_py.backends import Array
from aidotnet_py.caching import BoundedCache
from aidotnet_py.caller import level_outside
from aidotnet_py.exceptions import InvalidOperationException, NotSupportedException
from aidotnet_py.locks import Lock
from aidotnet_py.meta_learning.contract.options import ExecutorOrMaker
from aidotnet_py.meta_learning.contract.protocols import computes_gradients, is_differentiable
from aidotnet_py.meta_learning.learner.own_attributes import (
    own_attributes,
    require_picklable,
    require_unchanged,
    take_up,
    those_of_library,
)
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.factory import Group
from aidotnet_py.meta_learning.objective.traced import TracedObjective

__all__ = ["Workers"]

# Learners that a worker keeps for the next steps, by their definitions.
_MOST_DEFINITIONS = 4


class _Definition(NamedTuple):
    """The class of a learner and its options, without what only the learner at home uses."""

    kind: type[Any]
    options: Any

    @classmethod
    def of(cls, learner: Any, chunk: Chunk) -> _Definition:
        """Return the definition of a learner, a part of whose batch is opened; θ is left out."""
        options = learner.Options.Clone()
        for name in ("DataLoader", "ValidationLoader", "MetaOptimizer", "OuterLearningRateSchedule", "Executor"):
            setattr(options, name, None)
        options.MetaModel = chunk.model.WithParameters(chunk.backend.asarray(np.zeros_like(chunk.parameters)))
        return cls(type(learner), options)

    def digest(self) -> bytes:
        """Return a name for equal definitions."""
        try:
            whole = pickle.dumps(self)
        except InvalidOperationException:
            raise
        except Exception:
            # The part that is at fault has a better name.
            require_picklable("the learner's class", self.kind)
            options: dict[str, Any] = self.options.__dict__
            for name, value in options.items():
                require_picklable(name, value)
            raise
        return hashlib.blake2b(whole, digest_size=16).digest()

    def make(self) -> Any:
        """Return a learner of one's own."""
        return self.kind(copy.deepcopy(self.options))


@dataclass(frozen=True)
class _Share:
    """Some tasks of a batch, in its order, and all that their work depends on beside the learner's definition."""

    tasks: Sequence[Any]
    groups: Sequence[Group]
    roles: Sequence[str]
    training: bool
    first: int
    parameters: Array
    learned: Mapping[str, Array]
    state: Mapping[str, Array]
    attributes: Mapping[str, Any]
    method: str
    arguments: Sequence[Any]

    def run(self, learner: Any) -> Any:
        """Return what the method returns for these tasks."""
        own = take_up(learner, self.attributes)
        names = frozenset[str](learner.__dict__)
        result = self._work(learner)
        require_unchanged(learner, own, names)
        return result

    def _work(self, learner: Any) -> Any:
        learner._take_up(self.parameters, self.learned, self.state)
        groups = learner._open_groups(self.tasks, self.roles, self.training, self.first, self.groups)
        with groups[0].backend.single_threaded():
            return getattr(learner, self.method)(groups, *self.arguments)


class _Kept:
    """A definition on a worker, and the learners made of it that are idle: one for each thread that has worked."""

    def __init__(self, definition: _Definition) -> None:
        self._definition = definition
        self._idle: list[Any] = []

    def run(self, share: _Share) -> Any:
        """Return what a share returns."""
        try:
            learner = self._idle.pop()
        except IndexError:
            learner = self._definition.make()
        result = share.run(learner)
        self._idle.append(learner)
        return result


class _Failure(NamedTuple):
    """The error of the work itself, not of the worker."""

    error: Exception


class _Unknown(NamedTuple):
    """The answer of a worker that does not have the definition."""


_kept: BoundedCache[bytes, _Kept] = BoundedCache(_MOST_DEFINITIONS)


def _work(digest: bytes, definition: _Definition | None, share: _Share) -> Any:
    """Return, on a worker, what a share returns."""
    kept = _kept.get(digest)
    if kept is None:
        if definition is None:
            return _Unknown()
        known = definition
        kept = _kept.get_or_make(digest, lambda: _Kept(known))
    try:
        return kept.run(share)
    except Exception as error:
        return _Failure(error)


class Workers:
    """The executor of a learner's options, and what its workers know already."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._given: ExecutorOrMaker | None = None
        self._executor: Executor | None = None
        # The shutdown of an executor that a function made, once nobody has this object any more.
        self._ending: weakref.finalize[..., Any] | None = None
        self._told = set[bytes]()
        # What a learner of the class at hand has from this package.
        self._attributes: frozenset[str] | None = None
        self._warned_of: ExecutorOrMaker | None = None

    def __reduce__(self) -> tuple[type[Workers], tuple[()]]:
        return Workers, ()

    def run(
        self, given: ExecutorOrMaker, learner: Any, groups: Sequence[Chunk], method: str, arguments: Sequence[Any]
    ) -> list[Any]:
        """Return what a method returns for each share of an opened batch, in their order.

        The shares of a worker that died are worked on here. Of several errors, that of the first tasks is raised.
        """
        _require_fit(groups[0])
        executor = self._open(given)
        definition = _Definition.of(learner, groups[0])
        digest = definition.digest()
        attributes = own_attributes(learner, self._names(definition))
        shares = _shares(groups, learner, _workers_of(executor), attributes, method, arguments)
        futures: list[Future[Any] | None] = []
        try:
            told = digest in self._told
            futures += [self._submit(executor, digest, None if told else definition, share) for share in shares]
            _require_another_thread(executor)
            results: list[Any] = []
            for share, future in zip(shares, futures, strict=True):
                result = self._result(future, share)
                if isinstance(result, _Unknown):
                    result = self._result(self._submit(executor, digest, definition, share), share)
                results.append(_work(digest, definition, share) if result is None else result)
                if isinstance(results[-1], _Failure):
                    raise results[-1].error
        finally:
            for future in futures:
                if future is not None:
                    future.cancel()
        self._told.add(digest)
        return results

    def _names(self, definition: _Definition) -> frozenset[str]:
        if self._attributes is None:
            _require_made_of_options(definition.kind)
            self._attributes = those_of_library(*definition)
        return self._attributes

    def _open(self, given: ExecutorOrMaker) -> Executor:
        """Return the executor; one that was made by a function, and is lost, is made anew."""
        with self._lock:
            if self._given is not given or self._executor is None:
                self._let_go()
                self._given, self._told = given, set[bytes]()
                if isinstance(given, Executor):
                    self._executor = given
                else:
                    self._executor = made = given()
                    if not isinstance(made, Executor):  # pyright: ignore[reportUnnecessaryIsInstance] -- a user's
                        self._executor = None
                        raise InvalidOperationException(
                            "Executor must make a concurrent.futures.Executor, got a "
                            f"{type(made).__name__} from {given!r:.80}"
                        )
                    self._ending = weakref.finalize(self, made.shutdown, wait=False)
            return self._executor

    def _let_go(self) -> None:
        """Forget the executor; one that a function made ends with its workers, unless another thread's step has it."""
        self._executor = None
        if self._ending is not None:
            self._ending.detach()
            self._ending = None

    def _submit(
        self, executor: Executor, digest: bytes, definition: _Definition | None, share: _Share
    ) -> Future[Any] | None:
        try:
            return _require_future(executor, executor.submit(_work, digest, definition, share))
        except BrokenExecutor as error:
            self._lose(error)
            return None
        # Executors that pickle here raise what pickling raises.
        except (pickle.PicklingError, AttributeError, TypeError):
            _require_sendable(share)
            raise
        except RuntimeError as error:
            raise InvalidOperationException(
                f"Executor must be open, got one that takes no work ({error}); give a function that makes one"
            ) from error

    def _result(self, future: Future[Any] | None, share: _Share) -> Any:
        """Return the answer of a worker; None if the worker is lost."""
        if future is None:
            return None
        try:
            return future.result()
        except (BrokenExecutor, CancelledError) as error:
            self._lose(error)
        except Exception as error:
            # Dask's error for a task whose workers died one after another.
            if type(error).__name__ != "KilledWorker":
                _require_sendable(share)
                raise
            self._lose(error)
        return None

    def _lose(self, error: BaseException) -> None:
        """Have the executor made anew before the next step, if a function makes it; warn once."""
        with self._lock:
            lost, self._told = self._executor, set[bytes]()
            if not isinstance(self._given, Executor):
                self._let_go()
            told, self._warned_of = self._warned_of is self._given, self._given
        if not told:
            warnings.warn(
                f"a worker of {type(lost).__name__} was lost ({error!r:.200}); its tasks are worked on here",
                UserWarning,
                stacklevel=level_outside(),
            )


def _require_made_of_options(kind: type[Any]) -> None:
    signature = inspect.signature(kind)
    try:
        signature.bind(None)
    except TypeError as error:
        raise InvalidOperationException(
            f"{kind.__name__} must be made of its options alone, since workers make learners of them, got "
            f"__init__{signature}; give the other arguments defaults, or make them options"
        ) from error


def _require_future(executor: Executor, future: Future[Any]) -> Future[Any]:
    if not isinstance(future, Future):  # pyright: ignore[reportUnnecessaryIsInstance] -- of a user's executor
        raise InvalidOperationException(
            f"{type(executor).__name__}.submit must return a concurrent.futures.Future, got a {type(future).__name__}"
        )
    return future


def _require_another_thread(executor: Executor) -> None:
    """Raise if this thread is a worker of the executor, which it would wait for; asked once work is submitted to it.

    A pool lists a thread only some time after its start, but before it takes more work.
    """
    if current_thread() in getattr(executor, "_threads", ()):
        raise InvalidOperationException(
            "Executor must not be the pool whose worker this step runs on, which may wait for itself for ever; "
            "give it a pool of its own, or None"
        )


def _require_fit(chunk: Chunk) -> None:
    model, backend = chunk.model, chunk.backend
    if not (is_differentiable(model) or computes_gradients(model)):
        raise NotSupportedException(
            f"Executor must be None for a {type(model).__name__}, whose gradients are estimated by draws one after "
            "another; give it ComputeGradients, or the members of IDifferentiableModel"
        )
    if backend.name != "numpy":
        raise NotSupportedException(
            f"Executor must be None for a model on backend {backend.name!r}; workers compute with NumPy"
        )


def _require_sendable(share: _Share) -> None:
    """Refuse what another process cannot get; threads get everything."""
    for task in share.tasks:
        for key, value in task.Metadata.items():
            require_picklable(f"Metadata[{key!r}] of the tasks", value)
        require_picklable("a task", task)


def _workers_of(executor: Executor) -> int:
    """Return the number of workers, which has no common name among executors."""
    client: Any = getattr(executor, "_client", None)
    if client is not None:
        return max(1, int(sum(client.nthreads().values())))
    for name in ("num_workers", "_max_workers"):
        count = getattr(executor, name, None)
        if isinstance(count, int) and count > 0:
            return count
    return os.cpu_count() or 1


def _shares(
    groups: Sequence[Chunk],
    learner: Any,
    workers: int,
    attributes: Mapping[str, Any],
    method: str,
    arguments: Sequence[Any],
) -> list[_Share]:
    """Return the tasks of a batch, opened, in shares as equal as can be."""
    where = {place: (g, i) for g, group in enumerate(groups) for i, place in enumerate(group.places)}
    places = sorted(where)
    count = min(workers, len(places))
    edges = [len(places) * i // count for i in range(count + 1)]
    first = groups[0]
    roles = [role for role in first.objectives if role != "Adapted"]
    shares: list[_Share] = []
    for start, stop in pairwise(edges):
        own = places[start:stop]
        tasks = [groups[where[place][0]].tasks[where[place][1]] for place in own]
        some = [
            _group(groups[g], roles, own[0], [place for place in own if where[place][0] == g])
            for g in dict.fromkeys(where[place][0] for place in own)
        ]
        data = dict(first.learned), learner._state_for(tasks), attributes
        shares.append(_Share(tasks, some, roles, first.training, own[0], first.parameters, *data, method, arguments))
    return shares


def _group(group: Chunk, roles: Iterable[str], first: int, places: Sequence[int]) -> Group:
    """Return the part of a group that a share has: places from the share's first on, and the noise of the group."""
    noise = {
        role: [b.noise_key if isinstance(b, TracedObjective) else () for b in group.objectives[role].batches]
        for role in roles
    }
    return Group([place - first for place in places], group.sizes, noise, list(group.places).index(places[0]))
