"""The learner of a run, from its settings and its data."""

from __future__ import annotations

from typing import Any, cast

from aidotnet_py.arguments import refusal
from aidotnet_py.comparison import ALGORITHMS
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import MetaLearnerBase, iMAMLOptions
from aidotnet_py.runs.run_data import RunData
from aidotnet_py.runs.settings import RunSettings
from aidotnet_py.saving import Rebuilder

__all__ = ["make_learner"]

_IN_TERMS_OF_THE_PAPER = {"LambdaRegularization", "InnerObjective"}


def make_learner(settings: RunSettings, data: RunData) -> MetaLearnerBase[Any, Any, Any]:
    """Return the learner of a run, with its data, before the first step.

    Raises
    ------
    ArgumentException
        When an option is unknown or has no such value, or the algorithm needs classes and the data have none.

    Examples
    --------
    >>> from aidotnet_py.runs.data_sources import open_data
    >>> from aidotnet_py.runs.learners import make_learner
    >>> from aidotnet_py.runs.settings import RunSettings
    >>> settings = RunSettings.of({"data": "sinusoid", "options": {"AdaptationSteps": 3}})
    >>> make_learner(settings, open_data(settings)).Options.AdaptationSteps
    3
    """
    algorithm, rebuilder = ALGORITHMS[settings.algorithm], Rebuilder()
    if algorithm.needs_classes and not data.classification:
        raise ArgumentException(refusal("algorithm", "an algorithm of regression for these data", settings.algorithm))
    keywords = algorithm.keywords(data)
    if settings.algorithm == "Reptile":
        # Its own default is the rate of plain descent along θ − φ; the data's is one of Adam.
        del keywords["OuterLearningRate"]
    own = {name: rebuilder.object(value, f"options.{name}") for name, value in settings.options.items()}
    make = algorithm.options
    if make is iMAMLOptions and "Lambda" in own:
        # In the terms of the paper.
        make = iMAMLOptions.FromPaper
        keywords = {name: value for name, value in keywords.items() if name not in _IN_TERMS_OF_THE_PAPER}
    try:
        options = make(
            data.model(settings.seed), **{**keywords, **own}, DataLoader=data.training, ValidationLoader=data.validation
        )
        options.RandomSeed = settings.seed
    except TypeError as error:
        raise ArgumentException(f"options must be those of {settings.algorithm}, got another: {error}") from error
    return cast("MetaLearnerBase[Any, Any, Any]", algorithm.algorithm(options))
