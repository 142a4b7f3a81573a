"""Strategies for Hypothesis: linear systems of known spectra, tasks, batches of tasks, and networks.

Each draws sizes and a seed, and NumPy makes the numbers from the seed: examples shrink to few tasks, unknowns, examples
and layers, and are made in microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from aidotnet_py.arguments import COUNT, Number, Whole
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.meta_learning import MetaLearningTask, TaskBatch
from aidotnet_py.nn import Dense, Layer, LayerNorm, LeakyReLU, ReLU, Residual, Sequential, Sigmoid, Tanh
from aidotnet_py.testing.systems import LinearSystem, symmetric_matrices

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError('aidotnet_py.testing.strategies needs hypothesis: pip install "aidotnet-py[testing]"') from error

__all__ = ["batches", "indefinite_systems", "networks", "nonsymmetric_systems", "spd_systems", "tasks"]

_Generator = np.random.Generator
_Values = NDArray[Any]
_Matrices = Callable[[_Generator, _Values], _Values]


def spd_systems(
    *, unknowns: int = 40, condition: float = 1e8, most_tasks: int = 3, dtype: DTypeLike = np.float64
) -> st.SearchStrategy[LinearSystem]:
    """Return a strategy for symmetric positive definite systems QᵀΛQ x = b, with random orthogonal Q.

    Parameters
    ----------
    unknowns : int
        The largest number of unknowns.
    condition : float
        The largest condition number, at least 1. Each task draws its own; its eigenvalues lie between the ends,
        evenly by logarithm. The largest eigenvalue is a power of ten from 1e-3 to 1e3.
    most_tasks : int
        The largest number of systems in a `LinearSystem`.
    dtype : dtype
        The dtype of A and b; the spectrum is known in float64.

    Returns
    -------
    SearchStrategy of LinearSystem

    Raises
    ------
    ArgumentException
        When a number is of another type or out of range.

    Examples
    --------
    >>> from hypothesis import find
    >>> from aidotnet_py.testing.strategies import spd_systems
    >>> system = find(spd_systems(), lambda s: s.n > 1)
    >>> system.A.shape, bool((system.values > 0).all())
    ((1, 2, 2), True)
    """
    return _systems(unknowns, condition, most_tasks, dtype, symmetric_matrices)


def indefinite_systems(
    *, unknowns: int = 40, condition: float = 1e4, most_tasks: int = 3, dtype: DTypeLike = np.float64
) -> st.SearchStrategy[LinearSystem]:
    """Return a strategy for symmetric systems with eigenvalues of both signs, of 2 unknowns or more.

    Parameters
    ----------
    unknowns, condition, most_tasks, dtype
        As for `spd_systems`; the condition number is that of the absolute values.

    Returns
    -------
    SearchStrategy of LinearSystem

    Raises
    ------
    ArgumentException
        As for `spd_systems`.

    Examples
    --------
    >>> from hypothesis import find
    >>> from aidotnet_py.testing.strategies import indefinite_systems
    >>> system = find(indefinite_systems(), lambda s: True)
    >>> bool((system.values.min(axis=1) < 0).all() and (system.values.max(axis=1) > 0).all())
    True
    """

    def indefinite(generator: _Generator, values: _Values) -> _Values:
        signs = generator.choice([-1.0, 1.0], values.shape)
        signs[:, 0], signs[:, -1] = 1.0, -1.0
        values *= signs
        return symmetric_matrices(generator, values)

    return _systems(unknowns, condition, most_tasks, dtype, indefinite, least=2)


def nonsymmetric_systems(
    *, unknowns: int = 15, condition: float = 1e6, most_tasks: int = 3, dtype: DTypeLike = np.float64
) -> st.SearchStrategy[LinearSystem]:
    """Return a strategy for systems UΣVᵀx = b with random orthogonal U and V.

    Parameters
    ----------
    unknowns, condition, most_tasks, dtype
        As for `spd_systems`, with singular values in the place of eigenvalues.

    Returns
    -------
    SearchStrategy of LinearSystem

    Raises
    ------
    ArgumentException
        As for `spd_systems`.

    Examples
    --------
    >>> from hypothesis import find
    >>> from aidotnet_py.testing.strategies import nonsymmetric_systems
    >>> find(nonsymmetric_systems(), lambda s: s.n > 1 and s.tasks > 1).A.shape
    (2, 2, 2)
    """

    def nonsymmetric(generator: _Generator, values: _Values) -> _Values:
        tasks, n = values.shape
        u, v = (np.linalg.qr(generator.standard_normal((tasks, n, n)))[0] for _ in range(2))
        return np.asarray((u * values[:, None, :]) @ v)

    return _systems(unknowns, condition, most_tasks, dtype, nonsymmetric)


def _systems(
    unknowns: int, condition: float, most_tasks: int, dtype: DTypeLike, matrices: _Matrices, *, least: int = 1
) -> st.SearchStrategy[LinearSystem]:
    Whole(least=least).check("unknowns", unknowns)
    COUNT.check("most_tasks", most_tasks)
    decades = float(np.log10(Number(least=1.0).check("condition", condition)))

    @st.composite
    def drawn(draw: st.DrawFn) -> LinearSystem:
        generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        tasks, n = draw(st.integers(1, most_tasks)), draw(st.integers(least, unknowns))
        exponents = np.array([draw(st.floats(0, decades)) for _ in range(tasks)])
        spread = generator.uniform(size=(tasks, n))
        # The ends belong to the spectrum, so that its condition number is the one that was drawn.
        spread[:, 0], spread[:, -1] = 0.0, 1.0
        values = 10.0 ** draw(st.integers(-3, 3)) * 10.0 ** (exponents[:, None] * (spread - 1))
        A = matrices(generator, values).astype(dtype)
        return LinearSystem(A, generator.standard_normal((tasks, n)).astype(dtype), values)

    return drawn()


def tasks(
    *,
    inputs: int = 2,
    outputs: int = 1,
    classes: int | None = None,
    most_examples: int = 8,
    dtype: DTypeLike = np.float64,
    backend: Backend | str = "numpy",
) -> st.SearchStrategy[MetaLearningTask[Any, Any, Any]]:
    """Return a strategy for tasks, each with its own rule: y = tanh(xW + b) + noise, or the class of largest xW + b.

    Parameters
    ----------
    inputs, outputs : int
        Numbers of a row of inputs and of targets.
    classes : int or None
        Targets are labels 0 … classes − 1, int64; support and query sets have each label at least once. None for
        regression.
    most_examples : int
        The largest number of examples in a support or query set; at least ``classes``.
    dtype : dtype
        The dtype of inputs, and of the targets of regression.
    backend : Backend or str
        The backend of the arrays.

    Returns
    -------
    SearchStrategy of MetaLearningTask
        Support and query inputs have shape (n, inputs); targets have shape (n, outputs), labels (n,).

    Raises
    ------
    ArgumentException
        When a number is of another type or out of range.

    Examples
    --------
    >>> from hypothesis import find
    >>> from aidotnet_py.testing.strategies import tasks
    >>> find(tasks(classes=3), lambda task: True).SupportInput.shape
    (3, 2)
    """
    _check_task_sizes(inputs, outputs, classes, most_examples)

    @st.composite
    def drawn(draw: st.DrawFn) -> MetaLearningTask[Any, Any, Any]:
        sizes = st.integers(classes or 1, most_examples)
        support, query = draw(sizes), draw(sizes)
        seed = draw(st.integers(0, 2**32 - 1))
        return _task(seed, (support, query), inputs, outputs, classes, np.dtype(dtype), get_backend(backend))

    return drawn()


def batches(
    *,
    inputs: int = 2,
    outputs: int = 1,
    classes: int | None = None,
    most_examples: int = 8,
    most_tasks: int = 4,
    alike: bool = False,
    dtype: DTypeLike = np.float64,
    backend: Backend | str = "numpy",
) -> st.SearchStrategy[TaskBatch[Any, Any, Any]]:
    """Return a strategy for batches of `tasks`.

    Parameters
    ----------
    inputs, outputs, classes, most_examples, dtype, backend
        As for `tasks`.
    most_tasks : int
        The largest number of tasks in a batch.
    alike : bool
        Whether the tasks of a batch have equal numbers of examples; if not, each task draws its own.

    Returns
    -------
    SearchStrategy of TaskBatch

    Raises
    ------
    ArgumentException
        As for `tasks`.

    Examples
    --------
    >>> from hypothesis import find
    >>> from aidotnet_py.testing.strategies import batches
    >>> batch = find(batches(), lambda batch: len(batch) == 3)
    >>> [task.SupportInput.shape for task in batch.Tasks]
    [(1, 2), (1, 2), (1, 2)]
    """
    _check_task_sizes(inputs, outputs, classes, most_examples)
    COUNT.check("most_tasks", most_tasks)

    @st.composite
    def drawn(draw: st.DrawFn) -> TaskBatch[Any, Any, Any]:
        count, seed = draw(st.integers(1, most_tasks)), draw(st.integers(0, 2**32 - 1))
        size = st.integers(classes or 1, most_examples)
        pairs = [(draw(size), draw(size)) for _ in range(1 if alike else count)] * (count if alike else 1)
        kind = (inputs, outputs, classes, np.dtype(dtype), get_backend(backend))
        return TaskBatch([_task(seed + place, sizes, *kind) for place, sizes in enumerate(pairs)])

    return drawn()


def _check_task_sizes(inputs: int, outputs: int, classes: int | None, most_examples: int) -> None:
    COUNT.check("inputs", inputs)
    COUNT.check("outputs", outputs)
    if classes is not None:
        Whole(least=2).check("classes", classes)
    Whole(least=classes or 1).check("most_examples", most_examples)


def _task(
    seed: int,
    sizes: tuple[int, int],
    inputs: int,
    outputs: int,
    classes: int | None,
    dtype: np.dtype[Any],
    backend: Backend,
) -> MetaLearningTask[Any, Any, Any]:
    generator = np.random.default_rng(seed)
    weights, shift = generator.standard_normal((inputs, classes or outputs)), generator.standard_normal()

    def examples(count: int) -> tuple[Any, Any]:
        x = generator.uniform(-2.0, 2.0, (count, inputs))
        y = x @ weights + shift
        if classes is None:
            noisy = np.tanh(y) + 0.1 * generator.standard_normal(y.shape)
            return backend.asarray(x, dtype), backend.asarray(noisy, dtype)
        labels = y.argmax(axis=1)
        labels[:classes] = np.arange(classes)
        return backend.asarray(x, dtype), backend.asarray(labels)

    (x, y), (query_x, query_y) = map(examples, sizes)
    return MetaLearningTask(
        SupportSetX=x,
        SupportSetY=y,
        QuerySetX=query_x,
        QuerySetY=query_y,
        NumWays=classes or 1,
        TaskId=f"task {seed}",
    )


def networks(outputs: int = 1, *, most_layers: int = 3, smooth: bool = False) -> st.SearchStrategy[Layer]:
    """Return a strategy for networks of rows: dense layers with activations, layer norms and shortcuts between them.

    No layer mixes examples or takes noise: a row of outputs depends on its row of inputs alone.

    Parameters
    ----------
    outputs : int
        The length of a row of outputs.
    most_layers : int
        The largest number of blocks before the last dense layer, of 2 to 5 units each.
    smooth : bool
        Whether to leave out `ReLU` and `LeakyReLU`, whose kinks central differences may straddle.

    Returns
    -------
    SearchStrategy of Layer

    Raises
    ------
    ArgumentException
        When a number is of another type or out of range.

    Examples
    --------
    >>> from hypothesis import find
    >>> from aidotnet_py.testing.strategies import networks
    >>> find(networks(), lambda network: len(network.layers) > 1)
    Sequential(Dense(2), Tanh(), Dense(1))
    """
    COUNT.check("outputs", outputs)
    Whole(least=0).check("most_layers", most_layers)
    activations: list[Layer] = [Tanh(), Sigmoid(), *([] if smooth else [ReLU(), LeakyReLU(0.1)])]

    @st.composite
    def drawn(draw: st.DrawFn) -> Layer:
        layers: list[Layer] = []
        for _ in range(draw(st.integers(0, most_layers))):
            units, activation = draw(st.integers(2, 5)), draw(st.sampled_from(activations))
            layers += [Dense(units), activation]
            if draw(st.booleans()):
                layers.append(LayerNorm())
            if draw(st.booleans()):
                layers.append(Residual(Sequential(Dense(units), activation)))
        return Sequential(*layers, Dense(outputs))

    return drawn()
