"""The settings of a run by the command line: data, algorithm, options; checked before any work."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from aidotnet_py.arguments import COUNT, Choice, OrNone, Whole, refusal
from aidotnet_py.comparison import ALGORITHMS
from aidotnet_py.comparison.settings import SEEDS
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.runs.logs import require_logs

__all__ = ["OF_FOLDERS", "OF_TABLES", "RunSettings", "changed"]

_CONSTRAINTS = {
    "algorithm": Choice(*ALGORITHMS),
    "seed": Whole(0, SEEDS - 1),
    "shots": OrNone(COUNT),
    "ways": OrNone(Whole(2)),
    "size": OrNone(COUNT),
    "keep": COUNT,
}
# Settings of folders of images alone, and of tables alone.
OF_FOLDERS, OF_TABLES = ("ways", "size"), ("task", "target", "order")
_TEXTS = {"data": "a string", "archive": "a string", **dict.fromkeys(OF_TABLES, "the name of a column")}
# Options that the data and the command line set, or that are of a machine and not of a run.
_SET_ELSEWHERE = ("MetaModel", "DataLoader", "ValidationLoader", "RandomSeed", "EnableCheckpointing", "Executor")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run is made of; a TOML file holds the same names.

    Parameters
    ----------
    data : str
        What to learn from; see `open_data`.
    algorithm : str
        A name in ``ALGORITHMS``.
    seed : int
        The seed of weights, training tasks and noise.
    shots : int, optional
        Support examples, of a class if there are any; None: the data's own.
    archive : str, optional
        The path of the data, if no package contains it.
    ways : int, optional
        Classes of a task, for a folder of images; None: five, or fewer for few classes.
    size : int, optional
        The side of the images of a folder in pixels; None: 32.
    task, target, order : str, optional
        Columns of a table: its groups, the values to predict, and the times by which rows are divided.
    keep : int
        How many of the last checkpoints are kept.
    log : sequence of str
        What to write beside the folder's own metrics: names in ``LOGS``.
    options : mapping
        Options of the algorithm, over the defaults for the data: numbers, words, and tables with a ``type``, such as
        ``{type = "CosineSchedule", steps = 1000}``. For iMAML, ``Lambda`` is the λ of the paper.

    Raises
    ------
    ArgumentException
        When one of these is none.

    Examples
    --------
    >>> from aidotnet_py.runs.settings import RunSettings
    >>> RunSettings.of({"data": "sinusoid", "options": {"NumMetaIterations": 5}}).algorithm
    'MAML'
    """

    data: str
    algorithm: str = "MAML"
    seed: int = 0
    shots: int | None = None
    archive: str | None = None
    ways: int | None = None
    size: int | None = None
    task: str | None = None
    target: str | None = None
    order: str | None = None
    keep: int = 3
    log: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        for name, constraint in _CONSTRAINTS.items():
            constraint.check(name, getattr(self, name))
        for name, wanted in _TEXTS.items():
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name == "data"):
                raise ArgumentException(refusal(name, wanted, value))
        require_logs(self.log)
        if not isinstance(self.options, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] -- files hold anything
            raise ArgumentException(refusal("options", "a table of options", self.options))
        for name in _SET_ELSEWHERE:
            if name in self.options:
                raise ArgumentException(f"options must be without {name}, got it; data, seed and run folder set it")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return settings from a mapping, such as a file's.

        Raises
        ------
        ArgumentException
            When a name is unknown or a value is none.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                settings = f"settings are {', '.join(known)}; those of the algorithm are options.NAME"
                hint = f"; did you mean {near[0]!r}?" if near else f"; {settings}"
                raise ArgumentException(f"settings must have known names, got {name!r:.60}{hint}")
        if "data" not in values:
            raise ArgumentException(refusal("data", "the name or the path of data, such as 'sinusoid'", None))
        return cls(**values)

    @staticmethod
    def read(path: Path) -> dict[str, Any]:
        """Return the values of a TOML file.

        Raises
        ------
        OSError
            When it cannot be read.
        ArgumentException
            When it is no TOML.
        """
        try:
            return tomllib.loads(path.read_text(encoding="utf-8-sig"))
        # Also of integers of thousands of digits, and of too many brackets.
        except (ValueError, RecursionError) as error:
            raise ArgumentException(f"config must be a file in TOML, got {str(path)!r}: {error}") from error

    def as_dict(self) -> dict[str, Any]:
        """Return the settings in values that JSON can hold."""
        return asdict(self)

    def require_unset(self, data: str, *names: str) -> None:
        """Raise ArgumentException if one of these settings is given, for which such data have no use."""
        for name in names:
            if getattr(self, name) is not None:
                raise ArgumentException(refusal(name, f"left out for {data}", getattr(self, name)))


def changed(values: Mapping[str, Any], name: str, text: str) -> dict[str, Any]:
    """Return settings' values with another one; ``name`` may be ``options.…``.

    Examples
    --------
    >>> changed({"data": "sinusoid"}, "options.AdaptationSteps", "3")
    {'data': 'sinusoid', 'options': {'AdaptationSteps': 3}}
    """
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        read = {"value": text}
    if len(read) > 1:
        raise ArgumentException(
            f"{refusal('set', 'one setting and its value', f'{name}={text}')}; give each setting a --set of its own"
        )
    value = read["value"]
    first, dot, rest = name.partition(".")
    if not dot:
        return {**values, first: value}
    if first != "options" or "." in rest:
        raise ArgumentException(refusal("set", "the name of a setting, or options.NAME, and a value", f"{name}={text}"))
    options: Any = values.get("options", {})
    # The settings refuse what is no table.
    return {**values, "options": {**options, rest: value} if isinstance(options, Mapping) else options}
