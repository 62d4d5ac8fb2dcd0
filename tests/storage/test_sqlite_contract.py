"""The promises of ``storage.api``, kept by ``SqliteStore``."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import pytest
from actord.errors import DataDirError, InvariantViolated, StoreBroken, StoreCorrupt
from actord.storage import schema
from actord.storage.api import Batch, Store
from actord.storage.sqlite import SqliteStore

from tests.storage.stores import open_store, put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0000.db"


@pytest.fixture
def store(path):
    opened = open_store(path)
    yield opened
    opened.abandon()


def test_the_store_is_a_store(store):
    as_interface: Store = store
    assert as_interface.commit_seq == 0


def test_reads_see_a_batch_as_soon_as_it_is_written(store):
    put(store, {"a": b"1", "b": b"2"})
    assert store.commit_seq == 1
    assert store.read(1, "a") == b"1"
    assert store.read(1, "c") is None
    assert store.read(2, "a") is None
    put(store, {"a": None, "b": b"3"})
    assert store.read(1, "a") is None
    assert store.read(1, "b") == b"3"


def test_a_batch_number_that_leaves_a_gap_or_repeats_is_refused(store):
    put(store, {"a": b"1"})
    for seq in (0, 1, 3):
        batch = Batch(seq)
        batch.kv = {1: {"a": b"wrong"}}
        with pytest.raises(InvariantViolated):
            store.write(batch)
    assert store.read(1, "a") == b"1"
    put(store, {"a": b"2"})
    assert store.commit_seq == 2


def test_the_number_is_in_the_same_transaction_as_the_rows(path, store):
    put(store, {"a": b"1"})
    store.abandon()
    again = open_store(path)
    assert again.commit_seq == 1
    assert again.read(1, "a") == b"1"
    again.abandon()


def test_a_batch_is_applied_wholly_or_not_at_all(path, store):
    put(store, {"a": b"1"})
    batch = Batch(2)
    batch.actors = [(5, 5, "Account", "x"), (5, 5, "Account", "x")]  # the second can't be inserted
    batch.kv = {1: {"a": b"2"}}
    batch.cleared = {1}
    with pytest.raises(StoreBroken) as caught:
        store.write(batch)
    assert caught.value.applied == "unknown"
    store.abandon()
    again = open_store(path)
    assert (again.commit_seq, again.read(1, "a"), again.find_actor(5, "Account", "x")) == (1, b"1", None)
    again.abandon()


def test_broken_is_never_left(store):
    put(store, {"a": b"1"})
    batch = Batch(2)
    batch.actors = [(1, 1, "Account", "name-1")]
    with pytest.raises(StoreBroken):
        store.write(batch)
    good = Batch(2)
    good.kv = {1: {"a": b"2"}}
    for call in (
        lambda: store.write(good),
        store.sync,
        store.maintain,
        store.close,
        store.next_actor_id,
        lambda: store.read(1, "a"),
        lambda: store.scan(1),
        lambda: store.find_actor(1, "Account", "name-1"),
    ):
        with pytest.raises(StoreBroken):
            call()


def test_a_cleared_actor_loses_all_keys_before_its_part_of_the_batch(store):
    put(store, {"a": b"1", "b": b"2"})
    put(store, {"a": b"other"}, actor=2)
    batch = Batch(3)
    batch.cleared = {1}
    batch.kv = {1: {"b": b"3"}}
    store.write(batch)
    assert store.scan(1) == ([("b", b"3")], True)
    assert store.scan(2) == ([("a", b"other")], True)


def test_actors_are_found_by_slot_type_and_name_byte_for_byte(store):
    names = ["a", "A", "a ", "é", "e\u0301", "😀", "x" * 512]
    batch = Batch(1)
    ids = {name: store.next_actor_id() for name in names}
    batch.actors = [(id_, 7, "Account", name) for name, id_ in ids.items()]
    store.write(batch)
    for name, id_ in ids.items():
        assert store.find_actor(7, "Account", name) == id_
        assert store.find_actor(8, "Account", name) is None
        assert store.find_actor(7, "account", name) is None


def test_an_actor_id_is_never_given_twice(path, store):
    taken = [store.next_actor_id() for _ in range(3)]
    batch = Batch(1)
    batch.actors = [(taken[2], 7, "Account", "x")]
    store.write(batch)
    store.close()
    again = open_store(path)
    assert again.next_actor_id() > max(taken)
    again.abandon()


def test_an_actor_outside_of_the_shard_s_slots_is_refused(path):
    store = open_store(path, slots=range(512))
    batch = Batch(1)
    batch.actors = [(1, 512, "Account", "x")]
    with pytest.raises(InvariantViolated):
        store.write(batch)
    batch.actors = [(1, 511, "Account", "x")]
    store.write(batch)
    store.close()
    with pytest.raises(StoreCorrupt, match="slots"):
        open_store(path, slots=range(512, 1024))


def test_keys_of_every_shape_come_back(store):
    keys = ["\0", "a\0b", "a\0", "a", "😀", "\uffff", "x" * 2048, "😀" * 512, "'; DROP TABLE kv; --", "\n"]
    items = {key: key.encode() for key in keys}
    put(store, dict(items))
    for key in keys:
        assert store.read(1, key) == items[key]
    found, whole = store.scan(1)
    assert whole
    assert [key for key, _ in found] == sorted(keys, key=str.encode)


def test_values_of_every_size_come_back(store):
    values = {str(size): os.urandom(size) for size in (0, 1, 4000, 4096, 70_000, 2 * 1024 * 1024)}
    put(store, dict(values))
    for key, value in values.items():
        assert store.read(1, key) == value


def test_every_pragma_is_set(store):
    # Through the store's own connection: nobody else can open the database.
    def value(name: str) -> object:
        return store._conn.execute(f"PRAGMA {name}").get

    assert value("journal_mode") == "wal"
    assert value("locking_mode") == "exclusive"
    assert value("synchronous") == 1
    assert value("wal_autocheckpoint") == 0
    assert value("temp_store") == 2
    assert value("trusted_schema") == 0
    assert value("cache_size") == -1024
    assert value("page_size") == schema.PAGE_BYTES
    assert value("application_id") == schema.APPLICATION_ID


def test_a_pragma_that_does_not_take_is_noticed(path, monkeypatch):
    open_store(path).close()
    real = apsw.Connection.execute

    class Deaf(apsw.Connection):
        def execute(self, statements, *arguments, **options):
            if statements == "PRAGMA synchronous = NORMAL":
                statements = "PRAGMA synchronous = OFF"
            return real(self, statements, *arguments, **options)

    monkeypatch.setattr(apsw, "Connection", Deaf)
    with pytest.raises(DataDirError, match="synchronous"):
        open_store(path)


def test_there_is_no_shared_memory_file_and_files_are_private(path, store):
    put(store, {"a": b"1"})
    assert not Path(f"{path}-shm").exists()
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file


def test_another_connection_can_neither_read_nor_write(path, store):
    put(store, {"a": b"1"})
    code = (
        "import apsw, sys\n"
        f"conn = apsw.Connection({str(path)!r})\n"
        "try:\n    conn.execute('SELECT * FROM kv').fetchall()\n"
        "except apsw.BusyError:\n    sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7


def test_the_log_starts_over_and_keeps_its_inode(path):
    store = open_store(path, checkpoint_wal=64 * 1024)
    wal = Path(f"{path}-wal")
    inode = wal.stat().st_ino
    for number in range(100):
        put(store, {f"k{number % 7}": os.urandom(2000)})
        store.sync()
        store.maintain()
        assert store.wal_bytes <= 64 * 1024 + 64 * 1024
    assert store.checkpoints > 3
    assert wal.stat().st_ino == inode
    assert wal.stat().st_size < 256 * 1024
    store.abandon()


def test_an_unfinished_scan_does_not_keep_the_log_from_starting_over(path):
    store = open_store(path, checkpoint_wal=1)
    put(store, {f"k{n}": b"v" for n in range(50)})
    store.scan(1, limit=3)
    store.maintain()
    assert store.checkpoints == 1
    assert store.wal_bytes == 0
    store.abandon()


def test_a_replaced_log_is_noticed_before_a_checkpoint(path):
    store = open_store(path, checkpoint_wal=1)
    put(store, {"a": b"1"})
    wal = Path(f"{path}-wal")
    content = wal.read_bytes()
    wal.unlink()
    wal.write_bytes(content)
    with pytest.raises(StoreBroken, match="replaced"):
        store.maintain()
    store.abandon()


def test_sync_runs_beside_the_next_write(store):
    stop = threading.Event()
    failures: list[Exception] = []

    def flush() -> None:
        while not stop.is_set():
            try:
                store.sync()
            except Exception as error:
                failures.append(error)
                return

    thread = threading.Thread(target=flush)
    thread.start()
    for number in range(300):
        put(store, {f"k{number % 5}": os.urandom(500)})
    stop.set()
    thread.join()
    assert failures == []
    assert store.commit_seq == 300


def test_abandon_writes_nothing(path, store):
    put(store, {"a": b"1"})
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    store.abandon()
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    assert before["0000.db-wal"]


@pytest.mark.parametrize("where", ["value", "key", "sum", "other actor"])
def test_a_row_that_was_changed_behind_our_back_is_never_returned(path, store, where):
    assert isinstance(store, SqliteStore)
    put(store, {"aa": b"value-one", "bb": b"value-two"})
    put(store, {"zz": b"z"}, actor=2)
    store._fold_alone()  # else their newest values are not read from there
    change = {
        "value": "UPDATE kv SET value = CAST('valve-one' AS BLOB) WHERE key = 'aa'",
        "key": "UPDATE kv SET key = 'ab' WHERE key = 'aa'",
        "sum": "UPDATE kv SET sum = sum + 1 WHERE key = 'aa'",
        "other actor": "UPDATE kv SET actor = 2 WHERE key = 'aa'",
    }[where]
    store._conn.execute(change)
    actor, key = {"key": (1, "ab"), "other actor": (2, "aa")}.get(where, (1, "aa"))
    with pytest.raises(StoreCorrupt, match=f"actor {actor}, key '{key}'"):
        store.read(actor, key)
    with pytest.raises(StoreCorrupt, match=f"actor {actor}, key '{key}'"):
        store.scan(actor)
    assert store.read(1, "bb") == b"value-two"


def test_an_actor_s_entry_that_was_changed_is_noticed(store):
    put(store, {"a": b"1"})
    store._conn.execute("UPDATE actor SET id = 9")
    with pytest.raises(StoreCorrupt, match="actor 9"):
        store.find_actor(1, "Account", "name-1")


def test_every_flipped_bit_of_a_value_in_the_file_is_noticed(path):
    store = open_store(path)
    value = b"nothing but this value " * 4
    put(store, {"key": value})
    store.close()
    content = path.read_bytes()
    at = content.index(value)
    for bit in range(0, len(value) * 8, 7):
        damaged = bytearray(content)
        damaged[at + bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        store = open_store(path)  # SQLite's own check finds nothing wrong
        with pytest.raises(StoreCorrupt, match="key 'key'"):
            store.read(1, "key")
        store.close()


def test_the_epoch_grows_with_every_opening_that_committed(path):
    first = open_store(path)
    put(first, {"a": b"1"})
    put(first, {"a": b"2"})
    first.close()
    second = open_store(path)
    assert second.epoch == first.epoch + 1
    second.close()
    third = open_store(path)
    assert third.epoch == second.epoch, "nothing was committed in between: no fence of the second is newer"
    third.close()
