"""A whole contest: workload after workload, agreement first, then the race, tables, targets, and a file of it all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.arena import agreement, race, setting_times
from benchmarks.machine import described
from benchmarks.report import Target, agreement_table, race_table, targets_of, targets_table
from benchmarks.settings import settings_of
from benchmarks.workloads import workload

__all__ = ["Contest"]

# Beyond this the contestants do not do the same work. Float64 leaves them 1e-14 apart.
_AGREEMENT = 1e-9


@dataclass(frozen=True)
class Contest:
    """Who races, on which device of which machine, for how many rounds of how many seconds, and where it is written.

    Settings, tables and targets are those for ``rules``, which is the device unless a race on another is rehearsed.
    With ``tune``, each contestant's settings are tried first, and the fastest one races; without, the first.
    """

    console: Console
    contestants: tuple[str, ...]
    device: str
    rules: str
    about: dict[str, Any]
    rounds: int
    seconds: float
    tune: bool
    path: Path | None

    def run(self, works: Iterable[str]) -> None:
        """All workloads; what was found so far is in the file after each."""
        self.console.print(described(self.about), highlight=False)
        results: list[Any] = []
        targets: list[Target] = []
        distances: dict[tuple[Any, ...], dict[str, float]] = {}
        problems: list[str] = []
        for work in works:
            failed: dict[str, str] = {}
            result, about_it = self._measure(work, distances, failed)
            results.append(result)
            targets += about_it
            problems += [f"{work}: {name}: {why}" for name, why in failed.items()]
            if self.path is not None:
                found = {
                    "machine": self.about,
                    "workloads": results,
                    "targets": [asdict(t) | {"met": t.met} for t in targets],
                    "failures": problems,
                }
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_text(json.dumps(found, indent=1) + "\n")
        if targets:
            targets_table(self.console, targets)
        if problems:
            raise SystemExit("\n".join(["not all that was to be measured was:", *problems]))

    def _measure(
        self, work: str, known: dict[tuple[Any, ...], dict[str, float]], failed: dict[str, str]
    ) -> tuple[Any, list[Target]]:
        """One workload: what was measured, and the targets that it is about; who failed is left out."""
        entries, tried = self._entries(work, failed)
        # Two tasks show as well as many what is computed.
        pair = re.sub(r"^([a-z]+)-\d+", r"\1-2", work)
        key = (pair, *entries)
        if key not in known:
            known[key] = agreement(entries, pair, self.device, failed)
        distances = known[key]
        for name, setting in entries:
            if f"{name} {setting}" not in distances:
                failed.setdefault(name, f"it did not compute {pair}")
        entries = [(name, setting) for name, setting in entries if name not in failed]
        if any(not distance <= _AGREEMENT for distance in distances.values()):
            agreement_table(self.console, pair, distances)
            failed["agreement"] = "the contestants do not compute the same; times would mean nothing"
            entries = []
        found = race(
            entries,
            work,
            rounds=self.rounds,
            seconds=self.seconds,
            device=self.device,
            count_launches=self.rules == "cuda",
            failed=failed,
        )
        for name, why in failed.items():
            self.console.print(f"{work}: {name}: {why}", highlight=False)
        if found:
            best = max(distances.values())
            self.console.print(f"{pair}: float64 outcomes agree to {best:.0e}", highlight=False)
            race_table(self.console, found, self.about["peaks"], self.rules)
        return {
            "workload": work,
            "tasks": workload(work).tasks,
            "float64_distances": distances,
            "settings_tried": tried,
            "contestants": [asdict(one) for one in found],
        }, targets_of(found, self.rules) if found else []

    def _entries(self, work: str, failed: dict[str, str]) -> tuple[list[tuple[str, str]], dict[str, dict[str, float]]]:
        """Contestants and their settings, and, when they were tuned, the seconds a step of each."""
        entries: list[tuple[str, str]] = []
        tried: dict[str, dict[str, float]] = {}
        for name in self.contestants:
            settings = settings_of(name, work, self.rules)
            if not settings:
                continue
            best = settings[0]
            if self.tune and len(settings) > 1:
                times = tried[name] = setting_times(name, settings, work, self.device)
                if not times:
                    failed[name] = "no setting of it works"
                    continue
                best = min(times, key=times.__getitem__)
                said = ", ".join(f"{s} {1e3 * t:.1f}" for s, t in sorted(times.items(), key=lambda pair: pair[1]))
                self.console.print(f"{work}: {name}, ms a step: {said}", highlight=False)
            entries.append((name, best))
        return entries, tried
