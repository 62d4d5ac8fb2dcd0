"""Power cuts at every point of a backup of a directory that is written to, of a second one that builds on it, of one
after a crash, and of ``actord restore``, by replay of every operation: see ``powercut`` and ``backup_workload``.

In each state: what was acknowledged is in the directory; a folder that has a backup's name, or that ``verify`` accepts,
is a whole backup of its moment; a directory that a server opens is all of the backup that it was made of.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from actord.errors import ActordError, DataDirError
from actord.storage import datadir
from actord.storage.backup_files import problems_of, read_backup
from actord.storage.restore import restore

from tests.faults import powercut
from tests.storage import filled
from tests.support.lots import LONG

pytestmark = pytest.mark.skipif(bool(powercut.unavailable()), reason=powercut.unavailable())

REPOSITORY = Path(__file__).parents[2]
WORKLOAD = os.path.join(os.path.dirname(__file__), "backup_workload.py")
SEED = 20_260_302
POINTS = sys.maxsize if LONG else 70
WRITTEN = ("n", "much")  # the keys that the workload writes to
BACKUPS = ("first", "second", "third")

Check = Callable[[Path], str | None]


@pytest.fixture
def scratch() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=powercut.scratch_parent()) as directory:
        yield directory


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "root"
    root.mkdir()
    filled.fill(root / "data")
    filled.content(root / "data", filled.BEFORE)  # closes it cleanly
    (root / "data" / datadir.TOKENS_NAME).write_text("{}")
    return root


@pytest.fixture(scope="module")
def expected(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    copy = shutil.copytree(made / "data", tmp_path_factory.mktemp("expected") / "data")
    return filled.content(copy, filled.BEFORE)


def record(made: Path, root: Path, mode: str) -> powercut.Log:
    shutil.copytree(made, root)
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Blocks that the earlier backup has are copied by hand: what the kernel copies by itself is not in a trace.
    log = powercut.record(
        [sys.executable, WORKLOAD, str(root), mode],
        str(root),
        inject=["copy_file_range:error=EXDEV"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    assert log.returncode == 0
    return log


class Audit:
    def __init__(self, log: powercut.Log, expected: dict[str, Any]) -> None:
        self.expected = expected
        said = b"".join(event.data for event in log.events if isinstance(event, powercut.Send)).decode()
        self.said = [line.split() for line in said.splitlines()]
        self.moments = {words[1]: [int(word) for word in words[2:]] for words in self.said if words[0] == "moment"}
        self.seen: dict[str, int] = {"building": 0, "first": 0, "second": 0, "third": 0, "refused": 0, "restored": 0}
        self._known: dict[int, str | None] = {}

    @staticmethod
    def acks(send: powercut.Send) -> int:
        return send.data.count(b"\n")

    def check(self, directory: str, state: powercut.State) -> str | None:
        self.files, self.root = state.files, Path(directory)
        root = self.root
        said = self.said[: state.ack_count]
        done = {words[1] for words in said if words[0] == "backup"}
        durable = [max([0, *(int(words[2]) for words in said if words[:2] == ["write", str(n)])]) for n in range(2)]
        try:
            wrong = self.once(root / "data", lambda path: self.stands(path, durable), *durable)
            for name in BACKUPS:
                for folder in (root / name, root / f".{name}.partial"):
                    wrong = wrong or self.once(folder, lambda path, name=name: self.backup(path, name))  # type: ignore[misc]
                if name in done and not (root / name).exists():
                    return f"the backup {name} is gone"
            told = any("restored" in words for words in said)
            return wrong or self.once(root / "place" / "restored", lambda path: self.restored(path, told), told, *done)
        except ActordError as error:
            return f"can't be used: {error}"
        except AssertionError as error:
            return f"is not what it was: {error!r}"

    def once(self, path: Path, check: Check, *more: object) -> str | None:
        """What was checked with the same files is not checked again."""
        place = os.path.relpath(path, self.root)
        key = hash((place, *more, *sorted(each for each in self.files.items() if each[0].startswith(f"{place}/"))))
        if key not in self._known:
            self._known[key] = check(path)
        return self._known[key]

    def stands(self, path: Path, durable: list[int]) -> str | None:
        datadir.open_data_dir(str(path), shards=1, ballast=0).close()
        for number, least in enumerate(durable):
            store = filled.opened(path, number, filled.BEFORE)
            seq, value = store.commit_seq, store.read(1, "n")
            store.close()
            if seq < least:
                return f"shard {number} ends at commit {seq}, but {least} was acknowledged"
            if value != (b"%d" % seq if least or value else None):
                return f"shard {number} has {value!r} at commit {seq}"
        return None

    def backup(self, path: Path, name: str) -> str | None:
        """Whatever ``verify`` says yes to, under a name of its own or not, is what there was at its moment."""
        if not path.exists():
            return None
        named = path.name == name
        try:
            found = read_backup(str(path))
            problems = problems_of(str(path), found)
        except ActordError as error:
            problems = [str(error)]
        if problems:
            self.seen["building"] += not named
            return f"{path.name} has its name and is none: {problems[0]}" if named else None
        self.seen[name] += 1
        if [at.commit_seq for at in found.shards] != self.moments[name]:
            return f"{path.name} is not of its moment"
        restore(str(path), str(path.parent / f"{name}.tried"))
        return self.whole(path.parent / f"{name}.tried", name)

    def whole(self, path: Path, name: str) -> str | None:
        datadir.open_data_dir(str(path), shards=1, ballast=0).close()
        found = filled.content(path, filled.BEFORE)
        for each in found.values():
            items, complete = each["kv"]
            each["kv"] = [item for item in items if item[0] not in WRITTEN], complete
        wrong = [each for each in filled.NAMES if found[each] != self.expected[each]]
        if wrong:
            return f"{path.name}: {wrong[0]} and {len(wrong) - 1} others are not what they were"
        if not (path / datadir.TOKENS_NAME).exists():
            return f"{path.name}: the tokens are missing"
        return self.stands(path, self.moments[name])

    def restored(self, path: Path, told: bool) -> str | None:
        if not (path / "manifest.json").exists():
            if told:
                return "what was restored is gone"
            if not (self.root / "second").exists():
                return None
            if path.exists() and set(os.listdir(path)) - {"lock"}:
                self.seen["refused"] += 1
                try:
                    datadir.open_data_dir(str(path), shards=1, ballast=0).close()
                    return "a server opens what is half restored"
                except DataDirError:
                    pass
            restore(str(self.root / "second"), str(path))
        self.seen["restored"] += 1
        return self.whole(path, "second")


def replay(
    log: powercut.Log, expected: dict[str, Any], scratch: str, most: int, kinds: tuple[str, ...] = powercut.APART
) -> tuple[int, list[str], Audit]:
    audit = Audit(log, expected)
    points = powercut.points_of(log, SEED, most, acks=audit.acks)
    found = powercut.states(log, SEED, acks=audit.acks, points=points, kinds=kinds)
    total, wrong = powercut.audit(found, audit.check, scratch=scratch)
    return total, wrong, audit


def test_no_power_cut_leaves_half_a_backup_or_half_a_restored_directory(
    made: Path, expected: dict[str, Any], tmp_path: Path, scratch: str
) -> None:
    log = record(made, tmp_path / "root", "right")
    total, wrong, audit = replay(log, expected, scratch, POINTS)
    assert wrong == []
    assert total > 100
    assert min(audit.seen.values()) > 0, f"each phase has to be among the states: {audit.seen}"


@pytest.mark.parametrize("bug", ["no-sync", "json-early", "manifest-first"])
def test_the_replay_catches(bug: str, made: Path, expected: dict[str, Any], tmp_path: Path, scratch: str) -> None:
    log = record(made, tmp_path / "root", bug)
    total, wrong, _ = replay(log, expected, scratch, 120, kinds=("dropped",))
    assert wrong, f"the planted bug was not caught in {total} states"


def test_a_new_data_directory_stays_with_those_that_were_made_for_it(tmp_path: Path) -> None:
    made = "import sys; from actord.storage.datadir import open_data_dir as o; o(sys.argv[1], shards=1, ballast=0)"
    log = powercut.record([sys.executable, "-c", made, str(tmp_path / "one" / "two" / "data")], str(tmp_path))
    assert log.returncode == 0
    *_, last = powercut.states(log, SEED, acks=lambda send: 0, points=[len(log.events)], kinds=("dropped",))
    assert "one/two/data/manifest.json" in last.files
