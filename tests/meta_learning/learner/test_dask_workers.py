"""A batch shared out over a Dask scheduler and its workers, real processes on the loopback address."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amounts import rounds
from process_cases import learner_of

pytestmark = [
    pytest.mark.slow,
    # Dask's own threads and sockets, as they are when its processes are killed.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:a worker of"),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A scheduler and two workers, each a process, which their nannies begin anew when they are killed."""
    # Not when the tests are collected, which all do: the import takes longer than most tests.
    distributed = pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("dask")
    contact = folder / "scheduler.json"
    support = Path(__file__).parents[2] / "support"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(support), *filter(None, sys.path)])}
    dask = [sys.executable, "-m", "dask"]
    host = ["--host", "127.0.0.1", "--scheduler-file", str(contact)]
    commands = [
        [*dask, "scheduler", "--port", "0", "--no-dashboard", "--no-jupyter", *host],
        [*dask, "worker", *host, "--nworkers", "2", "--nthreads", "1", "--no-dashboard"],
    ]
    with (folder / "log").open("w") as log:
        started = [
            subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log) for command in commands
        ]
        try:
            with distributed.Client(scheduler_file=str(contact), timeout=60) as client:
                client.wait_for_workers(2, timeout=60)
                yield client
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait(30)


@pytest.mark.parametrize("name", ["iMAML", "Meta-SGD", "ANIL"])
def test_gives_the_bits_of_one_process(name: str, client: Any) -> None:
    plain, shared = learner_of(name, steps=0), learner_of(name, steps=0)
    shared.Options.Executor = client.get_executor()
    for _ in range(3):
        assert plain.MetaTrainStep(10).MetaLoss == shared.MetaTrainStep(10).MetaLoss
    np.testing.assert_array_equal(plain.GetParameters(), shared.GetParameters())
    np.testing.assert_array_equal(plain.Evaluate(9).PerTaskLosses, shared.Evaluate(9).PerTaskLosses)


def test_workers_killed_at_random(client: Any) -> None:
    rng = np.random.default_rng(0)
    plain, shared = learner_of("MAML", steps=0), learner_of("MAML", steps=0)
    shared.Options.Executor = client.get_executor()
    for _ in range(rounds(5)):
        processes = list(client.run(os.getpid).values())
        os.kill(processes[int(rng.integers(len(processes)))], signal.SIGKILL)
        for _ in range(3):
            assert plain.MetaTrainStep(6).MetaLoss == shared.MetaTrainStep(6).MetaLoss
        client.wait_for_workers(2, timeout=60)
    np.testing.assert_array_equal(plain.GetParameters(), shared.GetParameters())
