"""`compare --resume`, `merge`, `bench`, `demo`, `--log` and completion, as a person meets them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import run_command

from aidotnet_py.cli import comparing
from aidotnet_py.cli.new_files import require_new_files, write_output
from aidotnet_py.comparison import Comparison, running

TINY = ["--iterations", "2", "--meta-batch", "3", "--test-tasks", "4", "--adaptation-steps", "3"]


@pytest.fixture(autouse=True)
def no_memory_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes ten times as long as these trainings, and is another test's."""
    monkeypatch.setattr(running, "_peak_of_a_step", lambda start: 1)


def invoke(*arguments: str) -> Any:
    return run_command(arguments)


def curves(file: Path) -> list[Any]:
    found = Comparison.from_json(file.read_text(encoding="utf-8"))
    return [(run.algorithm, run.seed, run.losses, run.accuracies) for run in found.runs]


class TestResume:
    @pytest.mark.slow
    def test_ctrl_c_says_how_to_go_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file, wanted = tmp_path / "found.json", tmp_path / "wanted.json"
        command = ["compare", *TINY, "--algorithms", "FOMAML"]
        assert invoke(*command, "--json", str(wanted)).exit_code == 0
        keep = comparing._KeptRuns.__call__

        def stopping(kept: comparing._KeptRuns, so_far: Comparison) -> None:
            keep(kept, so_far)
            if len(so_far.runs) == 2:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(comparing._KeptRuns, "__call__", stopping)
            stopped = invoke(*command, "--json", str(file))
        assert stopped.exit_code == 130
        assert stopped.stderr.splitlines()[-1] == (
            f"aidotnet-py compare: stopped, {file} has the runs that ended; the same command with --resume goes on"
        )
        assert len(curves(file)) == 2
        assert invoke(*command, "--json", str(file), "--resume").exit_code == 0
        assert curves(file) == curves(wanted)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
    def test_ctrl_c_says_that_a_pipe_has_no_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It said that the pipe had them, and that --resume goes on."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)

        def compare_none(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("aidotnet_py.cli.comparing.run_comparison", compare_none)
        stopped = invoke("compare", *TINY, "--json", str(pipe))
        assert stopped.stderr.splitlines()[-1] == (
            "aidotnet-py compare: stopped, no run is kept; with --json FILE they would be"
        )

    def test_ctrl_c_keeps_the_runs_of_later_seeds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "found.json"
        command = ["compare", *TINY, "--seed", "0", "--seed", "1", "--json", str(file)]
        assert invoke(*command, "--algorithms", "FOMAML").exit_code == 0
        before, keep = curves(file), comparing._KeptRuns.__call__

        def stopping(kept: comparing._KeptRuns, so_far: Comparison) -> None:
            keep(kept, so_far)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(comparing._KeptRuns, "__call__", stopping)
            assert invoke(*command, "--algorithms", "FOMAML,Reptile", "--resume").exit_code == 130
        assert [run for run in curves(file) if run[0] != "Reptile"] == before
        assert len(curves(file)) == len(before) + 1

    @pytest.mark.slow
    def test_a_killed_process_goes_on(self, tmp_path: Path) -> None:
        file, wanted = tmp_path / "found.json", tmp_path / "wanted.json"
        command = ["compare", *TINY, "--algorithms", "FOMAML,MAML", "--json"]
        process = subprocess.Popen(
            [sys.executable, "-m", "aidotnet_py", *command, str(file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not (file.exists() and file.stat().st_size):
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert invoke(*command, str(wanted)).exit_code == 0
        done = invoke(*command, str(file), "--resume")
        assert done.exit_code == 0, done.output
        assert curves(file) == curves(wanted)

    def test_an_empty_file_has_no_runs(self, tmp_path: Path) -> None:
        file = tmp_path / "found.json"
        file.touch()
        assert invoke("compare", *TINY, "--algorithms", "FOMAML", "--json", str(file), "--resume").exit_code == 0
        assert len(curves(file)) == 3

    def test_refusals(self, tmp_path: Path) -> None:
        file = tmp_path / "found.json"
        assert invoke("compare", *TINY, "--resume").stderr == (
            "aidotnet-py compare: --resume must have a --json file to take runs from, got none\n"
        )
        file.write_text("{}")
        broken = invoke("compare", *TINY, "--json", str(file), "--resume")
        assert broken.exit_code == 2
        assert "must be a file that compare --json wrote" in broken.stderr
        assert file.read_text() == "{}"
        file.unlink()
        assert invoke("compare", *TINY, "--algorithms", "FOMAML", "--json", str(file)).exit_code == 0
        before = file.read_bytes()
        again = invoke("compare", *TINY, "--algorithms", "FOMAML", "--json", str(file))
        assert again.exit_code == 2
        assert again.stderr == (
            f"aidotnet-py compare: --json must be a new or empty file, got {str(file)!r}; pass --resume to keep its "
            "runs, or remove it\n"
        )
        assert file.read_bytes() == before
        other = invoke("compare", *TINY, "--shots", "7", "--algorithms", "FOMAML", "--json", str(file), "--resume")
        assert other.exit_code == 2
        assert other.stderr == "aidotnet-py compare: the --json file must have shots 7, got 10\n"

    def test_runs_that_another_command_wrote_meanwhile_are_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The last of two commands for one file had its runs there, and those of the first were lost."""
        file, elsewhere = tmp_path / "found.json", tmp_path / "elsewhere.json"
        command = ["compare", *TINY, "--algorithms", "FOMAML", "--json"]
        assert invoke(*command, str(elsewhere), "--seed", "7").exit_code == 0
        keep = comparing._KeptRuns.__call__

        def interfering(kept: comparing._KeptRuns, so_far: Comparison) -> None:
            if len(so_far.runs) == 2:
                file.write_bytes(elsewhere.read_bytes())
            keep(kept, so_far)

        with monkeypatch.context() as patched:
            patched.setattr(comparing._KeptRuns, "__call__", interfering)
            refused = invoke(*command, str(file))
        assert refused.exit_code == 2
        assert refused.stderr.startswith("aidotnet-py compare: --json must be the file of one command at a time, got ")
        assert "which another one has written meanwhile; give each command a file of its own" in refused.stderr
        assert curves(file) == curves(elsewhere)

    def test_runs_that_would_be_lost_are_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "found.json"
        assert invoke("compare", *TINY, "--algorithms", "FOMAML", "--json", str(file)).exit_code == 0
        before = file.read_bytes()
        command = ["compare", *TINY, "--algorithms", "Reptile", "--seed", "2", "--json", str(file), "--resume"]
        refused = invoke(*command)
        assert refused.exit_code == 2
        assert refused.stderr == (
            "aidotnet-py compare: the --json file must have only algorithms and seeds of the settings, got also "
            "FOMAML, seed 0; add them, or keep the new runs in another file\n"
        )
        assert file.read_bytes() == before


class TestMerge:
    @pytest.mark.slow
    def test_two_machines(self, tmp_path: Path) -> None:
        files = [tmp_path / f"{seed}.json" for seed in (0, 1)]
        for seed, file in enumerate(files):
            assert (
                invoke("compare", *TINY, "--algorithms", "FOMAML", "--seed", str(seed), "--json", str(file)).exit_code
                == 0
            )
        both, figure = tmp_path / "both.json", tmp_path / "both.png"
        done = invoke("merge", *map(str, files), "--json", str(both), "--figure", str(figure))
        assert done.exit_code == 0, done.output
        assert "FOMAML" in done.stdout
        assert " all " in done.stdout
        assert curves(both) == curves(files[0]) + curves(files[1])
        assert figure.read_bytes().startswith(b"\x89PNG")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
    def test_the_check_before_the_work_leaves_a_pipe_to_it(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            polled = select.poll()
            polled.register(reader, select.POLLIN)
            require_new_files({"--json": pipe}, streams=["--json"])
            # A reader that waits would be told of the end here.
            assert polled.poll(0) == []
            write_output(pipe, b"runs")
            assert os.read(reader, 10) == b"runs"
        finally:
            os.close(reader)

    def test_refusals(self, tmp_path: Path) -> None:
        file = tmp_path / "a.json"
        assert invoke("compare", *TINY, "--algorithms", "FOMAML", "--json", str(file)).exit_code == 0
        assert "must be different" in invoke("merge", str(file), str(file)).stderr
        before = file.read_bytes()
        over = invoke("merge", str(file), "--json", str(file))
        assert over.exit_code == 2
        assert over.stderr.endswith(f"--json must be a file of its own, got {str(file)!r}, one of the inputs\n")
        assert file.read_bytes() == before
        other, joined = tmp_path / "other.json", tmp_path / "joined.json"
        text = before.decode()
        other.write_text(text.replace('"seed": 0', '"seed": 7').replace("[\n   0\n  ]", "[\n   7\n  ]"))
        held = other.read_bytes()
        over = invoke("merge", str(file), "--json", str(other))
        assert over.exit_code == 2
        assert "which has another random from seed 7; give another name, or remove it" in over.stderr
        assert other.read_bytes() == held
        for _ in range(2):
            # The same again is no loss.
            assert invoke("merge", str(file), str(other), "--json", str(joined)).exit_code == 0
        (tmp_path / "notes").write_text("mine")
        assert "must be a file that compare" in invoke("merge", str(file), "--json", str(tmp_path / "notes")).stderr
        assert (tmp_path / "notes").read_text() == "mine"
        missing = invoke("merge", str(file), str(tmp_path / "b.json"))
        assert (missing.exit_code, missing.stderr.count("\n")) == (2, 1)
        (tmp_path / "b.json").write_bytes(b"\xff\xfe")
        assert "b.json' must be a file that compare --json wrote" in invoke("merge", str(tmp_path / "b.json")).stderr
        whole = json.loads(file.read_text())
        file.write_text(json.dumps({**whole, "runs": whole["runs"][:2]}))
        early = invoke("merge", str(file))
        assert early.exit_code == 2
        assert early.stderr.startswith("aidotnet-py merge: comparisons must have runs of at least one algorithm, got")


class TestMeasuring:
    @pytest.mark.slow
    def test_bench(self) -> None:
        done = invoke("bench", "--algorithms", "FOMAML,ANIL", "--seconds", "0.01")
        assert done.exit_code == 0, done.output
        assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("│")] == ["FOMAML", "ANIL"]
        found = json.loads(invoke("bench", "--algorithms", "FOMAML", "--seconds", "0.01", "--json").stdout)
        assert found["algorithms"]["FOMAML"]["step_ms"] > 0
        assert found["aidotnet_py"]

    def test_bench_refuses(self) -> None:
        for arguments in (["--algorithms", "MAMBA"], ["--seconds", "0"], ["--data", "omniglot"]):
            done = invoke("bench", *arguments)
            assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output

    @pytest.mark.slow
    def test_demo(self) -> None:
        done = invoke("demo")
        assert done.exit_code == 0, done.output
        told = " ".join(done.stdout.split())
        losses = [
            float(word.strip(",.;")) for word in told.split("leave a squared error of ")[1].split() if word[0].isdigit()
        ]
        random, transfer, maml, imaml = losses
        assert maml < imaml < transfer < random
        assert maml < 0.5


class TestLogs:
    @pytest.mark.slow
    def test_of_train_and_resume(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        done = invoke("train", "sinusoid", "--run", str(run), "--iterations", "2", "--log", "csv, json")
        assert done.exit_code == 0, done.output
        assert len((run / "metrics.csv").read_text().splitlines()) == 3
        done = invoke("resume", str(run), "--set", "options.NumMetaIterations=4")
        assert done.exit_code == 0, done.output
        assert len((run / "metrics.csv").read_text().splitlines()) == 5

    @pytest.mark.parametrize(
        ("given", "told"), [("cvs", "got 'cvs'"), ("csv,csv", "log must have no duplicates, got csv, csv")]
    )
    def test_refusals(self, given: str, told: str, tmp_path: Path) -> None:
        done = invoke("train", "sinusoid", "--run", str(tmp_path / "run"), "--log", given)
        assert done.exit_code == 2
        assert told in done.stderr
        assert not (tmp_path / "run").exists()


class TestCompletion:
    @pytest.mark.parametrize(
        ("typed", "wanted"),
        [
            ("train sin", ["sinusoid"]),
            ("train --algorithm iM", ["iMAML"]),
            ("compare --algorithms iMAML,Re", ["iMAML,Reptile"]),
            ("train --log te", ["tensorboard"]),
            ("comp", ["compare"]),
        ],
    )
    def test_in_bash(self, typed: str, wanted: list[str]) -> None:
        words = f"aidotnet-py {typed}"
        environment = {
            "_AIDOTNET_PY_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        done = run_command([], prog_name="aidotnet-py", env=environment)
        assert done.stdout.split() == wanted
