"""Real processes of `aidotnet-py train` under SIGINT and SIGKILL: each goes on to the bits of the run left alone."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from amounts import rounds

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

SETTINGS = [
    *("options.NumMetaIterations=120", "options.MetaBatchSize=4", "options.AdaptationSteps=2", "keep=2"),
    *("options.EvaluationFrequency=10", "options.EvaluationTasks=8", "options.CheckpointFrequency=7", "shots=5"),
]
TRAIN = ["train", "sinusoid", *(word for text in SETTINGS for word in ("--set", text))]


def start(*arguments: str) -> subprocess.Popen[str]:
    # Without figures: they take longer than the training.
    code = "import sys; sys.modules['matplotlib'] = None; from aidotnet_py.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def bits(run: Path) -> dict[str, bytes]:
    names = ["metrics.jsonl", "best.safetensors", "checkpoint_MAML_119.safetensors", "checkpoint_MAML_120.safetensors"]
    return {name: (run / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """The files of a run that is left alone, and how long it takes."""
    run = tmp_path_factory.mktemp("alone") / "run"
    began = time.monotonic()
    done = start(*TRAIN, "--run", str(run))
    out, error = done.communicate(timeout=120)
    assert done.returncode == 0, out + error
    return bits(run), time.monotonic() - began


def stop(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal; return exit code and what the process said."""
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    return process.returncode, error


def steps_of(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"MetaLoss") if metrics.exists() else 0


def wait(process: subprocess.Popen[str], run: Path, generator: random.Random, seconds: float) -> None:
    """Wait for a random step; sometimes for any time, most of which is spent on imports."""
    if generator.random() < 0.25:
        time.sleep(generator.uniform(0.1, seconds))
        return
    target = generator.uniform(steps_of(run) - 10, 120)
    while steps_of(run) < target and process.poll() is None:
        time.sleep(0.001)
    time.sleep(generator.expovariate(200))


def goes_on(run: Path, number: signal.Signals, generator: random.Random, seconds: float, seen: Counter[str]) -> None:
    """Stop a run at random moments, once or more, and bring it to its end."""
    stops = generator.choice([1, 1, 2, 3])
    while True:
        # Killed before run.json was there, it begins anew.
        begun = (run / "run.json").exists()
        process = start(*(["resume", str(run)] if begun else [*TRAIN, "--run", str(run)]))
        if not stops:
            out, error = process.communicate(timeout=120)
            assert process.returncode == 0, out + error
            return
        stops -= 1
        wait(process, run, generator, seconds)
        code, error = stop(process, number)
        seen["within" if 0 < steps_of(run) < 120 and code else "around"] += 1
        assert code in ((0, -number) if number == signal.SIGKILL else (0, 130, -number, 1)), error
        if number == signal.SIGINT and code == 130 and "Train was stopped" in error:
            assert f"aidotnet-py resume {run}" in error
            seen["told"] += 1


def check(tmp_path: Path, number: signal.Signals, rounds: int, alone: tuple[dict[str, bytes], float]) -> None:
    wanted, seconds = alone
    seen: Counter[str] = Counter()
    for i in range(rounds):
        run = tmp_path / f"run{i}"
        goes_on(run, number, random.Random(f"{number.name} {i}"), seconds, seen)
        assert bits(run) == wanted, f"round {i}"
        assert not [path for path in run.iterdir() if path.name.endswith(".part")]
    print(f"{rounds} runs under {number.name}: {dict(seen)}")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_many_random_signals(number: signal.Signals, tmp_path: Path, alone: tuple[dict[str, bytes], float]) -> None:
    check(tmp_path, number, rounds(3), alone)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_a_run_that_ends_at_once(number: signal.Signals, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(*TRAIN, "--run", str(run), "--workers", "2")
    while steps_of(run) < 3 and process.poll() is None:
        time.sleep(0.01)
    # Workers that stay hold the streams open, which this reads to their end.
    code, error = stop(process, number)
    assert code == -number, error
