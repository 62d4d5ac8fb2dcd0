"""The newest values: a row for each commit (``storage.redo``), and their way into ``kv`` (``storage.folding``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from actord.errors import StoreCorrupt, StoreFull
from actord.storage import folding, redo, schema
from actord.storage.api import Batch
from actord.storage.sqlite import SqliteStore

from tests.storage.stores import open_store, put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0000.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = open_store(path)
    yield opened
    opened.abandon()


def rows(store: SqliteStore, query: str) -> list[Any]:
    return store._conn.execute(query).fetchall()


def in_kv(store: SqliteStore) -> dict[str, bytes]:
    return dict(rows(store, "SELECT key, value FROM kv"))


def test_a_commit_writes_one_row_and_no_page_of_kv(store: SqliteStore) -> None:
    put(store, {"a": b"1"})
    frames = store._wal_frames
    put(store, {f"key-{number}": b"value" for number in range(50)})
    assert in_kv(store) == {}
    assert rows(store, "SELECT slot, seq FROM redo") == [(0, 1), (1, 2)]
    put(store, {"a": b"2"}), put(store, {"a": b"3"})
    before = store._wal_frames
    store._fold_alone()
    folded = store._wal_frames
    put(store, {"a": b"4"})
    assert store._wal_frames == folded + 1, "a row that takes the place of another changes its page alone"
    assert before > frames


def test_reads_see_the_newest_wherever_it_is(store: SqliteStore) -> None:
    put(store, {"a": b"old", "b": b"old", "d": b"old"})
    store._fold_alone()
    assert in_kv(store) == {"a": b"old", "b": b"old", "d": b"old"}
    put(store, {"a": b"new", "b": None, "c": b"new"})
    assert [store.read(1, key) for key in "abcd"] == [b"new", None, b"new", b"old"]
    assert store.scan(1) == ([("a", b"new"), ("c", b"new"), ("d", b"old")], True)
    assert store.scan(1, reverse=True, limit=2) == ([("d", b"old"), ("c", b"new")], False)


def short(monkeypatch: pytest.MonkeyPatch, *, slots: int = 512, entries: int = 8192, step: int = 1) -> None:
    monkeypatch.setattr(folding, "SLOTS", slots)
    monkeypatch.setattr(folding, "MOST_ENTRIES", entries)
    monkeypatch.setattr(folding, "STEP", step)
    monkeypatch.setattr(folding, "AT_ONCE", 0)


FULL: dict[str, dict[str, int]] = {"it has no row left": {"slots": 4}, "it holds many keys": {"entries": 4}}


@pytest.mark.parametrize("why", FULL)
def test_a_half_that_is_full_is_folded_while_the_other_one_is_filled(
    path: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short(monkeypatch, **FULL[why])
    store = open_store(path)
    for number in range(4):
        put(store, {f"k{number}": b"v"})
        assert in_kv(store) == {}
    found = []
    for number in range(4, 9):
        put(store, {f"k{number}": b"v"})
        found.append(sorted(in_kv(store)))
    assert found == [[], ["k0"], ["k0", "k1"], ["k0", "k1", "k2"], ["k0", "k1", "k2", "k3"]]
    assert store._folded == 4
    assert rows(store, "SELECT slot, seq FROM redo") == [
        (0, 9), (1, 2), (2, 3), (3, 4), *((redo.HALF + place, 5 + place) for place in range(4))
    ]  # fmt: skip
    store.abandon()
    with open_again(path) as again:
        assert again.scan(1) == ([(f"k{number}", b"v") for number in range(9)], True)


def test_few_keys_are_folded_by_the_commit_that_turns_the_halves(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short(monkeypatch, slots=4)
    monkeypatch.setattr(folding, "AT_ONCE", 4)
    store = open_store(path)
    for number in range(8):
        put(store, {f"k{number}": b"v"})
        assert in_kv(store) == {}
    put(store, {"k8": b"v"})
    assert sorted(in_kv(store)) == ["k0", "k1", "k2", "k3"]
    store.abandon()


def test_what_is_left_when_the_other_half_is_full_goes_with_the_commit_that_turns_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short(monkeypatch, slots=3, step=100)
    store = open_store(path)
    for number in range(6):
        put(store, {f"k{number}": b"v"})
        assert store.scan(1) == ([(f"k{each}", b"v") for each in range(number + 1)], True)
        assert store.read(1, "k0") == b"v"
        assert store.lost_types(1, ()) == ["Account"]
    assert in_kv(store) == {}
    put(store, {"k6": b"v"})
    assert sorted(in_kv(store)) == ["k0", "k1", "k2"]
    store.abandon()


def test_a_value_that_has_a_newer_one_is_never_folded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short(monkeypatch, slots=4)
    store = open_store(path)
    for number in range(40):
        put(store, {"hot": b"%d" % number, f"cold-{number:02}": b"v"})
        assert store.read(1, "hot") == b"%d" % number
    assert "hot" not in in_kv(store)
    assert len(in_kv(store)) >= 32
    store.abandon()
    with open_again(path) as again:
        assert again.read(1, "hot") == b"39"


def test_a_deletion_that_is_folded_hides_nothing_newer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short(monkeypatch, slots=2)
    store = open_store(path)
    for value in (b"1", None, b"2", None, None, b"3", b"4", None):
        put(store, {"a": value, "b": b"x"})
        assert store.read(1, "a") == value
        assert store.scan(1) == ([("a", value)] * (value is not None) + [("b", b"x")], True)
    store.abandon()


def test_a_half_that_says_nothing_of_keys_is_done_with_before_its_rows_are_overwritten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short(monkeypatch, slots=2)
    store = open_store(path)
    for number in range(1, 14):
        store.write(Batch(number))
        store.abandon()
        store = open_store(path)
        assert store.commit_seq == number
    store.abandon()


def test_both_halves_are_read_again_after_a_crash(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short(monkeypatch, slots=4, step=2)
    store = open_store(path)
    for number in range(30):
        put(store, {"a": b"%d" % number, f"k{number:02}": b"v"})
        store.abandon()
        store = open_store(path)
        assert store.commit_seq == number + 1
        assert store.scan(1) == ([("a", b"%d" % number)] + [(f"k{each:02}", b"v") for each in range(number + 1)], True)
    found = redo.behind(redo.main(store._conn), "")
    assert [half.slots for half in found.halves] == [4, 2]
    assert (found.slots, found.entries) == (6, 12)
    store.abandon()


def test_folding_that_takes_long_goes_in_smaller_steps_until_it_does_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = took = 0.0

    def clock() -> float:
        nonlocal now
        now += took
        return now

    monkeypatch.setattr(folding, "monotonic", clock)
    monkeypatch.setattr(folding, "STEP_LEAST", 2)
    short(monkeypatch, slots=1000, entries=16, step=8)

    def steps() -> set[int]:
        """Which steps the next two halves were folded in."""
        found = set()
        for number in range(32):
            put(store, {f"k{number}": b"v"})
            found.add(store._step)
        return found

    store = open_store(path)
    assert steps() == {8}
    took = folding.STEP_SECONDS * 2
    assert min(steps()) == 2, "and no less"
    took = folding.STEP_SECONDS / 2
    assert steps() == {2}, "neither long nor short"
    took = 0.0
    assert max(steps()) == 8
    assert steps() == {8}
    store.abandon()


def test_what_a_full_disk_kept_out_of_kv_is_folded_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short(monkeypatch, slots=4)
    store = open_store(path)
    for number in range(5):
        put(store, {f"k{number}": b"v"})
    pages = store._conn.execute("PRAGMA page_count").get
    store._conn.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    batch = Batch(6)
    batch.kv[1] = {"a": b"1"}
    batch.pages[1] = dict.fromkeys(range(1, 5), b"p" * 3000)
    with pytest.raises(StoreFull):
        store.write(batch)
    assert in_kv(store) == {}
    store._conn.execute(f"PRAGMA max_page_count = {pages + 100}").fetchall()
    for number in range(5, 9):
        put(store, {f"k{number}": b"v"})
    assert sorted(in_kv(store)) == ["k0", "k1", "k2", "k3"]
    store.abandon()
    with open_again(path) as again:
        assert again.scan(1) == ([(f"k{number}", b"v") for number in range(9)], True)


def test_rows_of_before_there_were_halves_are_read(path: Path, store: SqliteStore) -> None:
    put(store, {"a": b"1"}), put(store, {"b": b"2"})
    conn = store._conn
    conn.execute("UPDATE meta SET value = 7, sum = ? WHERE name = 'format'", (schema.meta_sum("format", 7),))
    store.abandon()
    with open_again(path) as again:
        assert again.scan(1) == ([("a", b"1"), ("b", b"2")], True)
        assert again._conn.execute("SELECT value FROM meta WHERE name = 'format'").get == schema.FORMAT


def test_large_values_are_not_written_twice(store: SqliteStore) -> None:
    put(store, {"small": b"v"})
    put(store, {"large": b"v" * 100_000})
    assert set(in_kv(store)) == {"small", "large"}


def test_a_commit_of_many_small_values_takes_several_rows_and_is_whole_after_a_crash(
    path: Path, store: SqliteStore
) -> None:
    items = {f"key-{number:04}": bytes([number % 251]) * 20 for number in range(500)}
    put(store, dict(items))
    assert [row[0] for row in rows(store, "SELECT part FROM redo")] == list(range(4))
    store.abandon()
    with open_again(path) as again:
        assert again.scan(1) == (sorted(items.items()), True)
        put(again, {"key-0000": b"new"})
        assert again.read(1, "key-0000") == b"new"


def test_an_actor_that_is_cleared_loses_what_was_not_folded(path: Path, store: SqliteStore) -> None:
    put(store, {"a": b"1"})
    batch = Batch(store.commit_seq + 1)
    batch.cleared.add(1)
    batch.kv[1] = {"b": b"2"}
    store.write(batch)
    assert in_kv(store) == {"b": b"2"}
    assert store.scan(1) == ([("b", b"2")], True)


def test_after_a_crash_commits_go_on_behind_the_newest(path: Path, store: SqliteStore) -> None:
    for number in range(5):
        put(store, {"a": b"%d" % number})
    store.abandon()
    for expected in (5, 6):
        with open_again(path) as again:
            assert again.commit_seq == expected
            put(again, {"b": b"x"})
            assert again.read(1, "a") == b"4"


def test_a_clean_stop_leaves_everything_in_kv(path: Path, store: SqliteStore) -> None:
    put(store, {"a": b"1"})
    store.close()
    conn = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    assert conn.execute("SELECT key, value FROM kv").fetchall() == [("a", b"1")]
    assert conn.execute("SELECT value FROM meta WHERE name = 'commit_seq'").get == 1
    conn.close()


def test_what_is_only_in_redo_keeps_a_type_that_left_the_program_known(store: SqliteStore) -> None:
    put(store, {"a": b"1"})
    assert store.lost_types(1, ()) == ["Account"]
    put(store, {"a": None})
    assert store.lost_types(1, ()) == []


def test_a_type_whose_last_keys_were_deleted_is_not_missed_before_that_is_folded(store: SqliteStore) -> None:
    put(store, {"a": b"1", "b": b"1", "c": b"1"})
    store._fold_alone()
    put(store, {"a": None, "b": None})
    assert store.lost_types(1, ()) == ["Account"]
    put(store, {"c": None})
    assert store.lost_types(1, ()) == []
    put(store, {"d": b"1"})
    assert store.lost_types(1, ()) == ["Account"]


DAMAGE = {
    "a bit of the data": ("UPDATE redo SET data = CAST(zeroblob(3900) AS BLOB) WHERE slot = 1", "checksum"),
    "its number": ("UPDATE redo SET seq = 1 WHERE slot = 1", "checksum"),
    "a number of another type": ("UPDATE redo SET seq = 'x' WHERE slot = 1", "checksum"),
    "a commit that is missing": ("DELETE FROM redo WHERE slot = 1", "lacks a part of commit 2"),
    "a part that is missing": ("DELETE FROM redo WHERE slot = 5", "lacks a part of commit 4"),
    "the first row": ("DELETE FROM redo WHERE slot = 0", "lacks a part of commit 1"),
    "a row in the other half": (
        f"UPDATE redo SET slot = slot + {redo.HALF} WHERE slot = 1",
        "lacks a part of commit 2",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_row_is_never_served(path: Path, store: SqliteStore, what: str) -> None:
    for _ in range(3):
        put(store, {"a": b"1"})
    put(store, {f"key-{number:04}": b"v" * 20 for number in range(500)})
    change, told = DAMAGE[what]
    store._conn.execute(change)
    store.abandon()
    with pytest.raises(StoreCorrupt, match=told):
        open_store(path)


def test_a_row_of_before_the_fold_is_not_needed_and_may_rot(path: Path, store: SqliteStore) -> None:
    for number in range(6):
        put(store, {"a": b"%d" % number})
    store._fold_alone()
    put(store, {"a": b"new"}), put(store, {"b": b"new"})
    store._conn.execute("UPDATE redo SET data = CAST(zeroblob(3900) AS BLOB) WHERE slot = 3")
    found = redo.behind(redo.main(store._conn), "")
    assert (found.seq, found.slots, found.rotten) == (8, 2, 1)
    store.abandon()
    with open_again(path) as again:
        assert (again.commit_seq, again.read(1, "a"), again.read(1, "b")) == (8, b"new", b"new")
        for number in range(3):
            put(again, {"a": b"%d" % number})
        assert redo.behind(redo.main(again._conn), "").rotten == 0, "overwritten like any other"
        put(again, {"a": b"newest"})
        again._conn.execute("UPDATE redo SET data = CAST(zeroblob(3900) AS BLOB) WHERE slot = 5")
    with pytest.raises(StoreCorrupt, match="checksum"):
        open_store(path)  # this one may be the newest


class open_again:
    def __init__(self, path: Path) -> None:
        self._store = open_store(path)

    def __enter__(self) -> SqliteStore:
        return self._store

    def __exit__(self, *_: object) -> None:
        self._store.abandon()
