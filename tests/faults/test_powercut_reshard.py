"""Power cuts at every point of ``actord reshard``, by replay of every operation: see ``powercut``.

Each state is used as an operator would: a server is started on it, what can be given up is given up (on a copy), and
the command is run again. So is what a run leaves that met a failed sync or a full disk, and its successor.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from actord.errors import ActordError, DataDirError
from actord.shards.slots import slot_of, slot_range
from actord.storage import datadir, reshard

from tests.faults import powercut
from tests.storage import filled
from tests.support.lots import LONG

pytestmark = pytest.mark.skipif(bool(powercut.unavailable()), reason=powercut.unavailable())

WORKLOAD = os.path.join(os.path.dirname(__file__), "reshard_workload.py")
AFTER = 3
SEED = 20_260_301
POINTS = sys.maxsize if LONG else 12
# Calls that fail, and what with: syncs of the journal, of an old shard, of a new one; no room for a new one.
FAULTS = (
    [f"fsync:error=EIO:when={number}" for number in range(2, 42)]
    + [f"pwrite64:error=ENOSPC:when={number}" for number in range(2, 200, 7)]
    if LONG
    else ["fsync:error=EIO:when=30", "pwrite64:error=ENOSPC:when=150"]
)


@pytest.fixture
def scratch() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=powercut.scratch_parent()) as directory:
        yield directory


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "data"
    filled.fill(path)
    return path


@pytest.fixture(scope="module")
def expected(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    copy = shutil.copytree(made, tmp_path_factory.mktemp("expected") / "data")
    return filled.content(copy, filled.BEFORE, received=True)


def record(made: Path, data: Path, mode: str, *, inject: list[str] | None = None) -> powercut.Log:
    shutil.copytree(made, data)
    argv = [sys.executable, WORKLOAD, str(data), str(AFTER), mode]
    log = powercut.record(argv, str(data), inject=inject)
    assert log.returncode == 0
    return log


class Audit:
    """Is the directory the old one, the new one, or refused; and does it get to its end with all that was there?"""

    def __init__(self, expected: dict[str, Any]) -> None:
        self.expected = expected
        self.seen: dict[str, int] = {"old": 0, "refused": 0, "given up": 0, "ready": 0, "new": 0}

    @staticmethod
    def acks(send: powercut.Send) -> int:
        return send.data.count(b"shards became") + send.data.count(b"shards already")

    def check(self, directory: str, state: powercut.State) -> str | None:
        path = Path(directory)
        try:
            return self.served(path, state) or self.given_up(path) or self.ended(path)
        except ActordError as error:
            return f"can't be used: {error}"
        except AssertionError as error:
            return f"is no longer what it was: {str(error) or repr(error)}"

    def served(self, path: Path, state: powercut.State) -> str | None:
        """A server starts on all of it, or is told to wait."""
        try:
            datadir.open_data_dir(str(path), shards=1, ballast=0).close()
        except DataDirError as error:
            if "actord reshard" not in error.detail:
                raise
            self.seen["refused"] += 1
            return "is refused after the command had ended" if state.ack_count else None
        shards = datadir.read_manifest(str(path)).shards
        new = shards == AFTER
        if state.ack_count and not new:
            return "has the old shards after the command had ended"
        self.seen["new" if new else "old"] += 1
        return self.compare(path, shards, "as a server finds it")

    def given_up(self, path: Path) -> str | None:
        journal = reshard.read_journal(str(path))
        if journal is None:
            return None
        if journal.state == "ready":
            self.seen["ready"] += 1
            try:
                reshard.cancel(str(path))
            except DataDirError:
                return None
            return "was given up when its new shards were complete"
        self.seen["given up"] += 1
        copy = Path(shutil.copytree(path, f"{path}.given-up"))
        try:
            reshard.cancel(str(copy))
            return self.compare(copy, filled.BEFORE, "given up") or self.tidy(copy)
        finally:
            shutil.rmtree(copy)

    def ended(self, path: Path) -> str | None:
        reshard.reshard(str(path), AFTER, slot_of=slot_of, slot_range=slot_range)
        return self.compare(path, AFTER, "when run again") or self.tidy(path)

    def compare(self, path: Path, shards: int, when: str) -> str | None:
        found = filled.content(path, shards, received=shards == filled.BEFORE)
        wrong = [name for name in filled.NAMES if found[name] != self.expected[name]]
        return f"{when}: {wrong[0]} and {len(wrong) - 1} others are not what they were" if wrong else None

    def tidy(self, path: Path) -> str | None:
        left = sorted(os.listdir(path))
        return None if left == ["lock", "manifest.json", "shards"] else f"is left with {left}"


def points_of(log: powercut.Log, most: int) -> list[int]:
    """All from where the new shards are complete, and ``most`` of those before that."""
    journals = [
        number
        for number, event in enumerate(log.events)
        if isinstance(event, powercut.Name) and event.path == "reshard.json.tmp"
    ]
    ready = journals[1] if len(journals) > 1 else len(log.events) // 2
    before = random.Random(SEED).sample(range(1, ready), min(most, ready - 1))
    return [0, *sorted(before), *range(ready, len(log.events) + 1)]


def replay(
    log: powercut.Log, expected: dict[str, Any], scratch: str, most: int, kinds: tuple[str, ...] = powercut.APART
) -> tuple[int, list[str], Audit]:
    audit = Audit(expected)
    found = powercut.states(log, SEED, acks=audit.acks, points=points_of(log, most), kinds=kinds)
    total, wrong = powercut.audit(found, audit.check, scratch=scratch)
    return total, wrong, audit


def test_no_power_cut_loses_or_doubles_anything_and_the_command_gets_to_its_end(
    made: Path, expected: dict[str, Any], tmp_path: Path, scratch: str
) -> None:
    log = record(made, tmp_path / "data", "right")
    total, wrong, audit = replay(log, expected, scratch, POINTS)
    assert wrong == []
    assert total > 60
    assert min(audit.seen.values()) > 0, f"each phase has to be among the states: {audit.seen}"


@pytest.mark.parametrize("bug", ["no-fsync", "lazy-journal", "manifest-first", "journal-gone"])
def test_the_replay_catches(bug: str, made: Path, expected: dict[str, Any], tmp_path: Path, scratch: str) -> None:
    log = record(made, tmp_path / "data", bug)
    total, wrong, _ = replay(log, expected, scratch, 4, kinds=("dropped",))
    assert wrong, f"the planted bug was not caught in {total} states"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_fails_is_told_and_the_next_run_trusts_nothing_of_the_first(
    fault: str, made: Path, expected: dict[str, Any], tmp_path: Path, scratch: str
) -> None:
    log = record(made, tmp_path / "data", "twice", inject=[fault])
    assert sum(map(log.stdout.count, (b"shards became", b"shards already"))) == 1  # by the second run
    total, wrong, _ = replay(log, expected, scratch, 20, kinds=("dropped", "apart"))
    assert wrong == []
    assert total > 10
