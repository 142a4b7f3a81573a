"""The options of iMAML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, Unpack, cast

import numpy as np

from aidotnet_py.arguments import (
    COUNT,
    NON_NEGATIVE,
    POSITIVE,
    SWITCH,
    Choice,
    Number,
    OrNone,
    Whole,
    check_given,
    refusal,
)
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.meta_learning.algorithms.imaml.error_bound import ProblemConstants
from aidotnet_py.meta_learning.algorithms.imaml.keywords import LambdaKind, PaperKeywords, RecommendedKeywords
from aidotnet_py.meta_learning.algorithms.imaml.recommendation import SupportFit
from aidotnet_py.meta_learning.contract.options import ProximalOptions, with_suggestions
from aidotnet_py.meta_learning.contract.protocols import is_inner_solver, missing_members
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader
from aidotnet_py.models import IDifferentiableModel, IFullModel
from aidotnet_py.models.interfaces import IFullModelOf, TModel_co
from aidotnet_py.optimizers import CosineSchedule
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["iMAMLOptions"]

_S = TypeVar("_S", bound=np.floating[Any])
_X = TypeVar("_X")
_Y = TypeVar("_Y")
_M = TypeVar("_M", bound=IFullModel[Any, Any, Any])


@with_suggestions
@dataclass(eq=False, kw_only=True)
class iMAMLOptions(ProximalOptions[T, TInput, TOutput, TModel_co]):
    """Options of `iMAMLAlgorithm`: those of every learner, and iMAML's own.

    Parameters
    ----------
    MetaModel : IFullModel
        The model whose parameters are learned. Required; all others are keywords. See `MetaLearnerOptions`.
    UseFirstOrder : bool
        Take the query gradient g itself as meta-gradient: no curvature.
    LambdaRegularization : float
        λ ≥ 0 in (I + λH) v = g. It is 1/λ_p for the paper's λ_p.
    ConjugateGradientIterations : int
        The most curvature products of a solve, > 0.
    ConjugateGradientTolerance : float
        A task's solve ends when ‖r‖ is at most this; in (0, 1).
    UseNeumannApproximation : bool
        v = Σ_{j<J} (−λH)ʲ g instead of conjugate gradient.
    NeumannSeriesTerms : int
        J, > 0.
    InnerObjective : "support" or "proximal"
        The inner loss: L_support(φ), or L_support(φ) + ‖φ − θ‖²/(2λ), for which v is the exact meta-gradient as the
        inner problem converges (Rajeswaran et al. 2019, eqs. 3 and 6).
    ConjugateGradientDamping : float
        δ ≥ 0 in ((1 + δ)I + λH) v = g.
    Curvature : "hessian" or "gauss-newton"
        H: the Hessian of the support loss, or its Gauss–Newton part JᵀH_ℓJ, positive semi-definite for convex losses
        (Schraudolph 2002).
    InnerOptimizer
        An optimizer, or any solver (objective, θ) → φ, differentiable or not: `LBFGSMinimizer`, `NewtonCGMinimizer`
        or your own function. See `MetaLearnerOptions`.
    InnerGradientTolerance : float, optional
        A task's inner steps end once their gradient has at most this norm; None: there are always K steps. A solver as
        InnerOptimizer ends by a tolerance of its own.
    LearnedLambda : "scalar", "per-parameter" or None
        Learn λ with θ, one for all parameters or one for each, starting from LambdaRegularization. The meta-optimizer
        moves log λ. Needs InnerObjective "proximal". `iMAMLAlgorithm.LambdaRegularization` returns the current λ.
    WarmStartSolves : bool
        A solve starts from the last solution for the same TaskId.
    PreconditionerProbes : int
        With m > 0, a solve is preconditioned by the diagonal of I + λH, estimated from m products (Bekas, Kokiopoulou
        & Saad 2007).
    ErrorConstants : ProblemConstants, optional
        Constants for the paper's bound on the error of the meta-gradient, which a step then reports; see
        `meta_gradient_error_bound`. Needs InnerObjective "proximal", one λ for all parameters, and a solve with the
        undamped Hessian.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py import FunctionModel, iMAMLOptions
    >>> model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((2, 1))})
    >>> options = iMAMLOptions(model, AdaptationSteps=20, LambdaRegularization=2.0)
    >>> options.IsValid(), options.ConjugateGradientIterations
    (True, 10)
    >>> iMAMLOptions(model, AdaptionSteps=20)
    Traceback (most recent call last):
    TypeError: iMAMLOptions has no option 'AdaptionSteps'; did you mean 'AdaptationSteps'?
    """

    UseFirstOrder: bool = False
    ConjugateGradientIterations: int = 10
    ConjugateGradientTolerance: float = 1e-10
    UseNeumannApproximation: bool = False
    NeumannSeriesTerms: int = 5
    ConjugateGradientDamping: float = 0.0
    Curvature: Literal["hessian", "gauss-newton"] = "hessian"
    InnerGradientTolerance: float | None = None
    LearnedLambda: LambdaKind | None = None
    WarmStartSolves: bool = False
    PreconditionerProbes: int = 0
    ErrorConstants: ProblemConstants | None = None

    _constraints: ClassVar = {
        "UseFirstOrder": SWITCH,
        "ConjugateGradientIterations": COUNT,
        "ConjugateGradientTolerance": Number(above=0, below=1),
        "UseNeumannApproximation": SWITCH,
        "NeumannSeriesTerms": COUNT,
        "ConjugateGradientDamping": NON_NEGATIVE,
        "Curvature": Choice("hessian", "gauss-newton"),
        "InnerGradientTolerance": OrNone(POSITIVE),
        "LearnedLambda": Choice(None, "scalar", "per-parameter"),
        "WarmStartSolves": SWITCH,
        "PreconditionerProbes": Whole(0),
    }

    # Own type variables: those of the class are not bound in a call on the class.
    @staticmethod
    def FromPaper(
        MetaModel: IFullModelOf[_S, _X, _Y, _M], Lambda: float = 2.0, **options: Unpack[PaperKeywords]
    ) -> iMAMLOptions[_S, _X, _Y, _M]:
        """Return options in the paper's terms: the proximal inner objective L_support(φ) + (Λ/2)‖φ − θ‖².

        Parameters
        ----------
        MetaModel : IFullModel
            The model.
        Lambda : float
            Λ ≥ 0; LambdaRegularization is 1/Λ. Λ = 0 is the original loss: the support objective, and the first-order
            meta-gradient, since nothing ties φ to θ then.
        **options
            Any other option.

        Raises
        ------
        ArgumentOutOfRangeException
            When Lambda is not a finite number of at least 0.
        ArgumentException
            When LambdaRegularization or InnerObjective is given too; when UseFirstOrder is False for Λ = 0.

        Examples
        --------
        >>> import numpy as np
        >>> from aidotnet_py import FunctionModel, iMAMLOptions
        >>> model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((2, 1))})
        >>> options = iMAMLOptions.FromPaper(model, Lambda=4.0)
        >>> options.LambdaRegularization, options.InnerObjective
        (0.25, 'proximal')
        """
        strength = NON_NEGATIVE.check("Lambda", Lambda, type_error=ArgumentOutOfRangeException)
        given = cast("dict[str, object]", options)
        for name in ("LambdaRegularization", "InnerObjective"):
            if name in given:
                raise ArgumentException(
                    f"{name} must be left to FromPaper, which sets it from Lambda, got {given[name]!r:.80}"
                )
        if strength == 0:
            if not given.setdefault("UseFirstOrder", True):
                raise ArgumentException(
                    "UseFirstOrder must be True or left out with Lambda=0, as nothing ties φ to θ then, got "
                    f"{given['UseFirstOrder']!r}"
                )
            return iMAMLOptions(MetaModel, **options)
        return iMAMLOptions(MetaModel, LambdaRegularization=1.0 / strength, InnerObjective="proximal", **options)

    @staticmethod
    def Recommended(
        MetaModel: IFullModelOf[_S, _X, _Y, _M],
        DataLoader: IEpisodicDataLoader[Any, _X, _Y],
        **options: Unpack[RecommendedKeywords],
    ) -> iMAMLOptions[_S, _X, _Y, _M]:
        """Return options that suit a model and its data, with an inner rate that is measured on eight tasks.

        The inner steps follow the support loss alone, and λ is 2K·η: to stop gradient descent after K steps acts like a
        proximal term of a strength near 1/(2K·η), so that the implicit gradient is that of the steps taken. For
        classes, η is the rate at which K steps leave the least support loss. For a regression it is half of this rate,
        and at most a third of the greatest rate that is stable for the curvature after 200 steps of MAML on a copy of
        the model (docs/imaml.md). The other settings are K = 16 for classes and 32 for a regression, Gauss–Newton
        curvature (the Hessian, if the model has no Gauss–Newton products), 5 iterations of conjugate gradient, and Adam
        at a rate that falls in half a cosine over NumMetaIterations to a tenth: from 0.003 for classes in steps of 8
        tasks, from 0.008 for a regression in steps of 25.

        The model is not changed. The tasks are the next ones of the loader, which then goes on as if nothing had been
        drawn: it is set back by SetState, or a loader without SetState is copied. Equal models at equal places in equal
        loaders have equal options.

        Parameters
        ----------
        MetaModel : IFullModel
            The model.
        DataLoader : IEpisodicDataLoader
            The source of tasks to train on; it becomes the option DataLoader.
        **options
            Any other option, in place of the recommended one. With InnerLearningRate none is measured. Whoever calls
            MetaTrainStep n times instead of Train gives NumMetaIterations=n.

        Raises
        ------
        ArgumentNullException
            When MetaModel or DataLoader is None.
        ArgumentException
            When an option is invalid or set by this method itself; when a loader without SetState cannot be copied, or
            its tasks do not fit the model; when a rate is to be measured by a loss that becomes negative.
        InvalidOperationException
            When the loss of the model on a task is not finite.

        Examples
        --------
        >>> from aidotnet_py import NeuralNetworkModel, iMAMLOptions
        >>> from aidotnet_py.data import SinusoidLoader
        >>> from aidotnet_py.nn import mlp
        >>> model = NeuralNetworkModel(mlp(40, 40, 1), input_shape=(1,), seed=0)
        >>> options = iMAMLOptions.Recommended(model, SinusoidLoader(seed=0), NumMetaIterations=500)
        >>> options.LambdaRegularization == 2 * options.AdaptationSteps * options.InnerLearningRate
        True
        """
        given = cast("dict[str, Any]", options)
        for name in ("LambdaRegularization", "InnerObjective", "InnerOptimizer", "LearnedLambda", "ErrorConstants"):
            if name in given:
                raise ArgumentException(
                    f"{name} must be left to Recommended, whose λ is that of plain inner steps, got {given[name]!r:.80}"
                )
        check_given("DataLoader", DataLoader, "a source of tasks")
        traced = not missing_members(MetaModel, IDifferentiableModel)
        settings: dict[str, Any] = {
            "AdaptationSteps": 32,
            "Curvature": "gauss-newton" if traced else "hessian",
            "ConjugateGradientIterations": 5,
            **given,
        }
        recommended = iMAMLOptions(MetaModel, DataLoader=DataLoader, **settings)
        if problem := recommended.first_problem():
            raise ArgumentException(problem)
        fit = SupportFit(recommended)
        steps, outer, tasks = (16, 0.003, 8) if fit.has_classes else (32, 0.008, 25)
        own = {"AdaptationSteps": steps, "OuterLearningRate": outer, "MetaBatchSize": tasks}
        for name, value in own.items():
            if name not in given:
                setattr(recommended, name, value)
        if "OuterLearningRateSchedule" not in given and recommended.MetaOptimizer is None:
            recommended.OuterLearningRateSchedule = CosineSchedule(recommended.NumMetaIterations, final=0.1)
        if "InnerLearningRate" not in given:
            recommended.InnerLearningRate = fit.rate()
        recommended.LambdaRegularization = 2 * recommended.AdaptationSteps * recommended.InnerLearningRate
        return recommended

    def _names_left_to_checkpoint(self) -> frozenset[str]:
        # Probes are drawn from the seed itself, at any time.
        return super()._names_left_to_checkpoint() - ({"RandomSeed"} if self.PreconditionerProbes else set())

    def invalid(self) -> Iterator[str]:
        """Yield a message for each problem."""
        yield from super().invalid()
        if self.Curvature == "gauss-newton" and missing_members(self.MetaModel, IDifferentiableModel):
            yield (
                "Curvature must be 'hessian' for a model without IDifferentiableModel, such as "
                f"{type(self.MetaModel).__name__}, got 'gauss-newton'"
            )
        if self.LearnedLambda is not None and self.InnerObjective != "proximal":
            yield (
                "LearnedLambda must be None unless InnerObjective is 'proximal', as φ does not depend on λ, "
                f"got {self.LearnedLambda!r}"
            )
        if self.InnerGradientTolerance is not None and is_inner_solver(self.InnerOptimizer):
            yield (
                "InnerGradientTolerance must be None if InnerOptimizer is a solver, which ends by a tolerance of its "
                f"own, got {self.InnerGradientTolerance}"
            )
        if self.UseNeumannApproximation and self.PreconditionerProbes:
            yield f"PreconditionerProbes must be 0 with UseNeumannApproximation, got {self.PreconditionerProbes}"
        if self.UseNeumannApproximation and self.WarmStartSolves:
            yield "WarmStartSolves must be False with UseNeumannApproximation, got True"
        yield from self._invalid_constants()

    def _invalid_constants(self) -> Iterator[str]:
        """Yield a message for each option under which the bound of ErrorConstants does not hold."""
        if self.ErrorConstants is None:
            return
        if not isinstance(self.ErrorConstants, ProblemConstants):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            yield refusal("ErrorConstants", "ProblemConstants or None", self.ErrorConstants)
        wanted = {
            "InnerObjective": "proximal",
            "Curvature": "hessian",
            "ConjugateGradientDamping": 0.0,
            "UseFirstOrder": False,
        }
        for name, value in wanted.items():
            if getattr(self, name) != value:
                yield f"{name} must be {value!r} for the bound of ErrorConstants, got {getattr(self, name)!r}"
        if self.LearnedLambda == "per-parameter":
            yield "LearnedLambda must be None or 'scalar' for the bound of ErrorConstants, got 'per-parameter'"
