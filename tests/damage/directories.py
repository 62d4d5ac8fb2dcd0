"""Small data directories with everything in them, made by the real store, and what can be read from them."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import apsw
from actord.errors import ActordError, StorageError
from actord.shards.slots import slot_of, slot_range
from actord.shards.sql_database import Database
from actord.storage.api import Alarm, Batch, Event, Message, Reply
from actord.storage.ballast import Ballast
from actord.storage.datadir import open_data_dir, read_manifest
from actord.storage.doctor import examine
from actord.storage.findings import Report
from actord.storage.sqlite import SqliteStore

SHARDS = 2
BALLAST_BYTES = 4096
ACTORS = 24
COMMITS_IN_LOG = 5


def open_shard(directory: Path, shard: int, *, ballast: bool = True) -> SqliteStore:
    manifest = read_manifest(str(directory))
    return SqliteStore.open(
        str(directory / "shards" / f"{shard:04d}.db"),
        shard=shard,
        identity=manifest.identity,
        slots=slot_range(shard, manifest.shards),
        checkpoint_wal=1 << 30,
        page_cache=1 << 20,
        ballast=Ballast(str(directory / "shards" / f"{shard:04d}.ballast"), BALLAST_BYTES) if ballast else None,
        lock_wait=0,
    )


def make(directory: Path, *, clean: bool) -> None:
    """Two shards with keys, alarms (one failed), events, replies and SQL; stopped cleanly, or killed with a log."""
    data_dir = open_data_dir(str(directory), shards=SHARDS, ballast=0)
    for shard in range(SHARDS):
        store = open_shard(directory, shard)
        _fill(store, shard)
        if clean:
            store.close()
            continue
        for number in range(3):  # these stay in their rows of redo, in the database file
            batch = Batch(store.commit_seq + 1)
            batch.kv[2] = {"key-0": b"newer %d" % number, f"newer-{number}": bytes([number]) * 40, "key-1": None}
            store.write(batch)
        store.sync()
        store.maintain()
        store._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)  # most of it in the database, some commits in the log
        for number in range(COMMITS_IN_LOG):
            batch = Batch(store.commit_seq + 1)
            batch.kv[1] = {"late": b"late %d" % number, f"late-{number}": bytes([number]) * 40}
            batch.alarms[2] = Alarm(1_900_000_000_000 + number, 1_900_000_000_000)
            batch.events[2] = [Event(number + 1, "late", b"%d" % number, 1_900_000_000_000)]
            batch.event_logs[2] = 1, number + 1
            batch.outbox[1000 + number] = Message(1000 + number, 2, "Type", "späte", "go", b"\x92\x90\x80")
            batch.inbox[1 - shard, 500 + number] = None
            batch.replies[2, f"late-{number}"] = Reply(1_900_000_000_000 + number, b"d" * 16, 200, None, b"%d" % number)
            store.write(batch)
            store.sync()
        store.abandon()
    data_dir.close()


def _fill(store: SqliteStore, shard: int) -> None:
    names = [name for n in range(200) if slot_of("Account", name := f"näme-{n}") in slot_range(shard, SHARDS)][:ACTORS]
    for number, name in enumerate(names):
        batch = Batch(store.commit_seq + 1)
        id_ = store.next_actor_id()
        batch.actors.append((id_, slot_of("Account", name), "Account", name))
        batch.kv[id_] = {f"key-{n}": bytes([n]) * (30 * n + number) for n in range(8)}
        batch.kv[id_]["größe"] = b"\x93\x01\x02\x03"
        if number % 2:
            failed = "RuntimeError: nein, größer" if number == 5 else None
            batch.alarms[id_] = Alarm(1_800_000_000_000 + number * 977, 1_800_000_000_000, number % 3, failed)
        if number % 3 == 0:
            batch.events[id_] = [Event(n, "größer", b"[%d]" % n, 1_800_000_000_000 + n) for n in range(1, number + 3)]
            batch.event_logs[id_] = 2, number + 2
        if number % 4 == 0:
            error = "RuntimeError: größer" if number == 4 else None
            state = (1_900_000_000_000, 1 if error else 0, error) if number % 8 else (0, 0, None)
            batch.outbox[number + 1] = Message(number + 1, id_, "Type", f"ä-{number}", "go", bytes(number), *state)
            batch.inbox[1 - shard, number] = None
        for n in range(number % 4):
            head = b"Content-Type: application/msgpack\r\n" if n == 2 else None
            batch.replies[id_, f"order-{n}"] = Reply(1_800_000_000_000 + n, bytes([n]) * 16, 200, head, b'{"n":%d}' % n)
        if number % 8 == 0:
            batch.pages[id_] = _sql_pages(number)
            batch.page_counts[id_] = max(batch.pages[id_])
        store.write(batch)
    batch = Batch(store.commit_seq + 1)
    batch.kv[3] = {f"key-{n}": None for n in range(4)}  # free room within pages
    batch.cleared.add(4)
    batch.alarms[4] = None
    store.write(batch)
    store.sync()


def _sql_pages(number: int) -> dict[int, bytes]:
    database = Database(lambda page: None, 0, lambda: False)
    database.begin()
    cursor = database.cursor()
    cursor.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT); CREATE INDEX by_name ON item (name)")
    cursor.executemany("INSERT INTO item (name) VALUES (?)", [(f"item {n} of {number}",) for n in range(40)])
    database.commit()
    return database.file.take()


def diagnose(directory: Path, *, deep: bool = False) -> Report:
    return examine(str(directory), slot_of=slot_of, slot_range=slot_range, deep=deep)


def contents(directory: Path) -> dict[str, Any]:
    """All that a server would read, shard by shard; a refusal stands as its class in the place of what it refuses.

    It opens the stores, which recovers them: give it a copy.
    """
    found: dict[str, Any] = {}
    try:
        manifest = read_manifest(str(directory))
        found["manifest"] = (manifest.format, manifest.identity, manifest.shards, manifest.slot_hash, manifest.created)
        data_dir = open_data_dir(str(directory), shards=SHARDS, ballast=0)
    except ActordError as error:
        return {"refused": type(error).__name__}
    try:
        for shard in range(min(manifest.shards, 8)):
            try:
                store = open_shard(directory, shard)
            except (ActordError, OSError) as error:
                found[f"shard {shard}"] = f"refused: {type(error).__name__}"
                continue
            try:
                found[f"shard {shard}"] = _read(store, shard)
            finally:
                store.abandon()
    finally:
        data_dir.close()
    return found


def _read(store: SqliteStore, shard: int) -> dict[str, Any]:
    read: dict[str, Any] = {"commit_seq": store.commit_seq, "epoch": store.epoch}
    with contextlib.suppress(StorageError):
        read["next actor"] = store.next_actor_id()
    names = [name for n in range(200) if slot_of("Account", name := f"näme-{n}") in slot_range(shard, SHARDS)][:ACTORS]
    for name in names:
        read[name] = _or_refusal(lambda name=name: _read_actor(store, name))
    read["armed"] = _or_refusal(lambda: store.armed_alarms(until=1 << 62, limit=1000))
    read["messages"] = _or_refusal(lambda: store.list_messages(parked=False, after=0, limit=1000))
    read["received"] = [_or_refusal(lambda n=n: store.was_received(1 - shard, n)) for n in range(ACTORS)]
    read["failed"] = _or_refusal(lambda: store.failed_alarms(limit=1000))
    return read


def _read_actor(store: SqliteStore, name: str) -> dict[str, Any]:
    id_ = store.find_actor(slot_of("Account", name), "Account", name)
    if id_ is None:
        return {"id": None}
    values = {f"key-{n}": _or_refusal(lambda n=n: store.read(id_, f"key-{n}")) for n in range(8)}
    pages = range(1, store.page_count(id_) + 1)
    return {
        "id": id_,
        "kv": _or_refusal(lambda: store.scan(id_)),
        "each": values,
        "alarm": _or_refusal(lambda: store.read_alarm(id_)),
        "log of events": _or_refusal(lambda: store.event_log(id_)),
        "events": _or_refusal(lambda: store.read_events(id_, after=0, batch=1 << 62, limit=99, limit_bytes=1 << 30)),
        "replies": _or_refusal(lambda: store.reply_keys(id_)),
        "each reply": [_or_refusal(lambda n=n: store.read_reply(id_, f"order-{n}")) for n in range(4)],
        "pages": [_or_refusal(lambda page=page: store.read_page(id_, page)) for page in pages],
    }


def _or_refusal(read: Any) -> Any:
    try:
        return read()
    except StorageError as error:
        return f"refused: {type(error).__name__}"


def copy_of(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def files_of(directory: Path) -> list[str]:
    """Every file of a data directory that has content, relative to it."""
    found = []
    for folder, _, names in os.walk(directory):
        found += [os.path.relpath(os.path.join(folder, name), directory) for name in names]
    return sorted(name for name in found if (directory / name).stat().st_size)
