"""The members that make a learner a model too: those of its meta-model."""

from __future__ import annotations

import copy
import os
from typing import Any, Self

from aidotnet_py.arguments import check_given
from aidotnet_py.backends import Array
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions
from aidotnet_py.meta_learning.learner.core import LearnerCore
from aidotnet_py.meta_learning.learner.turns import takes_turns
from aidotnet_py.models import ModelMetadata
from aidotnet_py.models.interfaces import IFullModel, TModel_co
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["LearnerAsModel"]


class LearnerAsModel(LearnerCore[T, TInput, TOutput, TModel_co]):
    """A learner with the members of an `IFullModel`, which the meta-model has or does; see `MetaLearnerBase`."""

    def GetOptions(self) -> MetaLearnerOptions[T, TInput, TOutput, TModel_co]:
        """Return the options, as given."""
        return self._options

    @property
    def ParameterCount(self) -> int:
        """Length of the meta-model's parameter vector."""
        return self.BaseModel.ParameterCount

    def GetParameters(self) -> Array:
        """Return a copy of the meta-model's parameters, shape (ParameterCount,)."""
        return self.BaseModel.GetParameters()

    @takes_turns
    def SetParameters(self, parameters: Array) -> None:
        """Set the meta-model's parameters; optimizers and learned vectors stay.

        Raises
        ------
        ArgumentNullException
            When the parameters are None.
        ArgumentException
            When they are not those of the meta-model.
        """
        check_given("parameters", parameters, "an array")
        with self._state:
            self.BaseModel.SetParameters(parameters)

    def WithParameters(self, parameters: Array) -> Self:
        """Return a copy of the learner, with these parameters of the meta-model; see `DeepCopy` and `SetParameters`."""
        check_given("parameters", parameters, "an array")
        other = self.DeepCopy()
        other.SetParameters(parameters)
        return other

    @takes_turns
    def DeepCopy(self) -> Self:
        """Return an independent learner: a copy of model, options, optimizer state, random state and iteration.

        Loss, optimizers, schedule, loaders and Executor of the options are shared, without the learners' memory of
        them: from a loader that is `IResumable`, both draw the same tasks. A function that makes an executor makes one
        for each.

        Examples
        --------
        >>> import numpy as np
        >>> from aidotnet_py import FunctionModel, iMAMLAlgorithm, iMAMLOptions
        >>> learner = iMAMLAlgorithm(iMAMLOptions(FunctionModel(lambda p, x: x @ p["w"], {"w": np.ones((2, 1))})))
        >>> other = learner.DeepCopy()
        >>> other.SetParameters(np.zeros(2))
        >>> learner.GetParameters()
        array([1., 1.])
        """
        options, model = self._options, self.BaseModel
        memo: dict[int, Any] = {id(model): model.Clone()}
        for shared in (
            *(options.LossFunction, options.MetaOptimizer, options.InnerOptimizer),
            *(options.OuterLearningRateSchedule, options.DataLoader, options.ValidationLoader),
        ):
            memo[id(shared)] = shared
        other = copy.deepcopy(self, memo)
        # The copied places in the loaders are new ones, and this learner has none before its first draw: both would
        # begin where the loaders are then.
        places = self._random.saved()
        for learner in (self, other):
            learner._random.set(places)
        return other

    def Clone(self) -> Self:
        """Return an independent learner; see `DeepCopy`."""
        return self.DeepCopy()

    def Predict(self, input: TInput) -> TOutput:
        """Return the meta-model's outputs for inputs, without adaptation.

        Raises
        ------
        ArgumentNullException
            When the input is None.
        ArgumentException
            When the meta-model cannot take it.
        """
        check_given("input", input, "an array")
        model: IFullModel[T, TInput, TOutput] = self.BaseModel
        return model.Predict(input)

    @takes_turns
    def _train_model(self, input: TInput, expectedOutput: TOutput) -> None:
        """Train the meta-model on one set of examples."""
        check_given("input", input, "an array")
        check_given("expectedOutput", expectedOutput, "an array")
        self.BaseModel.Train(input, expectedOutput)

    def GetModelMetadata(self) -> ModelMetadata[T]:
        """Return the meta-model's description."""
        return self.BaseModel.GetModelMetadata()

    def Serialize(self) -> bytes:
        """Return the meta-model's state, as its `Serialize` does; `Save` writes the learner's."""
        return self.BaseModel.Serialize()

    @takes_turns
    def Deserialize(self, data: bytes) -> None:
        """Take up a state that `Serialize` returned, as the meta-model's `Deserialize` does.

        Raises
        ------
        ArgumentNullException
            When the data are None.
        ArgumentException
            When they are of another model.
        """
        check_given("data", data, "bytes")
        with self._state:
            self.BaseModel.Deserialize(data)

    def SaveModel(self, filePath: str | os.PathLike[str]) -> None:
        """Write the meta-model's state to a file; `Save` writes the learner's."""
        self.BaseModel.SaveModel(filePath)

    @takes_turns
    def LoadModel(self, filePath: str | os.PathLike[str]) -> None:
        """Take up the meta-model's state in a file.

        Raises
        ------
        FileNotFoundError
            When there is no such file.
        ArgumentException
            When it is of another model.
        """
        with self._state:
            self.BaseModel.LoadModel(filePath)
