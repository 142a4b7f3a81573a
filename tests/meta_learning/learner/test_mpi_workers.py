"""A batch shared out over processes of MPI, where mpi4py and mpirun are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import numpy as np
from mpi4py.futures import MPIPoolExecutor
from process_cases import learner_of

if __name__ == "__main__":
    plain, shared = learner_of("iMAML", steps=0), learner_of("iMAML", steps=0)
    with MPIPoolExecutor() as shared.Options.Executor:
        for _ in range(3):
            assert plain.MetaTrainStep(10).MetaLoss == shared.MetaTrainStep(10).MetaLoss
        print(shared.Options.Executor.num_workers, "workers")
    np.testing.assert_array_equal(plain.GetParameters(), shared.GetParameters())
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
def test_gives_the_bits_of_one_process(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    script = tmp_path / "program.py"
    script.write_text(PROGRAM, encoding="utf-8")
    support = Path(__file__).parents[2] / "support"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(support), *filter(None, sys.path)])}
    as_root = ["--allow-run-as-root"] if os.getuid() == 0 else []
    command = ["mpirun", *as_root, "--oversubscribe", "-n", "3", sys.executable, "-m", "mpi4py.futures", str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "workers"]
