"""The types that users' checkers see: typing_cases.py passes mypy --strict and pyright strict, and runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typing_cases
from places import ROOT

CASES = "tests/support/typing_cases.py"

RUNNABLE = [
    typing_cases.single,
    typing_cases.double,
    typing_cases.linear,
    typing_cases.converted,
    typing_cases.task,
    typing_cases.learner_of_float32,
    typing_cases.learner_of_float64,
    typing_cases.named_type_parameters,
    typing_cases.losses_optimizers_and_loaders,
    typing_cases.the_family,
    typing_cases.a_solver_of_ones_own,
    typing_cases.held_as_interfaces,
    typing_cases.the_class_of_the_model,
    typing_cases.from_the_paper,
    typing_cases.packages_are_attributes,
    typing_cases.own_data,
    typing_cases.arrays_meta_datasets_and_samplers,
]


@pytest.mark.parametrize("case", RUNNABLE, ids=lambda case: case.__name__)
def test_case_runs(case):
    case()


@pytest.mark.slow
@pytest.mark.parametrize(
    "checker",
    [["mypy", "--strict"], ["pyright", "--pythonpath", sys.executable]],
    ids=["mypy", "pyright"],
)
def test_checkers_accept_every_case_and_refuse_what_they_should(checker):
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *checker, CASES], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
