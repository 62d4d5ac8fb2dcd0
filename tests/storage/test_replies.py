"""Replies in the store: read back as written, bounded, never a damaged one, part of their commit."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from actord.errors import StoreCorrupt
from actord.storage import replies
from actord.storage.api import Batch, Reply
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
        store.read_reply(3 if column == "actor" else 1, "k")
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


def test_a_commit_that_adds_replies_deletes_expired_ones_faster_than_it_adds(tmp_path: Path) -> None:
    store = opened(tmp_path)
    old = 4 * replies.TIDY_ROWS
    write(store, {(1, f"old-{n}"): reply(n + 1) for n in range(old)}, new=1)
    for n in range(old):
        write(store, {(1, f"new-{n}"): reply(1000 + n)}, before=old)
        expired = [key for key in store.reply_keys(1) if key.startswith("old")]
        assert len(expired) == max(0, old - (n + 1) * replies.TIDY_ROWS)
    write(store, {(1, "last"): reply(5000)}, before=999)
    assert len(store.reply_keys(1)) == old + 1
    store.close()


def test_a_row_from_the_future_hides_no_expired_one_from_the_sweep(tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {(1, f"future-{n}"): reply(1 << 45) for n in range(2 * replies.TIDY_ROWS)}, new=1)
    write(store, {(1, f"old-{n}"): reply(n) for n in range(30)})
    write(store, {(1, "young"): reply(200)}, before=100)
    assert len(store.reply_keys(1)) == 2 * replies.TIDY_ROWS + 31
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
    assert len(store.reply_keys(1)) == 2 * replies.TIDY_ROWS + 1
    store.close()


def test_a_database_of_the_format_before_replies_is_brought_up_to_date(tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {}, new=1)
    store.close()
    conn = apsw.Connection(str(tmp_path / "0000.db"))
    conn.execute("DROP TABLE reply; UPDATE meta SET value = 1 WHERE name = 'format'")
    conn.close()
    store = opened(tmp_path)
    write(store, {(1, "k"): reply(1)})
    assert store.read_reply(1, "k") == reply(1)
    store.close()
