"""Suggestions for mistyped names: by spelling, and by the words that papers and other libraries use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

__all__ = ["suggest", "suggest_or_list", "suggestion_hint"]

# The words of options and arguments for words of papers and other libraries.
_MEANINGS = {
    "alpha": "inner learning rate",
    "beta": "outer learning rate",
    "lr": "learning rate",
    "fast": "inner",
    "slow": "outer",
    "meta": "meta outer",
    "adapt": "adaptation",
    "steps": "adaptation steps iterations",
    "tasks": "tasks batch",
    "epochs": "meta iterations",
    "iter": "iterations",
    "iters": "iterations",
    "opt": "optimizer",
    "criterion": "loss function",
    "loss": "loss function",
    "data": "data loader",
    "dataset": "data loader",
    "every": "frequency",
    "interval": "frequency",
    "eval": "evaluation",
    "save": "checkpoint",
    "cg": "conjugate gradient",
    "tol": "tolerance",
    "grad": "gradient",
    "clip": "gradient clip threshold",
    "max": "threshold",
    "damp": "damping",
    "seed": "random seed",
    "reg": "lambda regularization",
    "order": "first order",
    "way": "way ways",
    "ways": "ways way",
    "classes": "ways way",
    "shots": "shot",
    "k": "shots shot",
    "queries": "query",
    "batchsize": "batch size",
    "hessian": "curvature",
}
# Words without a meaning of their own.
_EMPTY = {"use", "num", "n", "number", "of", "per", "enable"}


def suggest(name: str, names: Sequence[str]) -> str | None:
    """Return a question for the options that a name may stand for; None if it resembles none.

    Examples
    --------
    >>> from aidotnet_py.suggestions import suggest
    >>> suggest("inner_lr", ["InnerLearningRate", "InnerOptimizer", "AdaptationSteps"])
    "did you mean 'InnerLearningRate'?"
    >>> suggest("invert", ["InnerLearningRate", "InnerOptimizer", "AdaptationSteps"]) is None
    True
    """
    # In lower case: a C# or snake_case habit is the likeliest slip.
    slip = name.lower().replace("_", "")
    by_lower = {n.lower(): n for n in names}
    near = [by_lower[n] for n in get_close_matches(slip, by_lower, n=1, cutoff=0.9)]
    near = near or [n for lower, n in by_lower.items() if len(slip) > 3 and lower.startswith(slip)]
    near = near or _alike_in_meaning(name, names)
    near = near or [by_lower[n] for n in get_close_matches(slip, by_lower, n=1, cutoff=0.7)]
    return f"did you mean {' or '.join(map(repr, near[:3]))}?" if near else None


def suggest_or_list(name: str, names: Sequence[str]) -> str:
    """Return the question of `suggest`, or all names if the name resembles none."""
    return suggest(name, names) or f"it has {', '.join(names)}"


def suggestion_hint(value: object, names: Sequence[str]) -> str:
    """Return the end of a message for a value that is none of some names: the question, if it resembles one."""
    question = suggest(value, names) if isinstance(value, str) else None
    return f"; {question}" if question else ""


def _alike_in_meaning(name: str, names: Sequence[str]) -> list[str]:
    """Return the options that share most words with a name, those with fewest others first."""
    words = _words(name)
    wanted = {meaning for word in words for meaning in _MEANINGS.get(word, word).split()}
    shared = {n: len(wanted & _words(n)) for n in names}
    most = max(shared.values(), default=0)
    return sorted((n for n in names if most and shared[n] == most), key=lambda n: len(_words(n)))


def _words(name: str) -> set[str]:
    """Return the words of a name in snake_case or CamelCase, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)} - _EMPTY
