"""ANIL and BOIL: MAML whose inner steps move the head of a network alone, or everything but the head."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, cast

from aidotnet_py.arguments import refusal, shown
from aidotnet_py.meta_learning.algorithms.maml import MAMLAlgorithm, MAMLOptions
from aidotnet_py.meta_learning.contract.enums import MetaLearningAlgorithmType
from aidotnet_py.meta_learning.contract.options import with_suggestions
from aidotnet_py.meta_learning.contract.protocols import is_differentiable
from aidotnet_py.models import IFullModel
from aidotnet_py.models.interfaces import TModel_co
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["ANILAlgorithm", "ANILOptions", "BOILAlgorithm", "BOILOptions"]

Shapes = Mapping[str, tuple[int, ...]]


def _layer(parameter: str) -> str:
    """Return the top-level layer of a parameter."""
    return parameter.split(".")[0]


def _is_in(parameter: str, name: str) -> bool:
    """Return whether ``name`` is the name of the parameter, or of a layer around it."""
    return parameter == name or parameter.startswith(name + ".")


@with_suggestions
@dataclass(eq=False, kw_only=True)
class _PartialOptions(MAMLOptions[T, TInput, TOutput, TModel_co]):
    """MAML's options, and which layers the inner steps move."""

    AdaptedLayers: Sequence[str] | None = None

    # Without AdaptedLayers: whether the last layer is adapted, or all others.
    _adapts_head: ClassVar[bool]

    def adapted(self) -> list[str]:
        """Return the names of the parameters that the inner steps move; the options must be valid."""
        return self.adapted_of(self.MetaModel)

    def adapted_of(self, model: IFullModel[Any, Any, Any]) -> list[str]:
        """Return the names of the parameters of another model that the inner steps move."""
        names = list(_shapes(model))
        if self.AdaptedLayers is None:
            return [name for name in names if (_layer(name) == _layer(names[-1])) is self._adapts_head]
        return [name for name in names if any(_is_in(name, given) for given in self.AdaptedLayers)]

    def invalid(self) -> Iterator[str]:
        """Yield a message for each problem."""
        yield from super().invalid()
        if not is_differentiable(self.MetaModel):
            yield (
                "MetaModel must be an IDifferentiableModel, whose parameter_shapes name the layers, got a "
                f"{type(self.MetaModel).__name__}"
            )
        else:
            yield from self._invalid_layers(list(_shapes(self.MetaModel)))

    def _invalid_layers(self, names: list[str]) -> Iterator[str]:
        # Callers may be untyped, and a single name is a sequence of letters.
        given: Any = self.AdaptedLayers
        listed = isinstance(given, Sequence) and not isinstance(given, str)
        named: list[Any] = list(cast(Any, given)) if listed else []
        if given is None:
            if not any("." in name for name in names):
                yield (
                    "AdaptedLayers must name the parameters to adapt, as those of MetaModel belong to no layers, got "
                    f"None; it has {', '.join(names)}"
                )
                return
        elif not named or not all(isinstance(name, str) for name in named):
            yield refusal("AdaptedLayers", "a list of names or None", cast(object, given))
            return
        elif unknown := next((n for n in named if not any(_is_in(name, n) for name in names)), None):
            yield f"AdaptedLayers must name layers of MetaModel, got {unknown!r}{_suggestion(unknown, names)}"
            return
        adapted = len(self.adapted())
        if adapted in (0, len(names)):
            extent, remedy = ("all", "; use MAMLAlgorithm to adapt all") if adapted else ("none", "")
            wanted = "some of the parameters"
            yield f"AdaptedLayers must select {wanted}, got {shown(given)}, which selects {extent}{remedy}"


def _suggestion(unknown: str, names: Sequence[str]) -> str:
    """Return the end of a message that names the nearest layer or parameter, or all layers."""
    layers = list(dict.fromkeys(map(_layer, names)))
    near = get_close_matches(unknown, [*layers, *names], n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(layers)}"


def _shapes(model: Any) -> Shapes:
    return {name: tuple(shape) for name, shape in model.parameter_shapes.items()}


@with_suggestions
@dataclass(eq=False, kw_only=True)
class ANILOptions(_PartialOptions[T, TInput, TOutput, TModel_co]):
    """Options of `ANILAlgorithm`: those of MAML, and which layers are adapted.

    Parameters
    ----------
    MetaModel : IDifferentiableModel
        The model whose parameters are learned. Required; all others are keywords. See `MAMLOptions`.
    AdaptedLayers : sequence of str or None
        Names of layers or parameters that the inner steps move, as in the model's ``parameter_shapes``; a layer stands
        for all parameters in it. None: the last top-level layer that has parameters.

    Examples
    --------
    >>> from aidotnet_py import ANILOptions, NeuralNetworkModel
    >>> from aidotnet_py.nn import mlp
    >>> model = NeuralNetworkModel(mlp(40, 40, 1), input_shape=(1,), seed=0)
    >>> list(model.parameter_shapes)
    ['0_dense.weight', '0_dense.bias', '2_dense.weight', '2_dense.bias', '4_dense.weight', '4_dense.bias']
    >>> ANILOptions(model).adapted()
    ['4_dense.weight', '4_dense.bias']
    >>> ANILOptions(model, AdaptedLayers=["2_dense", "4_dense.bias"]).adapted()
    ['2_dense.weight', '2_dense.bias', '4_dense.bias']
    """

    _adapts_head: ClassVar[bool] = True


@with_suggestions
@dataclass(eq=False, kw_only=True)
class BOILOptions(_PartialOptions[T, TInput, TOutput, TModel_co]):
    """Options of `BOILAlgorithm`: those of MAML, and which layers are adapted.

    Parameters
    ----------
    MetaModel : IDifferentiableModel
        The model whose parameters are learned. Required; all others are keywords. See `MAMLOptions`.
    AdaptedLayers : sequence of str or None
        As in `ANILOptions`. None: all but the last top-level layer that has parameters.

    Examples
    --------
    >>> from aidotnet_py import BOILOptions, NeuralNetworkModel
    >>> from aidotnet_py.nn import mlp
    >>> BOILOptions(NeuralNetworkModel(mlp(8, 1), input_shape=(1,))).adapted()
    ['0_dense.weight', '0_dense.bias']
    """

    _adapts_head: ClassVar[bool] = False


class _PartialMAML(MAMLAlgorithm[T, TInput, TOutput, TModel_co]):
    """MAML whose inner steps move the parameters that the options name."""

    def __init__(self, options: _PartialOptions[T, TInput, TOutput, TModel_co]) -> None:
        super().__init__(options)
        self._partial = options

    def adapted_names(self, model: IFullModel[Any, Any, Any]) -> Collection[str]:
        """Return the parameters in AdaptedLayers."""
        return self._partial.adapted_of(model)


class ANILAlgorithm(_PartialMAML[T, TInput, TOutput, TModel_co]):
    """ANIL (Raghu, Raghu, Bengio & Vinyals 2020): MAML whose inner steps move the head of a network alone.

    With P the projection on the adapted parameters, φ_{k+1} = φ_k − αP∇L_s(φ_k) and v_k = v_{k+1} − αH(φ_k)P v_{k+1}.
    The meta-gradient of all parameters is exact; that of the body includes how the head's adaptation depends on it.

    Parameters
    ----------
    options : ANILOptions
        Read when used, so it can be changed between steps.

    Raises
    ------
    ArgumentNullException
        When options is None.
    InvalidOperationException
        When options has no model.
    ArgumentException
        When an option is invalid; the message names the first.

    References
    ----------
    Raghu, A., Raghu, M., Bengio, S. & Vinyals, O. (2020). Rapid learning or feature reuse? Towards understanding the
    effectiveness of MAML. ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py import ANILAlgorithm, ANILOptions, NeuralNetworkModel
    >>> from aidotnet_py.data import SinusoidLoader
    >>> from aidotnet_py.nn import mlp
    >>> model = NeuralNetworkModel(mlp(40, 40, 1), input_shape=(1,), seed=0)
    >>> loader = SinusoidLoader(seed=0)
    >>> learner = ANILAlgorithm(ANILOptions(model, DataLoader=loader))
    >>> adapted = learner.Adapt(loader.GetNextTask())
    >>> int(np.sum(adapted.GetParameters() != model.GetParameters())) <= 41
    True
    """

    _options_type = ANILOptions

    def __init__(self, options: ANILOptions[T, TInput, TOutput, TModel_co]) -> None:
        super().__init__(options)

    @property
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """``MetaLearningAlgorithmType.ANIL``."""
        return MetaLearningAlgorithmType.ANIL


class BOILAlgorithm(_PartialMAML[T, TInput, TOutput, TModel_co]):
    """BOIL (Oh, Yoo, Kim & Yun 2021): MAML whose inner steps move everything but the head of a network.

    BOIL is the counterpart of ANIL, see `ANILAlgorithm`: the features change with the task, and the head does not.

    Parameters
    ----------
    options : BOILOptions
        Read when used, so it can be changed between steps.

    Raises
    ------
    ArgumentNullException
        When options is None.
    InvalidOperationException
        When options has no model.
    ArgumentException
        When an option is invalid; the message names the first.

    References
    ----------
    Oh, J., Yoo, H., Kim, C. & Yun, S.-Y. (2021). BOIL: towards representation change for few-shot learning. ICLR.
    """

    _options_type = BOILOptions

    def __init__(self, options: BOILOptions[T, TInput, TOutput, TModel_co]) -> None:
        super().__init__(options)

    @property
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """``MetaLearningAlgorithmType.BOIL``."""
        return MetaLearningAlgorithmType.BOIL
