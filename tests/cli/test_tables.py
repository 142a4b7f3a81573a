"""The tables of a comparison: all of their numbers are there, however narrow the place."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import run_command

from aidotnet_py.cli.tables import print_tables, tables_of
from aidotnet_py.comparison import Comparison, ComparisonSettings, Run
from aidotnet_py.meta_learning import ConfidenceInterval


def interval(mean: float) -> ConfidenceInterval[np.float64]:
    return ConfidenceInterval(np.float64(mean), np.float64(0.125))


def comparison(data: str, seeds: int) -> Comparison:
    settings = ComparisonSettings.of(data, algorithms=["MAML"], adaptation_steps=4, seeds=range(seeds))
    accuracies = None if data == "sinusoid" else (interval(0.25),) * 5
    single = None if data == "sinusoid" else interval(0.75)
    return Comparison(
        settings,
        tuple(
            Run(name, seed, tuple(map(interval, range(5))), accuracies, 1.5, 2**20, single)
            for seed in range(seeds)
            for name in ("embedded-centroid", "MAML")
        ),
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestPlaceThatIsTooNarrow:
    def test_a_file_has_the_numbers_of_all_seeds(self, tmp_path: Path) -> None:
        (tmp_path / "found.json").write_text(comparison("digits", 12).to_json(), encoding="utf-8")
        done = run_command(["merge", str(tmp_path / "found.json")])
        assert done.exit_code == 0, done.output
        assert "…" not in done.stdout
        assert done.stdout.count("75.0% ± 12.5%") == 24

    @pytest.mark.parametrize("columns", ["30", "80", "200"])
    def test_a_terminal_has_names_and_intervals(self, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr(sys, "stdout", shown := Terminal())
        print_tables(tables_of(comparison("digits", 2)))
        assert "…" not in shown.getvalue()
        assert shown.getvalue().count("4.000 ± 0.125") == 4
        assert shown.getvalue().count("embedded-centroid") == 7
