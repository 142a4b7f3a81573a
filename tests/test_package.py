"""The package as a whole: its version, its attributes, and its public names with their docstrings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import pytest
from places import ROOT

import aidotnet_py

PACKAGES = [m.name for m in pkgutil.iter_modules(aidotnet_py.__path__) if m.ispkg]
EXTEND = [m.name for m in pkgutil.walk_packages(aidotnet_py.__path__, "aidotnet_py.") if m.name.endswith(".extend")]
PUBLIC = [
    "aidotnet_py",
    *(f"aidotnet_py.{name}" for name in PACKAGES),
    "aidotnet_py.exceptions",
    "aidotnet_py.plotting",
    *EXTEND,
]
ATTRIBUTES = [*(name for name in PACKAGES if name != "cli"), "plotting"]


def in_new_process(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


class TestPublicNames:
    @pytest.mark.parametrize("name", PUBLIC)
    def test_exist_once_and_have_docstrings(self, name: str) -> None:
        module = importlib.import_module(name)
        assert module.__doc__
        assert len(set(module.__all__)) == len(module.__all__)
        missing = [public for public in module.__all__ if not hasattr(module, public)]
        assert missing == []
        values = {public: getattr(module, public) for public in module.__all__}
        undocumented = [
            public
            for public, value in values.items()
            if (inspect.isclass(value) and not vars(value).get("__doc__"))
            or (inspect.isroutine(value) and not value.__doc__)
        ]
        assert undocumented == []

    @pytest.mark.parametrize("name", PUBLIC)
    def test_have_public_members_with_docstrings(self, name: str) -> None:
        """An implementation says nothing where its base or its protocol in the same package said it."""
        module = importlib.import_module(name)
        classes = [value for value in (getattr(module, n) for n in module.__all__) if inspect.isclass(value)]
        documented: dict[str, list[str]] = {}
        for one in (c for c in classes if c.__module__.startswith("aidotnet_py")):
            for member, value in vars(one).items():
                if not member.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
                    documented.setdefault(member, []).append(inspect.getdoc(getattr(one, member)) or "")
        assert [member for member, texts in documented.items() if not any(texts)] == []

    def test_each_is_imported_by_a_star(self) -> None:
        names: dict[str, object] = {}
        exec("from aidotnet_py import *", names)
        assert set(aidotnet_py.__all__) <= names.keys()


class TestAttributes:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ATTRIBUTES)
    def test_packages_need_no_import_of_their_own(self, name: str) -> None:
        code = f"import aidotnet_py; print(aidotnet_py.{name}.__name__, {name!r} in dir(aidotnet_py))"
        assert in_new_process(code) == f"aidotnet_py.{name} True"

    def test_an_import_brings_no_data_sets_and_no_optional_library(self) -> None:
        """Nor does what works without it; all in one process, since each takes half a second."""
        code = """
import sys
def show(): print(*sorted({name.split('.')[0] for name in sys.modules}), *sys.modules)
import aidotnet_py
show()
aidotnet_py.backends.CuPyBackend
assert aidotnet_py.backends.backend_of(1.0) is None
import numpy
from aidotnet_py.data import DatasetLoader
DatasetLoader([(numpy.zeros(2), i % 2) for i in range(8)], 2, 1, 2).GetNextTask()
show()
"""
        of_package, of_data = (set(line.split()) for line in in_new_process(code).splitlines())
        for imported in (of_package, of_data):
            assert not imported & {"PIL", "pooch", "scipy", "sklearn", "torch", "cupy", "cupyx", "cupy_backends"}
        assert not of_package & {"matplotlib", "rich", "typer", "llvmlite", "hypothesis"}
        assert not of_package & {"narwhals", "pandas", "polars", "pyarrow"}
        assert not of_package & {
            "aidotnet_py.data",
            "aidotnet_py.comparison",
            "aidotnet_py.cli",
            "aidotnet_py.plotting",
        }

    def test_an_unknown_one_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match=r"^module 'aidotnet_py' has no attribute 'dataa'$"):
            _ = aidotnet_py.dataa  # type: ignore[attr-defined]

    def test_modules_are_modules(self) -> None:
        assert all(isinstance(getattr(aidotnet_py, name), ModuleType) for name in ATTRIBUTES)


class TestVersion:
    def test_is_that_of_the_installed_package(self) -> None:
        """In a checkout that is not installed there is nothing to compare with."""
        try:
            installed = version("aidotnet-py")
        except PackageNotFoundError:
            pytest.skip("aidotnet-py is not installed")
        assert aidotnet_py.__version__ == installed

    def test_has_one_source(self) -> None:
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        assert settings["project"]["dynamic"] == ["version"]
        assert "version" not in settings["project"]
        # The package may be installed away from the tests.
        path = Path(aidotnet_py.__file__).parents[1] / settings["tool"]["hatch"]["version"]["path"]
        assert f'\n__version__ = "{aidotnet_py.__version__}"\n' in path.read_text(encoding="utf-8")

    def test_is_the_newest_of_the_changelog(self) -> None:
        heading = next(
            line for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line.startswith("## ")
        )
        assert heading.split()[1] == aidotnet_py.__version__
