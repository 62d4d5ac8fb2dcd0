"""Looking at a data directory from outside: one whole commit of each shard, whatever the server does meanwhile."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from actord.errors import DataDirError, StoreCorrupt
from actord.shards.slots import slot_range
from actord.storage import look_actor, recovery
from actord.storage.api import Batch
from actord.storage.datadir import open_data_dir
from actord.storage.look import Look, Moved, looked
from actord.storage.look_views import make_views
from actord.storage.sqlite import SqliteStore

from tests.storage.stores import put


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[str, SqliteStore]]:
    """A data directory of two shards, of which only shard 0 was ever opened, and its store."""
    data_dir = open_data_dir(str(tmp_path / "data"), shards=2, ballast=0)
    store = SqliteStore.open(
        data_dir.shard_path(0),
        shard=0,
        identity=data_dir.identity,
        slots=slot_range(0, 2),
        checkpoint_wal=64 * 1024,
        page_cache=1 << 20,
    )
    try:
        yield data_dir.path, store
    finally:
        store.abandon()
        data_dir.close()


def seen(path: str) -> tuple[int, bytes | None]:
    return looked(path, [0], lambda look: (look.commits[0], look_actor.value(look, 0, 1, "key")))


def test_a_look_sees_the_newest_commit_in_the_log_and_behind_a_checkpoint(place: tuple[str, SqliteStore]) -> None:
    path, store = place
    put(store, {"key": b"one"})
    assert seen(path) == (1, b"one")
    store.sync()
    store._checkpoint_wanted = True
    store.maintain()
    assert seen(path) == (1, b"one")
    put(store, {"key": b"two"})  # the log starts over
    assert seen(path) == (2, b"two")
    assert looked(path, None, lambda look: look.shards) == [0]  # the other shard was never opened


def test_the_last_commit_is_left_out_while_it_is_half_written(place: tuple[str, SqliteStore]) -> None:
    path, store = place
    put(store, {"key": b"one"})
    put(store, {"key": b"two"})
    log = recovery.wal_path(store.path)
    content = Path(log).read_bytes()
    for cut in (1, 2000, 4096 + 12):
        Path(log).write_bytes(content[:-cut])
        assert seen(path) == (1, b"one")
    torn = bytearray(content)
    torn[-100] ^= 1
    Path(log).write_bytes(torn)
    assert seen(path) == (1, b"one")
    Path(log).write_bytes(content)
    assert seen(path) == (2, b"two")


def test_a_checkpoint_of_later_commits_takes_a_look_back(place: tuple[str, SqliteStore]) -> None:
    path, store = place
    put(store, {"key": b"one"})
    with Look(path, [0]) as look:
        put(store, {"key": b"two"})
        look.check()  # a longer log changes nothing of what is seen
        assert look_actor.value(look, 0, 1, "key") == b"one"
        store.sync()
        store._checkpoint_wanted = True
        store.maintain()
        with pytest.raises(Moved):
            look.check()
    store.sync()
    with Look(path, [0]) as look:
        put(store, {"key": b"three"})  # the log starts over
        with pytest.raises(Moved):
            look.check()


def test_no_look_sees_half_of_a_commit_while_the_server_writes_and_checkpoints(place: tuple[str, SqliteStore]) -> None:
    path, store = place
    stop = threading.Event()
    lot = random.Random(3)

    def write() -> None:
        number = 0
        while not stop.wait(0.002):  # a writer without any rest leaves a look no moment that holds
            number += 1
            batch = Batch(store.commit_seq + 1)
            if number == 1:
                batch.actors += [(actor, actor, "Account", f"name-{actor}") for actor in range(1, 41)]
            value = b"%d" % number * lot.randrange(1, 60)
            batch.kv = {actor: {"key": value, "commit": b"%d" % batch.seq} for actor in range(1, 41)}
            store.write(batch)
            if number % 3 == 0:
                store.sync()
                store.maintain()

    def work(look: Look) -> int:
        rows = look.rows(0, "SELECT DISTINCT value FROM temp.{}_kv WHERE key = 'key'")
        commits = look.rows(0, "SELECT DISTINCT CAST(value AS TEXT) FROM temp.{}_kv WHERE key = 'commit'")
        look.check()
        if look.commits[0]:
            assert len(rows) == 1
            assert [int(row[0]) for row in commits] == [look.commits[0]]
        return look.commits[0]

    writer = threading.Thread(target=write)
    writer.start()
    try:
        commits = []
        for _ in range(60):
            with suppress(DataDirError):  # this writer does nothing but checkpoints: a look may never hold
                commits.append(looked(path, [0], work))
    finally:
        stop.set()
        writer.join(30)
    assert commits == sorted(commits)
    assert len(set(commits)) > 1
    assert store.checkpoints > 0


def test_damage_is_named_and_not_shown(place: tuple[str, SqliteStore]) -> None:
    path, store = place
    put(store, {"key": b"value" * 10})
    store.sync()
    store.close()
    with open(store.path, "r+b") as file:
        content = file.read()
        at = content.index(b"value" * 10)
        file.seek(at)
        file.write(b"V")
    with pytest.raises(StoreCorrupt, match="key 'key'"):
        seen(path)
    os.truncate(store.path, 0)
    with pytest.raises(StoreCorrupt, match="empty"):
        seen(path)


def test_a_rotten_commit_number_does_not_bring_older_values_back(place: tuple[str, SqliteStore]) -> None:
    path, store = place
    put(store, {"key": b"old"})
    store._fold_alone()
    put(store, {"key": b"new"})
    store._conn.execute("UPDATE meta SET value = value | 64 WHERE name = 'commit_seq'")
    with pytest.raises(StoreCorrupt, match="commit_seq"):
        seen(path)


def test_the_view_of_meta_says_the_newest_commit(place: tuple[str, SqliteStore]) -> None:
    path, store = place

    def commit(look: Look) -> object:
        make_views(look)
        return look.conn.execute("SELECT value FROM meta WHERE name = 'commit_seq'").get

    for number in (1, 2):
        put(store, {"key": b"value"})
        assert looked(path, None, commit) == number
    store._fold_alone()
    assert looked(path, None, commit) == 2


@pytest.mark.parametrize(
    ("prefix", "after", "limit", "expected"),
    [
        ("", "", 10, ["a", "a/b", "ab", "b", "é", "\U0010ffff"]),
        ("a", "", 10, ["a", "a/b", "ab"]),
        ("a", "a", 1, ["a/b"]),
        ("", "b", 10, ["é", "\U0010ffff"]),
        ("b", "a", 10, ["b"]),
        ("a", "b", 10, []),
        ("\U0010ffff", "", 10, ["\U0010ffff"]),
        ("é", "", 10, ["é"]),
    ],
)
def test_names_come_in_the_order_of_their_bytes_in_pages(
    place: tuple[str, SqliteStore], prefix: str, after: str, limit: int, expected: list[str]
) -> None:
    path, store = place
    batch = Batch(1)
    batch.actors = [(n + 1, n, "Account", name) for n, name in enumerate(["b", "a", "é", "ab", "\U0010ffff", "a/b"])]
    batch.actors.append((99, 99, "Other", "a"))
    store.write(batch)
    found = looked(path, None, lambda look: look_actor.names(look, "Account", prefix=prefix, after=after, limit=limit))
    assert found == expected
    assert looked(path, None, look_actor.count_types) == {"Account": 6, "Other": 1}
