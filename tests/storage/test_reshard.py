"""Another number of shards: everything is there afterwards, once, whatever interrupts it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from actord.errors import DataDirError, DataDirLocked, StoreCorrupt
from actord.shards.slots import slot_of, slot_range
from actord.storage import datadir, recovery, reshard
from actord.storage.api import Batch
from actord.storage.sqlite import SqliteStore

from tests.storage.filled import BEFORE, NAMES, content, fill, healthy, home, opened

LONG = bool(os.environ.get("ACTORD_TEST_LONG"))  # every step instead of every third


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "data"
    fill(path)
    return path


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


def deal(path: Path, shards: int) -> reshard.Done:
    return reshard.reshard(str(path), shards, slot_of=slot_of, slot_range=slot_range)


@pytest.fixture(scope="module")
def expected(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    copy = shutil.copytree(made, tmp_path_factory.mktemp("expected") / "data")
    found = content(copy, BEFORE, received=True)
    left = sum(len(entry["messages"]) for entry in found.values())
    assert len(NAMES) < left < 3 * len(NAMES)  # some took effect
    return found


def test_everything_is_there_after_any_change_of_the_number_of_shards(data: Path, expected: dict[str, Any]) -> None:
    before = BEFORE
    for after in (5, 1, 3):
        done = deal(data, after)
        assert (done.before, done.after, done.actors) == (before, after, len(NAMES))
        assert healthy(data)
        assert content(data, after) == expected
        before = after
    assert sorted(os.listdir(data)) == ["lock", "manifest.json", "shards"]
    assert deal(data, 3) == reshard.Done(3, 3, 0, 0)


def test_fences_and_numbers_go_on_growing(data: Path) -> None:
    old = [opened(data, number, BEFORE) for number in range(BEFORE)]
    epoch, commit = max(store.epoch for store in old), max(store.commit_seq for store in old)
    ids = [m.id for store in old for m in store.queued_messages(after=0, until=1 << 62, limit=10_000)[0]]
    for store in old:
        store.close()
    deal(data, 1)
    store = opened(data, 0, 1)
    assert store.epoch >= epoch
    assert store.commit_seq == commit
    assert store.next_message_id() > max(ids)
    assert store.next_actor_id() == len(NAMES) + 1
    store.close()


class Killed(BaseException):
    pass


def steps(monkeypatch: pytest.MonkeyPatch, at: int, *, before: bool) -> list[str]:
    """Have the step number ``at`` on the disk be the last one, or the first that does not happen."""
    seen: list[str] = []

    def armed(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            number = len(seen)
            if number == at and before:
                raise Killed
            found = step(*args, **kwargs)
            if number == at:
                raise Killed
            return found

        return wrapper

    monkeypatch.setattr(reshard, "replace_file", armed("replace_file", reshard.replace_file))
    monkeypatch.setattr(reshard, "remove_file", armed("remove_file", reshard.remove_file))
    monkeypatch.setattr(reshard.recovery, "write_marker", armed("write_marker", reshard.recovery.write_marker))
    monkeypatch.setattr(reshard.datadir, "write_manifest", armed("write_manifest", reshard.datadir.write_manifest))
    monkeypatch.setattr(reshard.os, "rename", armed("rename", os.rename))
    monkeypatch.setattr(reshard.shutil, "rmtree", armed("rmtree", shutil.rmtree))
    return seen


def test_killed_at_any_step_it_goes_on_and_nothing_is_lost_or_doubled(
    made: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    at, refused = 0, 0
    while True:
        at += 1 if LONG else 3
        path = Path(shutil.copytree(made, tmp_path / f"{at}"))
        with pytest.MonkeyPatch.context() as monkeypatch:
            steps(monkeypatch, at, before=at % 2 == 0)
            try:
                deal(path, 3)
                break
            except Killed:
                pass
        if (path / "reshard.json").exists():
            refused += 1
            with pytest.raises(DataDirError, match="reshard"):
                datadir.open_data_dir(str(path), shards=1, ballast=0)
            with pytest.raises(DataDirError, match="--shards 3"):
                deal(path, 4)
        deal(path, 3)
        assert content(path, 3) == expected, at
        shutil.rmtree(path)
    assert at > 15
    assert refused * (1 if LONG else 3) > 12


def test_what_was_interrupted_can_be_given_up_until_the_new_shards_are_complete(
    data: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not reshard.cancel(str(data))
    with monkeypatch.context() as patched:
        steps(patched, 6, before=False)
        with pytest.raises(Killed):
            deal(data, 3)
    assert reshard.cancel(str(data))
    assert sorted(os.listdir(data)) == ["lock", "manifest.json", "shards"]
    assert content(data, BEFORE, received=True) == expected
    with monkeypatch.context() as patched:
        steps(patched, 10_000, before=False)
        patched.setattr(reshard, "_exchange", lambda *args: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            deal(data, 3)
    with pytest.raises(DataDirError, match="--shards 3"):
        reshard.cancel(str(data))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE kv SET value = x'00' WHERE rowid = 1 OR actor = 3",
        "UPDATE page SET sum = sum + 1 WHERE id > 0",
        "UPDATE alarm SET due = due + 1",
        "UPDATE event SET seq = seq + 10 WHERE actor = 1",
        "UPDATE event_log SET last = 9",
        "UPDATE reply SET body = x'31' WHERE key = 'key-0'",
        "UPDATE outbox SET method = 'other'",
        "UPDATE version SET version = 1",
        "UPDATE actor SET name = name || 'x' WHERE id = 2",
    ],
)
def test_damage_ends_it_and_the_old_data_are_as_they_were(damage: str, data: Path) -> None:
    for number in range(BEFORE):
        opened(data, number, BEFORE).close()
    conn = apsw.Connection(datadir.shard_paths(str(data), 0)[0])
    conn.execute(damage.replace("rowid = 1 OR ", ""))
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    conn.close()
    with pytest.raises(StoreCorrupt, match="checksum"):
        deal(data, 3)
    assert reshard.cancel(str(data))
    assert datadir.read_manifest(str(data)).shards == BEFORE


@pytest.mark.parametrize("full", ["_fold_alone", "_checkpoint"])
def test_commits_that_a_full_disk_keeps_out_of_the_database_file_are_not_left_behind(
    data: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    name = next(name for name in NAMES if home(name) == 0)
    opened(data, 0, BEFORE).close()
    store = opened(data, 0, BEFORE)
    batch = Batch(store.commit_seq + 1)
    batch.kv[store.find_actor(slot_of("Till", name), "Till", name) or 0] = {"a": b"newest"}
    store.write(batch)
    if full == "_fold_alone":
        store._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
    store.abandon()
    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, full, lambda self, *mode: False)
        patch.setattr(recovery, "_recover", lambda path, **options: None)
        with pytest.raises(DataDirError, match="no room to take in its newest commits"):
            deal(data, 3)
    deal(data, 3)
    store = opened(data, home(name, 3), 3)
    assert store.read(store.find_actor(slot_of("Till", name), "Till", name) or 0, "a") == b"newest"
    store.close()
    assert healthy(data)


def test_a_directory_in_use_or_without_room_or_none_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = datadir.open_data_dir(str(data), shards=1, ballast=0)
    with pytest.raises(DataDirLocked):
        deal(data, 3)
    server.close()
    monkeypatch.setattr(reshard.os.path, "getsize", lambda path: 1 << 60)
    with pytest.raises(DataDirError, match="room"):
        deal(data, 3)
    with pytest.raises(DataDirError):
        deal(data.parent, 3)
    with pytest.raises(DataDirError, match="1 to"):
        deal(data, 1025)


def test_a_backup_is_refused_and_left_as_it_is(data: Path) -> None:
    (data / "backup.json").write_text("{}")
    for attempt in (lambda: deal(data, 3), lambda: reshard.cancel(str(data))):
        with pytest.raises(DataDirError, match="is a backup"):
            attempt()
    assert not (data / "reshard").exists()


def test_new_databases_that_nobody_asked_for_are_never_taken_for_complete_ones(
    data: Path, expected: dict[str, Any]
) -> None:
    """As an older version left them when it could not remove them."""
    (data / "reshard").mkdir()
    for number in range(3):
        (data / "reshard" / f"{number:04d}.db").write_bytes(b"of before")
    deal(data, 3)
    assert content(data, 3) == expected
