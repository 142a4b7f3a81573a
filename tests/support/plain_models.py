"""Models that the engine cannot trace: one that offers losses alone, and one that knows its gradients too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import numpy as np
from tanh_network import TanhNetwork, Values

from aidotnet_py import ArgumentException, CrossEntropyLoss, ILossFunction, MeanSquaredErrorLoss, ModelMetadata
from aidotnet_py.backends import Backend


class BareModel:
    """An IFullModel and no more, over a `TanhNetwork` in NumPy."""

    def __init__(self, network: TanhNetwork, phi: Values, backend: Backend, dtype: Any = np.float64) -> None:
        self.network, self.backend_used, self.dtype = network, backend, dtype
        self._phi = np.array(phi, dtype)

    @property
    def ParameterCount(self) -> int:
        return len(self._phi)

    @property
    def DefaultLossFunction(self) -> ILossFunction[Any]:
        return CrossEntropyLoss() if self.network.classify else MeanSquaredErrorLoss()

    def GetParameters(self) -> Any:
        return self.backend_used.asarray(self._phi)

    def SetParameters(self, parameters: Any) -> None:
        if tuple(parameters.shape) != self._phi.shape:
            raise ArgumentException(f"parameters has shape {tuple(parameters.shape)}; {self._phi.shape} is wanted")
        self._phi = np.array(self.backend_used.to_numpy(parameters), self.dtype)

    def WithParameters(self, parameters: Any) -> Self:
        other = self.Clone()
        other.SetParameters(parameters)
        return other

    def Clone(self) -> Self:
        return type(self)(self.network, self._phi, self.backend_used, self.dtype)

    def Predict(self, input: Any) -> Any:
        x = self.backend_used.to_numpy(input)
        return self.backend_used.asarray(self.network.predictions(self._phi, x).astype(self.dtype))

    def Train(self, input: Any, expectedOutput: Any) -> None:
        raise AssertionError("no learner calls Train")

    def GetModelMetadata(self) -> ModelMetadata[Any]:
        return ModelMetadata(Name="bare")

    def Serialize(self) -> bytes:
        return self._phi.tobytes()

    def Deserialize(self, data: bytes) -> None:
        self._phi = np.frombuffer(data, self.dtype).copy()

    def SaveModel(self, filePath: str | os.PathLike[str]) -> None:
        Path(filePath).write_bytes(self.Serialize())

    def LoadModel(self, filePath: str | os.PathLike[str]) -> None:
        self.Deserialize(Path(filePath).read_bytes())


class HandWrittenModel(BareModel):
    """With gradients by hand; like many a hand-written model, it hands out one array again and again."""

    _buffer: Any = None

    def Clone(self) -> Self:
        other = super().Clone()
        other._buffer = self._gradient_buffer()
        return other

    def _gradient_buffer(self) -> Any:
        if self._buffer is None:
            self._buffer = self.backend_used.empty((len(self._phi),), self.dtype)
        return self._buffer

    def ComputeGradients(self, input: Any, target: Any, lossFunction: ILossFunction[Any] | None = None) -> Any:
        x, y = (self.backend_used.to_numpy(value) for value in (input, target))
        gradient = self.network.gradient(self._phi, x, y).astype(self.dtype)
        self.backend_used.copyto(self._gradient_buffer(), self.backend_used.asarray(gradient))
        return self._gradient_buffer()
