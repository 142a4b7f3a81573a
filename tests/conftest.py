"""Fixtures for all tests: the backends they run on and Hypothesis's profiles."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from simulated_cupy import SimulatedBackend
from strict_backend import StrictBackend

from aidotnet_py.backends import Backend, get_backend, register_backend

register_backend(StrictBackend())
register_backend(SimulatedBackend())
register_backend(StrictBackend("strict-device1", "device1"))

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.register_profile("deep", settings.get_profile("ci"), derandomize=False, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(params=["numpy", "strict", "simulated"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend that runs on a CPU, in turn."""
    return get_backend(request.param)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes by their length: their content may differ from process to process, and test names must not."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None
