"""Sine waves of random amplitude and phase: the regression tasks of the MAML paper."""

from __future__ import annotations

from typing import Any, overload

import numpy as np

from aidotnet_py.backends import Backend
from aidotnet_py.data.episodic import DrawnTasks, EpisodicLoader
from aidotnet_py.type_parameters import T

__all__ = ["SinusoidLoader"]


class SinusoidLoader(EpisodicLoader[T]):
    """Regression on y = A sin(x − φ), with A ~ U[0.1, 5), φ ~ U[0, π) and x ~ U[−5, 5).

    The ranges are those of the paper. It does not print the formula; the sign of φ is that of its authors' code.
    Inputs and targets are (K, 1) for the support set, (Q, 1) for the query set, without noise. The targets are
    computed in float64 at the inputs as stored, then rounded once. ``Metadata`` holds ``"Amplitude"`` and ``"Phase"``.

    A task is one function, so NWay and AvailableClasses are 1.

    Parameters
    ----------
    KShot, QueryShots : int
        Points of the support and of the query set.
    seed, dtype, backend
        As for all loaders: start of the random stream, NumPy floating type, home of the arrays.

    Raises
    ------
    ArgumentOutOfRangeException
        A size below 1 or a negative seed.
    ArgumentException
        A size or seed that is no integer, a dtype that is not floating, an unknown backend.

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
        """1: a task has no classes to choose among."""
        return 1

    def _drawn(self, generator: np.random.Generator, count: int) -> DrawnTasks:
        k, points = self.KShot, self.KShot + self.QueryShots
        # Of each task amplitude, phase and points: drawn in one call, they are what a call for each would give.
        low, high = (np.array([*ends, *[end] * points]) for ends, end in (((0.1, 0.0), -5.0), ((5.0, np.pi), 5.0)))
        numbers = generator.uniform(low, high, (count, 2 + points))
        amplitudes, phases = numbers[:, :1], numbers[:, 1:2]
        x = numbers[:, 2:].astype(self._dtype)
        angles = x.astype(np.float64) - phases
        waves = np.empty_like(angles)
        for angle, wave in zip(angles, waves, strict=True):
            # Task by task: how many are drawn at once must not matter to the last bit, and a library that computes
            # several sines at a time may do those left over in another way.
            np.sin(angle, out=wave)
        y = (amplitudes * waves).astype(self._dtype)
        x, y = x[..., np.newaxis], y[..., np.newaxis]
        metadata = [
            {"Amplitude": amplitude, "Phase": phase}
            for amplitude, phase in zip(amplitudes.ravel().tolist(), phases.ravel().tolist(), strict=True)
        ]
        return DrawnTasks((x[:, :k], y[:, :k], x[:, k:], y[:, k:]), "sinusoid", metadata)
