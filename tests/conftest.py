"""Fixtures for all tests: the backends they run on and Hypothesis's profiles."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from functools import cache
from importlib.util import find_spec
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings
from simulated_cupy import SimulatedBackend

from aidotnet_py.backends import Backend, available_backends, get_backend, register_backend

_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")

register_backend(SimulatedBackend())
# A machine with a GPU may have been set up by someone else; the tests on CuPy do not need it.
if find_spec("array_api_strict"):
    from strict_backend import StrictBackend

    register_backend(StrictBackend())
    register_backend(StrictBackend("strict-device1", "device1"))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give the tests, and the processes that they start, a cache of kernels apart from the user's.

    Thousands of kernels that only tests need would push a user's own ones out.
    """
    # The workers of pytest-xdist have that of the process that started them, so that each kernel is compiled once.
    if not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="aidotnet_py-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        os.environ["XDG_CACHE_HOME"] = folder
    # At Python's own threshold, an eighth of the time of small tests goes to the search for cycles.
    gc.set_threshold(50_000, 10, 10)
    if _PROFILE == "ci" and config.getoption("--hypothesis-seed") is None:
        # One seed for all: with derandomize, Hypothesis parses the source of each case twice, 10 ms each time.
        config.option.hypothesis_seed = "0"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow all cases of a test beyond those that have each value of each of its arguments once.

    The default tests so meet each algorithm and option in each test, NumPy and one other backend. The slow ones meet
    all combinations of the other arguments on NumPy and on one other backend, and each backend in each test; what is
    left is exhaustive too, and not run by CI. Of a test marked as numpy_first, every case on another backend is slow,
    and of one marked as costly every case but the first.
    """
    met: set[tuple[str, str, int]] = set()
    combined: set[Any] = set()
    beyond = _beyond_the_first(items)
    # In an order of its own for each test, so that values do not always meet the same ones.
    for item in sorted(items, key=lambda item: crc32(item.nodeid.encode())):
        case = getattr(item, "callspec", None)
        if case is None:
            continue
        test, backend = item.nodeid.partition("[")[0], case.params.get("backend")
        # By identity: all cases have the same objects, and some values can't be compared.
        values = {(test, name, _identity(name, value)) for name, value in case.params.items()}
        combination, on = (test, frozenset(values)), (test, backend)
        elsewhere = backend not in (None, "numpy") and item.get_closest_marker("numpy_first")
        if elsewhere or item in beyond or values <= met:
            item.add_marker(pytest.mark.slow)
            if {combination, on} <= combined:
                item.add_marker(pytest.mark.exhaustive)
        elif not item.get_closest_marker("slow"):
            met |= values
        combined |= {combination, on}


def _beyond_the_first(items: list[pytest.Item]) -> set[pytest.Item]:
    """Return the cases of costly tests beyond the first that is not slow."""
    beyond, begun = set[pytest.Item](), set[str]()
    for item in items:
        if item.get_closest_marker("costly") and not item.get_closest_marker("slow"):
            test = item.nodeid.partition("[")[0]
            if test in begun:
                beyond.add(item)
            begun.add(test)
    return beyond


def _identity(name: str, value: object) -> int:
    """Return a number for a value of an argument; all backends but NumPy's have the same."""
    return -1 if name == "backend" and value in ("strict", "simulated") else id(value)


def pytest_collection_finish() -> None:
    """Keep what the collection of tests made out of the garbage collector's way: half a second for each full round."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Search for cycles once: pytest does it twice after this, and the interpreter again, each time for a second."""
    gc.collect()
    gc.freeze()


settings.register_profile(
    "ci",
    database=None,
    deadline=None,
    max_examples=10,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.register_profile("deep", settings.get_profile("ci"), max_examples=1000)
settings.load_profile(_PROFILE)


_ON_A_GPU = pytest.param("cupy", marks=pytest.mark.gpu)
# Where CuPy is not installed, a thousand tests need not each say that they are skipped.
_EACH = ["numpy", "strict", "simulated", *([_ON_A_GPU] if find_spec("cupy") else [])]


@pytest.fixture(params=_EACH)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend in turn; CuPy's on the simulation, and on a GPU where there is one."""
    return _named(request.param)


@pytest.fixture(params=["simulated", _ON_A_GPU])
def cupy_backend(request: pytest.FixtureRequest) -> Backend:
    """CuPy's backend, on the simulation, and on a GPU where there is one."""
    return _named(request.param)


# Looked up by each of thousands of tests, and found the same.
_available = cache(available_backends)


def _named(name: str) -> Backend:
    available = _available()
    if name not in available:
        pytest.skip(available.missing.get(name, "array-api-strict is not installed"))
    return get_backend(name)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes by their length: their content may differ from process to process, and test names must not."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None
