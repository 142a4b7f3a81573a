"""Sine waves of random amplitude and phase: the regression tasks of the MAML paper."""

from __future__ import annotations

from typing import Any, overload

import numpy as np

from aidotnet_py.backends import Backend
from aidotnet_py.data.drawn_tasks import DrawnTasks
from aidotnet_py.data.episodic import EpisodicLoader
from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.type_parameters import T

__all__ = ["SinusoidLoader"]


class SinusoidLoader(EpisodicLoader[T]):
    """Regression on y = A sin(x − φ), with A ~ U[0.1, 5), φ ~ U[0, π) and x ~ U[−5, 5).

    The paper gives the ranges, not the formula; the sign of φ follows the authors' code. Inputs and targets are (K, 1)
    in the support set and (Q, 1) in the query set, without noise. Targets are computed in float64 at the stored inputs,
    then rounded once. ``Metadata`` holds ``"Amplitude"`` and ``"Phase"``.

    A task is one function, so NWay and AvailableClasses are 1.

    Parameters
    ----------
    KShot, QueryShots : int
        Points of the support and of the query set.
    seed, dtype, backend
        As for all loaders: seed of the random stream, NumPy floating type, backend of the arrays.

    Raises
    ------
    ArgumentOutOfRangeException
        A size is below 1, or the seed is negative.
    ArgumentException
        A size or the seed is no integer, the dtype is not floating, or the backend is unknown.

    References
    ----------
    Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, section 5.1.

    Examples
    --------
    >>> from aidotnet_py.data import SinusoidLoader
    >>> task = SinusoidLoader(KShot=5, QueryShots=10, seed=1).GetNextTask()
    >>> task.SupportInput.shape, task.QueryOutput.shape, task.SupportInput.dtype.name
    ((5, 1), (10, 1), 'float32')
    >>> sorted(task.Metadata)
    ['Amplitude', 'Phase']
    """

    @overload
    def __init__(
        self: SinusoidLoader[np.float32],
        KShot: int = 10,
        QueryShots: int = 10,
        *,
        seed: int | None = None,
        backend: str | Backend = "numpy",
    ) -> None: ...
    @overload
    def __init__(
        self,
        KShot: int = 10,
        QueryShots: int = 10,
        *,
        seed: int | None = None,
        dtype: type[T],
        backend: str | Backend = "numpy",
    ) -> None: ...
    @suggests_keywords()
    def __init__(
        self,
        KShot: int = 10,
        QueryShots: int = 10,
        *,
        seed: int | None = None,
        dtype: type[Any] = np.float32,
        backend: str | Backend = "numpy",
    ) -> None:
        super().__init__(1, KShot, QueryShots, seed=seed, dtype=dtype, backend=backend)

    @property
    def AvailableClasses(self) -> int:
        """1, since a task has no classes."""
        return 1

    def _draw(self, stream: RandomStream, count: int) -> DrawnTasks:
        k, points = self.KShot, self.KShot + self.QueryShots
        # Amplitude, phase and points of each task; one call draws the same numbers as a call for each task.
        low, high = (np.array([*ends, *[end] * points]) for ends, end in (((0.1, 0.0), -5.0), ((5.0, np.pi), 5.0)))
        numbers = stream.generator.uniform(low, high, (count, 2 + points))
        amplitudes, phases = numbers[:, :1], numbers[:, 1:2]
        x = numbers[:, 2:].astype(self._dtype)
        angles = x.astype(np.float64) - phases
        waves = np.empty_like(angles)
        for angle, wave in zip(angles, waves, strict=True):
            # Task by task: a vectorised sine may compute the last few elements of an array in another way, and the bits
            # of a task must not depend on the number of tasks in a draw.
            np.sin(angle, out=wave)
        y = (amplitudes * waves).astype(self._dtype)
        x, y = x[..., np.newaxis], y[..., np.newaxis]
        metadata = [
            {"Amplitude": amplitude, "Phase": phase}
            for amplitude, phase in zip(amplitudes.ravel().tolist(), phases.ravel().tolist(), strict=True)
        ]
        arrays = (x[:, :k], y[:, :k], x[:, k:], y[:, k:])
        return DrawnTasks(arrays, "sinusoid", metadata, self.NWay, k, self.QueryShots)
