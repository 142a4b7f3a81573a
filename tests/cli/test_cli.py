"""The command line: what it prints and writes, and how it refuses."""

from __future__ import annotations

import builtins
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import run_command

from aidotnet_py import cli
from aidotnet_py.comparison import ALGORITHMS, PROBLEMS, Comparison, running

TINY = ["--iterations", "2", "--meta-batch", "3", "--test-tasks", "4", "--adaptation-steps", "3"]


@pytest.fixture
def no_memory_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes ten times as long as these trainings; a test of comparisons has it, and the slow ones here."""
    monkeypatch.setattr(running, "_peak_of_a_step", lambda start: 2**20)


def compare(*arguments: str) -> Any:
    return run_command(["compare", *TINY, *arguments])


class TestCompare:
    @pytest.mark.usefixtures("no_memory_measured")
    def test_a_table(self) -> None:
        done = compare("--algorithms", "FOMAML, MAML")
        assert done.exit_code == 0, done.output
        lines = [line for line in done.stdout.splitlines() if "±" in line]
        assert [line.split()[1] for line in lines] == ["random", "transfer", "FOMAML", "MAML"]
        assert "Mean query loss on 4 new tasks of sinusoid" in done.stdout
        assert all(line.count("±") == 3 for line in lines), "after 0, 1 and 3 steps"
        assert all(("MiB" in line) == ("random" not in line) for line in lines)

    @pytest.mark.slow
    def test_algorithms_in_several_options(self) -> None:
        done = compare("--algorithms", "MAML", "--algorithms", "Reptile,FOMAML")
        assert done.exit_code == 0, done.output
        lines = [line for line in done.stdout.splitlines() if "±" in line]
        assert [line.split()[1] for line in lines] == ["random", "transfer", "MAML", "Reptile", "FOMAML"]

    @pytest.mark.slow
    def test_several_seeds_and_their_mean(self, tmp_path: Path) -> None:
        done = compare("--algorithms", "FOMAML", "--seed", "1", "--seed", "2", "--json", str(tmp_path / "found.json"))
        assert done.exit_code == 0, done.output
        rows = [line.replace("│", " ").split() for line in done.stdout.splitlines() if "FOMAML" in line]
        assert [row[1] for row in rows] == ["1", "2", "all"]
        found = Comparison.from_json((tmp_path / "found.json").read_text(encoding="utf-8"))
        means = [float(run.losses[-1].Mean) for run in found.of("FOMAML")]
        width = 1.96 * abs(means[0] - means[1]) / 2
        assert f"{sum(means) / 2:.3f} ± {width:.3f}" in " ".join(rows[2])

    @pytest.mark.slow
    def test_classification_has_tables_of_accuracy(self) -> None:
        done = compare("--data", "digits", "--algorithms", "FOMAML", "--shots", "2")
        assert done.exit_code == 0, done.output
        assert "Query accuracy on 4 new tasks of digits" in done.stdout
        assert "Accuracy one example at a time, after 3 steps" in " ".join(done.stdout.split())
        assert "%" in done.stdout

    @pytest.mark.slow
    @pytest.mark.usefixtures("no_memory_measured")
    @pytest.mark.parametrize("name", ["curves.svg", pytest.param("curves.png", marks=pytest.mark.slow)])
    def test_a_figure_and_the_numbers(self, name: str, tmp_path: Path) -> None:
        figure, numbers = tmp_path / "new" / name, tmp_path / "other" / "found.json"
        done = compare("--algorithms", "FOMAML", "--figure", str(figure), "--json", str(numbers))
        assert done.exit_code == 0, done.output
        assert figure.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")
        assert Comparison.from_json(numbers.read_text(encoding="utf-8")).contestants == ("random", "transfer", "FOMAML")
        assert str(figure) in done.stdout
        assert str(numbers) in done.stdout

    def test_help_names_all_there_is(self) -> None:
        done = run_command(["compare", "--help"], env={"COLUMNS": "80"})
        assert done.exit_code == 0
        assert all(name in done.stdout for name in [*ALGORITHMS, *PROBLEMS])

    def test_without_a_command_it_says_what_there_is(self) -> None:
        done = run_command([])
        assert done.exit_code == 0
        assert "compare" in done.stdout

    def test_the_command_keeps_its_name(self) -> None:
        assert "compare" in run_command(["--help"]).stdout


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--algorithms", "MAML,Newton"], "--algorithms must be names out of iMAML, MAML, FOMAML"),
            (["--algorithms", ""], "--algorithms must be names out of"),
            (
                ["--algorithms", "MAML", "--algorithms", "imaml"],
                "--algorithms must be names out of iMAML, MAML",
            ),
            (["--algorithms", "MAML", "--algorithms", "MAML"], "--algorithms must have no duplicates, got MAML, MAML"),
            (["--data", "cifar"], "--data must be 'sinusoid', 'digits' or 'omniglot', got 'cifar'"),
            (["--data", "omniglot"], "--archive must be the path of a published archive"),
            (
                ["--data", "omniglot", "--archive", "nowhere.zip"],
                "--archive must be an existing zip archive or folder",
            ),
            (["--iterations", "0"], "--iterations must be a whole number from 1 to 1000000000, got 0"),
            (["--test-tasks", "1"], "--test-tasks must be a whole number of at least 2, got 1"),
            (["--seed", "-3"], "--seed must be a whole number from 0 to 4294967295, got -3"),
            (
                ["--data", "digits", "--shots", "1000"],
                "--shots + QueryShots must be at most the examples of a class, got 1000 + 15",
            ),
            (["--figure", "curves.xyz"], "--figure must be a name that ends in one of"),
            (
                ["--iterations", "1000000000000"],
                "--iterations must be a whole number from 1 to 1000000000, got 1000000000000",
            ),
            (
                ["--adaptation-steps", str(10**20)],
                f"--adaptation-steps must be a whole number from 1 to 1000000000, got {10**20}",
            ),
            (["--adaptation-steps", str(10**9)], f"--adaptation-steps must be smaller, got {10**9}: the run would"),
            *(
                ([option, str(size), "--data", data], f"{option} must be smaller, got {size}: the run would take")
                for option in ("--meta-batch", "--shots", "--test-tasks")
                for size in (10**12, 10**20)
                for data in ("sinusoid", "digits")
            ),
            (
                ["--json", "curves.svg", "--figure", "./curves.svg"],
                "--json must be a file of its own, got 'curves.svg', the file of --figure",
            ),
            (
                ["--json", "x/../curves.svg", "--figure", "curves.svg"],
                "--json must be a file of its own, got 'x/../curves.svg', the file of --figure",
            ),
        ],
    )
    def test_in_one_line_before_any_work(
        self, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        done = compare(*arguments)
        assert done.exit_code == 2
        assert done.stderr.startswith(f"aidotnet-py compare: {message}")
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("arguments", "name"),
        [
            (["--iterations", "many"], "--iterations"),
            (["--iterations", "1e3"], "--iterations"),
            (["--seed", ""], "--seed"),
            (["--json", "."], "--json"),
            (["--json", ""], "--json"),
            (["--json"], "--json"),
            (["--nonsense"], "--nonsense"),
            (["more"], "more"),
        ],
    )
    def test_what_typer_refuses_is_one_line_too(self, arguments: list[str], name: str) -> None:
        done = compare(*arguments)
        assert done.exit_code == 2
        assert done.stderr.startswith("aidotnet-py: ")
        assert name in done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""

    @pytest.mark.parametrize("path", ["here/found.json", "here/more/found.json"])
    def test_a_file_where_a_folder_is_wanted(self, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "here").write_text("kept", encoding="utf-8")
        for option, name in (("--json", path), ("--figure", path.replace("json", "png"))):
            done = compare("--json", "new/found.json", option, name)
            assert done.exit_code == 2
            assert (
                done.stderr
                == f"aidotnet-py compare: {option} must be in a folder, got {name!r}, where 'here' is a file\n"
            )
        assert [entry.name for entry in tmp_path.iterdir()] == ["here"]

    def test_one_file_for_both(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        done = compare("--json", "both.svg", "--figure", str(tmp_path / "both.svg"))
        assert done.exit_code == 2
        assert (
            done.stderr
            == "aidotnet-py compare: --json must be a file of its own, got 'both.svg', the file of --figure\n"
        )

    def test_a_file_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        done = compare("--json", "n" * 300 + ".json")
        assert done.exit_code == 2
        assert "File name too long" in done.stderr
        assert done.stdout == ""

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    def test_a_device_that_takes_nothing_is_found_before_the_work(self) -> None:
        done = compare("--json", "/dev/full")
        assert done.exit_code == 2
        assert done.stderr == "aidotnet-py compare: [Errno 28] No space left on device: '/dev/full'\n"
        assert done.stdout == ""

    def test_a_folder_without_room_is_found_before_the_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(folder: Path, _: int) -> Any:
            raise OSError(28, "No space left on device", str(folder))

        monkeypatch.setattr("aidotnet_py.whole_files._new_part", full)
        done = compare("--json", str(tmp_path / "found.json"))
        assert (done.exit_code, done.stdout) == (2, "")
        assert "No space left on device" in done.stderr
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
    def test_a_link_from_one_file_to_the_other(
        self, link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("curves.svg").touch()
        getattr(Path("found.json"), link)("curves.svg")
        done = compare("--json", "found.json", "--figure", "curves.svg")
        assert done.exit_code == 2
        assert (
            done.stderr
            == "aidotnet-py compare: --json must be a file of its own, got 'found.json', the file of --figure\n"
        )
        assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.svg", "found.json"]

    @pytest.mark.parametrize(
        "arguments", ["compare --json found.json", "train sinusoid --run r", "resume r", "evaluate r"]
    )
    def test_a_working_folder_that_is_gone(
        self, arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        done = run_command(arguments.split())
        assert done.exit_code == 2
        told = "the working folder must exist, got one that was removed; change to another folder"
        assert done.stderr == f"aidotnet-py {arguments.split()[0]}: {told}\n"

    def test_memory_that_runs_out_is_told_in_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def compare_all(settings: Any, **_: Any) -> Any:
            raise MemoryError

        monkeypatch.setattr("aidotnet_py.cli.comparing.run_comparison", compare_all)
        done = compare()
        assert done.exit_code == 1
        assert done.stderr == (
            "aidotnet-py compare: this machine has too little memory for the run; use fewer tasks or shots\n"
        )

    def test_ctrl_c_ends_it_as_shells_have_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def compare_all(settings: Any, **_: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr("aidotnet_py.cli.comparing.run_comparison", compare_all)
        assert compare().exit_code == 130

    def test_a_training_that_diverges(self, monkeypatch: pytest.MonkeyPatch) -> None:
        problem = PROBLEMS["sinusoid"]
        monkeypatch.setitem(vars(problem), "options", {**problem.options, "InnerLearningRate": 1e30})
        done = compare("--algorithms", "FOMAML")
        assert done.exit_code == 1
        assert done.stderr.startswith("aidotnet-py compare: random from seed 0: ")


class TestWithoutExtras:
    def forbid(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let imports of a package fail as where it is not installed."""
        original = builtins.__import__

        def importing(wanted: str, *rest: Any, **named: Any) -> Any:
            if wanted.split(".")[0] == name:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return original(wanted, *rest, **named)

        for module in [m for m in sys.modules if m.split(".")[0] == name or m.startswith("aidotnet_py.cli.")]:
            monkeypatch.delitem(sys.modules, module)
            if module.startswith("aidotnet_py.cli."):
                # The package would give it without an import.
                monkeypatch.delattr(cli, module.rpartition(".")[2])
        monkeypatch.setattr(builtins, "__import__", importing)

    @pytest.mark.parametrize("name", ["typer", "rich"])
    def test_the_command_says_what_to_type(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forbid(name, monkeypatch)
        with pytest.raises(SystemExit, match=rf'^aidotnet-py needs {name}: pip install "aidotnet-py\[cli\]"$') as error:
            cli.main()
        assert error.value.code

    def test_another_error_of_an_import_is_not_hidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forbid("tracemalloc", monkeypatch)
        for module in [m for m in sys.modules if m.startswith("aidotnet_py.comparison")]:
            monkeypatch.delitem(sys.modules, module)
        with pytest.raises(ModuleNotFoundError, match="tracemalloc"):
            cli.main()

    @pytest.mark.parametrize(
        ("name", "arguments", "extra"),
        [("matplotlib", ["--figure", "curves.png"], "plot"), ("sklearn", ["--data", "digits"], "data")],
    )
    def test_what_only_some_runs_need(
        self, name: str, arguments: list[str], extra: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, f"{name}.figure", None)
        monkeypatch.setitem(sys.modules, f"{name}.datasets", None)
        # Imported by an earlier test, it would need no matplotlib any more.
        monkeypatch.delitem(sys.modules, "aidotnet_py.plotting.cell_figure", raising=False)
        done = compare("--algorithms", "FOMAML", *arguments)
        assert done.exit_code == 2
        assert f'pip install "aidotnet-py[{extra}]"' in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("no_memory_measured")
def test_the_script_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["aidotnet-py", "compare", *TINY, "--algorithms", "FOMAML"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 0
    assert "FOMAML" in capsys.readouterr().out


def test_and_so_does_the_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["aidotnet-py", "compare", "--help"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module("aidotnet_py.cli", run_name="__main__", alter_sys=False)
    assert done.value.code == 0
    assert "--algorithms" in capsys.readouterr().out


def test_ctrl_c_while_typer_reads_the_commands_ends_it_as_shells_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aidotnet_py.cli.app.app", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 130
