"""Replies in the store: read back as written, bounded, never a damaged one, part of their commit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest
from actord.errors import StoreCorrupt, StoreFull
from actord.storage import replies, schema
from actord.storage.api import Batch, Reply
from actord.storage.doctor_rows import Rows
from actord.storage.sqlite import SqliteStore

from tests.storage.test_alarms import opened


def reply(at: int, body: bytes = b"1") -> Reply:
    return Reply(at, b"d" * 16, 200, None, body)


def write(store: SqliteStore, changed: dict[tuple[int, str], Reply | None], *, before: int = 0, new: int = 0) -> None:
    batch = Batch(store.commit_seq + 1)
    if new:
        batch.actors.append((new, new, "Till", f"name-{new}"))
    batch.replies.update(changed)
    batch.replies_before = before
    store.write(batch)


def fill(store: SqliteStore, *, before: int = 0) -> None:
    """Add so many replies of actor 2 that the index is complete."""
    write(store, {(2, f"fill-{store.commit_seq}-{n}"): reply(1 << 46) for n in range(replies.TAIL_ROWS)}, before=before)
    assert not store._tail


def doctor_of(folder: Path, store: SqliteStore) -> list[str]:
    """Close the store, and have the doctor compare index and rows."""
    store.close()
    found: list[str] = []
    shard: Any = SimpleNamespace(report=SimpleNamespace(rows=0), damage=lambda what, **_: found.append(what))
    Rows(shard, apsw.Connection(str(folder / "0000.db")))._examine_reply_key()
    return found


def test_a_reply_comes_back_as_it_was_written_also_after_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    kept = {
        (1, "a"): Reply(5, b"x" * 16, 200, None, b"null"),
        (1, 'b "\\ ~'): Reply(6, b"y" * 16, 200, b"Content-Type: application/msgpack\r\n", b"\xc0"),
        (1, "c"): Reply(1 << 50, b"z" * 16, 200, b"", b""),
    }
    write(store, dict(kept), new=1)
    for _ in range(2):
        assert {(1, key): store.read_reply(1, key) for key in store.reply_keys(1)} == kept
        assert (store.read_reply(1, "d"), store.read_reply(2, "a"), store.reply_keys(2)) == (None, None, [])
        store.close()
        store = opened(tmp_path)
    store.close()


def test_keys_come_oldest_first_and_one_that_is_used_anew_is_the_youngest(tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {(1, "z"): reply(1), (1, "a"): reply(1), (1, "m"): reply(1)}, new=1)
    write(store, {(1, "z"): reply(2, b"2"), (1, "a"): None})
    assert store.reply_keys(1) == ["m", "z"]
    assert store.read_reply(1, "z") == reply(2, b"2")
    store.close()


@pytest.mark.parametrize("column", ["actor", "at", "status", "sum"])
def test_a_flipped_bit_is_never_a_reply(column: str, tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {(1, "k"): reply(1)}, new=1)
    store._conn.execute(f"UPDATE reply SET {column} = {column} + 2")
    with pytest.raises(StoreCorrupt, match="checksum"):
        store.read_reply(1, "k")
    store.close()
    with pytest.raises(StoreCorrupt, match="checksum"):  # it may be the reply of any key of any actor
        opened(tmp_path)


@pytest.mark.parametrize("change", ["key = 'l'", "id = id + 1", "sum = sum + 1", "key = x'6b'"])
def test_a_flipped_bit_in_the_index_is_never_a_key_without_a_reply(change: str, tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {(1, "k"): reply(1), (1, "m"): reply(1)}, new=1)
    fill(store)
    store._conn.execute(f"UPDATE reply_key SET {change} WHERE actor = 1 AND key = 'k'")
    with pytest.raises(StoreCorrupt, match="checksum"):
        store.reply_keys(1)
    store.close()


@pytest.mark.parametrize(
    "change", ["body = 'text'", "body = x'31ff'", "head = x''", "digest = zeroblob(16)", "at = 'x'", "status = 2.5"]
)
def test_a_value_that_became_another_is_never_a_reply(change: str, tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {(1, "k"): reply(1)}, new=1)
    store._conn.execute(f"UPDATE reply SET {change}")
    with pytest.raises(StoreCorrupt, match="checksum"):
        store.read_reply(1, "k")
    store.close()


def test_a_reply_is_found_before_and_after_the_index_has_it_also_after_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {(1, "b"): reply(1), (1, "a"): reply(2), (1, "gone"): reply(3)}, new=1)
    fill(store)
    write(store, {(1, "d"): reply(4), (1, "c"): reply(5), (1, "gone"): None, (1, "gone too"): reply(6)})
    write(store, {(1, "gone too"): None, (1, "b"): reply(7, b"anew"), (1, "c"): reply(8, b"anew")})
    for _ in range(2):
        for _ in range(2):
            assert store.reply_keys(1) == ["a", "d", "b", "c"]
            found = [store.read_reply(1, key) for key in ("a", "b", "c", "d", "gone", "gone too")]
            assert found == [reply(2), reply(7, b"anew"), reply(8, b"anew"), reply(4), None, None]
            store.close()
            store = opened(tmp_path)
        fill(store)
    assert doctor_of(tmp_path, store) == []


def test_what_a_full_disk_took_back_is_not_in_the_index(tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {(1, "a"): reply(1)}, new=1)
    store._conn.execute("PRAGMA max_page_count = 1")  # no page more than there are
    for rows in (20, replies.TAIL_ROWS):
        with pytest.raises(StoreFull):
            write(store, {(1, f"b-{n}"): reply(2, bytes(5000)) for n in range(rows)} | {(1, "a"): None})
        assert store.reply_keys(1) == ["a"]
    store._conn.execute("PRAGMA max_page_count = 1000000")
    write(store, {(1, "c"): reply(3)})
    assert store.reply_keys(1) == ["a", "c"]
    assert doctor_of(tmp_path, store) == []


def test_the_index_that_is_brought_up_to_date_deletes_expired_replies_faster_than_it_grows(tmp_path: Path) -> None:
    store = opened(tmp_path)
    old = 3 * replies.TAIL_ROWS
    write(store, {(1, f"old-{n}"): reply(n + 1) for n in range(old)}, new=1)
    left = []
    for _ in range(2):
        fill(store, before=old)
        left.append(len(store.reply_keys(1)))
    assert left == [replies.TAIL_ROWS, 0]
    write(store, {(1, f"new-{n}"): reply(n + 1) for n in range(10)})
    fill(store, before=5)
    assert len(store.reply_keys(1)) == 10  # they stand behind rows from the future: the sweep finds them
    assert doctor_of(tmp_path, store) == []


def test_a_row_from_the_future_hides_no_expired_one_from_the_sweep(tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {(1, f"future-{n}"): reply(1 << 45) for n in range(30)}, new=1)
    write(store, {(1, f"old-{n}"): reply(n) for n in range(30)})
    write(store, {(1, "young"): reply(200)}, before=100)
    assert len(store.reply_keys(1)) == 30 + 31
    found: list[int] = []
    after, pages = 0, 0
    while pages == 0 or after:
        expired, after = store.expired_replies(before=100, after=after, limit=10)
        found += expired
        pages += 1
    assert pages == 7
    batch = Batch(store.commit_seq + 1)
    batch.expired_replies += found
    store.write(batch)
    assert [key for key in store.reply_keys(1) if key.startswith("old")] == []
    assert len(store.reply_keys(1)) == 30 + 1
    store.close()


def test_a_database_of_the_format_before_replies_is_brought_up_to_date(tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {}, new=1)
    store.close()
    conn = apsw.Connection(str(tmp_path / "0000.db"))
    conn.execute(
        "DROP TABLE reply; DROP TABLE reply_key; UPDATE meta SET value = 1 WHERE name = 'format'; "
        "ALTER TABLE meta DROP COLUMN sum"
    )
    conn.close()
    store = opened(tmp_path)
    write(store, {(1, "k"): reply(1)})
    assert store.read_reply(1, "k") == reply(1)
    store.close()


def test_replies_of_the_format_without_an_index_of_its_own_are_kept(tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {(1, "k"): reply(1), (2, "k"): reply(2)}, new=1)
    store.close()
    conn = apsw.Connection(str(tmp_path / "0000.db"))
    conn.execute(
        "CREATE TABLE old (id INTEGER PRIMARY KEY, actor INTEGER NOT NULL, key TEXT NOT NULL, at INTEGER NOT NULL, "
        "digest BLOB NOT NULL, status INTEGER NOT NULL, head BLOB, body BLOB NOT NULL, sum INTEGER NOT NULL, "
        "UNIQUE (actor, key)); INSERT INTO old SELECT * FROM reply; DROP TABLE reply; DROP TABLE reply_key; "
        "ALTER TABLE old RENAME TO reply; UPDATE meta SET value = 5, sum = ? WHERE name = 'format'",
        (schema.meta_sum("format", 5),),
    )
    conn.close()
    store = opened(tmp_path)
    write(store, {(1, "new"): reply(3)})
    assert (store.reply_keys(1), store.read_reply(2, "k")) == (["k", "new"], reply(2))
    assert doctor_of(tmp_path, store) == []


@pytest.mark.parametrize("change", ["DELETE FROM reply_key WHERE actor = 1", "DELETE FROM reply WHERE actor = 1"])
def test_the_doctor_finds_replies_and_an_index_that_do_not_fit_each_other(change: str, tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {(1, "k"): reply(1)}, new=1)
    fill(store)
    store._conn.execute(change)
    assert doctor_of(tmp_path, store) != []
