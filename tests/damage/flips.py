"""Random single bit flips over every kind of file, and what becomes of each.

    harmless   what a server reads is what it read before (free room, unused bytes, a lock's text, a ballast)
    detected   the doctor names damage, or opening or reading is refused
    missed     something else is read than before, and nothing says so: a violation

A flip counts as harmless only by comparison of everything that is read. Every flip is printed by its place and can be
made again: ``python -m tests.damage --flips N --seed S``.
"""

from __future__ import annotations

import logging
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.damage.directories import contents, copy_of, diagnose, files_of, make

KINDS = ("database", "log", "manifest", "marker", "lock", "ballast")
# Of a hundred flips; within a kind every bit is as likely as the next.
_WEIGHTS = {"database": 60, "log": 22, "manifest": 6, "marker": 6, "lock": 4, "ballast": 2}


@dataclass
class Result:
    """``by_kind``: (kind of file, outcome) -> count. ``noticed``: by "doctor", "load", or both."""

    flips: int = 0
    harmless: int = 0
    detected: int = 0
    missed: list[str] = field(default_factory=list)
    by_kind: Counter[tuple[str, str]] = field(default_factory=Counter)
    noticed: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Of the flips that are not harmless, the part that was noticed."""
        harmful = self.flips - self.harmless
        return self.detected / harmful if harmful else 1.0

    def table(self) -> str:
        """For a report, in Markdown."""
        rows = ["| file | flips | harmless | detected | missed |", "|---|---|---|---|---|"]
        for kind in KINDS:
            counts = [self.by_kind[kind, outcome] for outcome in ("harmless", "detected", "missed")]
            rows.append(f"| {kind} | {sum(counts)} | {counts[0]} | {counts[1]} | {counts[2]} |")
        return "\n".join(rows)


def kind_of(name: str) -> str:
    for end, kind in ((".db", "database"), ("-wal", "log"), (".json", "manifest"), (".clean", "marker")):
        if name.endswith(end):
            return kind
    return "ballast" if name.endswith(".ballast") else "lock"


class Damage:
    """A clean and a killed data directory, and copies of them to flip bits in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.sources = {"clean": folder / "clean", "killed": folder / "killed"}
        self.before: dict[str, Any] = {}
        self.places: dict[str, list[tuple[str, str]]] = {kind: [] for kind in KINDS}
        for state, source in self.sources.items():
            make(source, clean=state == "clean")
            self.before[state] = self._read(source)
            report = diagnose(source, deep=True)
            assert not report.damaged, report.findings
            for name in files_of(source):
                self.places[kind_of(name)].append((state, name))
        assert all(self.places.values()), self.places

    def _read(self, source: Path) -> dict[str, Any]:
        return contents(copy_of(source, self._folder / "read"))

    def flip(self, state: str, name: str, bit: int) -> tuple[str, str]:
        """The outcome of one flip, and who noticed it."""
        target = copy_of(self.sources[state], self._folder / "flipped")
        _flip(target / name, bit)
        told = diagnose(target).damaged
        after = contents(target)
        if after == self.before[state]:
            # Told all the same: it is harmless for what is read, and worth knowing.
            return "harmless", "doctor" if told else ""
        refused = "refused" in repr(after)
        if told or refused:
            return "detected", "both" if told and refused else "doctor" if told else "load"
        return "missed", ""


def _flip(path: Path, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def run(flips: int, seed: int, progress: Callable[[int, Result], None] = lambda done, result: None) -> Result:
    """Make so many single flips, by lot; the seed decides which. Needs about 30 ms each and a few MB of /dev/shm."""
    dice = random.Random(seed)
    result = Result()
    shm = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with _quiet(), tempfile.TemporaryDirectory(dir=shm, prefix="actord-damage-") as folder:
        damage = Damage(Path(folder))
        for done in range(1, flips + 1):
            [kind] = dice.choices(KINDS, [_WEIGHTS[kind] for kind in KINDS])
            state, name = dice.choice(damage.places[kind])
            bit = dice.randrange((damage.sources[state] / name).stat().st_size * 8)
            outcome, by = damage.flip(state, name, bit)
            result.flips += 1
            result.by_kind[kind, outcome] += 1
            if by and outcome == "detected":
                result.noticed[by] += 1
            if outcome == "harmless":
                result.harmless += 1
            elif outcome == "detected":
                result.detected += 1
            else:
                result.missed.append(f"{state} {name} bit {bit}")
            progress(done, result)
    return result


@contextmanager
def _quiet() -> Iterator[None]:
    """What the stores say about thousands of flips is no news."""
    logger = logging.getLogger("actord.storage")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
