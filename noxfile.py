"""The default tests against the built wheel, on each Python and with the oldest libraries: ``nox``, from nox[uv]."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv"


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def newest(session: nox.Session) -> None:
    """With the newest release of every library."""
    _run(session, "highest")


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """With the oldest releases that pyproject.toml allows."""
    # Old releases use what the newest releases of their own libraries have deprecated.
    _run(session, "lowest-direct", "-W", "ignore::DeprecationWarning")


def _run(session: nox.Session, resolution: str, *options: str) -> None:
    """Install the wheel, and run the tests that the source distribution has."""
    folder = Path(session.create_tmp())
    session.run("uv", "build", "--quiet", "--out-dir", str(folder), ".", external=True)
    (wheel,) = folder.glob("*.whl")
    (source,) = folder.glob("*.tar.gz")
    session.install("--resolution", resolution, f"{wheel}[dev]")
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / source.name.removesuffix(".tar.gz")
    # So that the tests import the wheel.
    shutil.rmtree(unpacked / "aidotnet_py")
    session.chdir(unpacked)
    chosen = session.posargs or ["-n", "auto", "-m", "not slow and not docs"]
    session.run("python", "-m", "pytest", *options, *chosen, env={"OPENBLAS_NUM_THREADS": "1"})
