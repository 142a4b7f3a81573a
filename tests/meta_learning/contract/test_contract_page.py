"""docs/contract.md names every public member of the contract's classes, and docs/imaml.md every option; no other."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import enum
import inspect
import re
from collections import defaultdict
from typing import Any

import pytest
from places import ROOT
from typing_extensions import get_protocol_members, is_protocol

import aidotnet_py

PAGE = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
# Public, and described on pages of their own.
ELSEWHERE = {
    *("FunctionModel", "NeuralNetworkModel", "CrossEntropyLoss", "BinaryCrossEntropyLoss", "MeanSquaredErrorLoss"),
    *("SGDOptimizer", "AdamOptimizer", "LBFGSMinimizer", "NewtonCGMinimizer", "ProblemConstants"),
    *("LooseToleranceWarning", "NonPositiveCurvatureWarning", "SeriesGrowthWarning"),
    # docs/training.md
    *("RunFolder", "ITrainingCallback", "ConstantSchedule", "CosineSchedule", "StepSchedule", "WarmUpSchedule"),
    # docs/data.md
    *aidotnet_py.data.__all__,
    "IMetaDataset",
}
# The same members as MetaLearnerBase up to Reset.
PROTOCOL = "IMetaLearner"
ERRORS = {name for name in aidotnet_py.__all__ if name.endswith("Exception")}


def sections() -> dict[str, list[str]]:
    """The members that a heading's sections list, as they stand in the first column, by class."""
    listed: dict[str, list[str]] = defaultdict(list)
    for section in PAGE.split("\n### ")[1:]:
        heading, _, text = section.partition("\n")
        rows = re.findall(r"^\| (`.*?) \|", text.partition("\n## ")[0], re.MULTILINE)
        for name in re.findall(r"`(\w+)`", heading):
            listed[name] += [member for row in rows for member in re.findall(r"`([^`]+)`", row)]
    return listed


SECTIONS = sections()


def members(cls: Any) -> set[str]:
    """The public members of a class, those of its annotations too."""
    names = set(get_protocol_members(cls)) if is_protocol(cls) else set(dir(cls))
    if dataclasses.is_dataclass(cls):
        names |= {field.name for field in dataclasses.fields(cls)}
    foreign = {*dir(tuple)} | ({"name", "value"} if issubclass(cls, enum.Enum) else set())
    return {name for name in names if not name.startswith("_")} - foreign


def test_every_class_of_the_contract_has_a_section() -> None:
    classes = {name for name in aidotnet_py.__all__ if inspect.isclass(getattr(aidotnet_py, name))}
    assert classes - set(SECTIONS) - ELSEWHERE - ERRORS - {PROTOCOL} == set()


@pytest.mark.parametrize("name", SECTIONS)
def test_the_members_of_a_section_exist(name: str) -> None:
    cls = getattr(aidotnet_py, name)
    for entry in SECTIONS[name]:
        member, _, parameters = entry.partition("(")
        assert member in members(cls), entry
        if parameters:
            wanted = [p.split("=")[0].strip() for p in parameters.rstrip(")").split(",") if p.strip()]
            signature = inspect.signature(getattr(cls, member)).parameters
            assert set(wanted) <= set(signature), entry


@pytest.mark.parametrize("name", [*SECTIONS, PROTOCOL])
def test_every_public_member_is_in_a_section(name: str) -> None:
    cls = getattr(aidotnet_py, name)
    documented = {entry.partition("(")[0] for base in cls.__mro__ for entry in SECTIONS.get(base.__name__, [])}
    if name == PROTOCOL:
        documented = {entry.partition("(")[0] for entry in SECTIONS["MetaLearnerBase"]}
    assert members(cls) - documented == set()


@pytest.mark.parametrize("name", [name for name in SECTIONS if name.endswith("Options")])
def test_defaults_are_those_of_the_class(name: str) -> None:
    cls = getattr(aidotnet_py, name)
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    text = next(part for part in PAGE.split("\n### ")[1:] if f"`{name}`" in part.partition("\n")[0])
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", text.partition("\n## ")[0], re.MULTILINE)
    for first, shown in rows:
        names = [entry for entry in re.findall(r"`(\w+)`", first) if entry in defaults]
        if names and shown != "required":
            assert [ast.literal_eval(value) for value in shown.split(", ")] == [defaults[n] for n in names], first
    changed = re.search(r"Defaults that differ: (.*?)\.\n", text, re.DOTALL)
    for option, value in re.findall(r"`(\w+)` ([\d.]+)(?=,|$)", changed.group(1) if changed else "", re.MULTILINE):
        assert float(value) == defaults[option], option


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_errors_are_also_pythons(name: str) -> None:
    row = re.search(rf"^\| `{name}` \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert row is not None
    base = getattr(aidotnet_py if row.group(1) in ERRORS else builtins, row.group(1))
    assert issubclass(getattr(aidotnet_py, name), base)


def test_the_page_of_imaml_lists_all_its_options():
    page = (ROOT / "docs" / "imaml.md").read_text(encoding="utf-8")
    table = page.partition("\n## The options\n")[2].partition("\n## ")[0]
    options = {field.name for field in dataclasses.fields(aidotnet_py.iMAMLOptions)} - {"MetaModel"}
    named = {name for row in re.findall(r"^\| (.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == options
