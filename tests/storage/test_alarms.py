"""Alarms in the store: read back as written, listed in the order in which they are due, never a damaged one."""

from __future__ import annotations

import logging
from pathlib import Path

import apsw
import pytest
from actord.errors import DataDirError, StoreCorrupt
from actord.storage import alarms, schema
from actord.storage.api import Alarm, AlarmEntry, Batch
from actord.storage.sqlite import SqliteStore
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lots import cases

FOREVER = 1 << 60


def opened(folder: Path) -> SqliteStore:
    return SqliteStore.open(
        str(folder / "0000.db"),
        shard=0,
        identity="6f2d6f0e-3f5b-4d0b-9d9b-7c3f1d3a2b10",
        slots=range(1024),
        checkpoint_wal=1024 * 1024,
        page_cache=1024 * 1024,
        lock_wait=0,
    )


def write(store: SqliteStore, changed: dict[int, Alarm | None], new: range = range(0)) -> None:
    batch = Batch(store.commit_seq + 1)
    batch.actors += [(id_, id_ % 1024, "Timer", f"name-{id_}") for id_ in new]
    batch.alarms.update(changed)
    store.write(batch)


def entry(actor: int, alarm: Alarm) -> AlarmEntry:
    return AlarmEntry(actor, "Timer", f"name-{actor}", alarm)


def test_an_alarm_comes_back_as_it_was_written_also_after_a_restart(tmp_path: Path) -> None:
    written = {
        1: Alarm(due=5, scheduled=3, retries=2),
        2: Alarm(due=0, scheduled=0),
        3: Alarm(due=9, scheduled=9, retries=7, error="ünlucky\n\0"),
        4: Alarm(due=1, scheduled=1, error=""),
    }
    store = opened(tmp_path)
    write(store, dict(written), new=range(1, 6))
    for _ in range(2):
        assert {actor: store.read_alarm(actor) for actor in written} == written
        assert store.read_alarm(5) is None
        assert [e.actor for e in store.armed_alarms(until=FOREVER, limit=10)] == [2, 1]
        assert store.failed_alarms(limit=10) == [entry(3, written[3]), entry(4, written[4])]
        store.close()
        store = opened(tmp_path)
    store.close()


def test_an_alarm_is_replaced_and_removed_by_its_actor(tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {1: Alarm(5, 5), 2: Alarm(6, 6)}, new=range(1, 3))
    write(store, {1: Alarm(7, 7), 2: None})
    assert store.armed_alarms(until=FOREVER, limit=10) == [entry(1, Alarm(7, 7))]
    write(store, {1: Alarm(7, 7, 6, "failed")})
    assert store.armed_alarms(until=FOREVER, limit=10) == []
    assert store.failed_alarms(limit=10) == [entry(1, Alarm(7, 7, 6, "failed"))]
    store.close()


def test_an_actor_that_is_cleared_keeps_its_alarm(tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {1: Alarm(5, 5)}, new=range(1, 2))
    batch = Batch(store.commit_seq + 1)
    batch.cleared.add(1)
    store.write(batch)
    assert store.read_alarm(1) == Alarm(5, 5)
    store.close()


@settings(max_examples=cases(25), deadline=None)
@given(
    dues=st.lists(st.integers(0, 12), max_size=30),
    until=st.integers(0, 12),
    page=st.integers(1, 7),
)
def test_pages_of_armed_alarms_are_the_due_ones_in_order_of_due_time_and_actor(
    dues: list[int], until: int, page: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = opened(tmp_path_factory.mktemp("store"))
    write(store, {a: Alarm(d, d) for a, d in enumerate(dues, 1)}, new=range(1, len(dues) + 1))
    found: list[AlarmEntry] = []
    after = (-1, 0)
    while part := store.armed_alarms(until=until, limit=page, after=after):
        assert len(part) <= page
        found += part
        after = (part[-1].alarm.due, part[-1].actor)
    expected = sorted((d, a) for a, d in enumerate(dues, 1) if d <= until)
    assert [(e.alarm.due, e.actor) for e in found] == expected
    store.close()


@pytest.mark.parametrize("query", [alarms._ARMED, alarms._FAILED])
def test_a_listing_walks_an_index_and_sorts_nothing(query: str, tmp_path: Path) -> None:
    store = opened(tmp_path)
    plan = " / ".join(
        str(row[3]) for row in store._conn.execute("EXPLAIN QUERY PLAN " + query, (1,) * query.count("?"))
    )
    assert "USING INDEX alarm_" in plan or "USING COVERING INDEX alarm_" in plan, plan
    assert "TEMP B-TREE" not in plan
    store.close()


@pytest.mark.parametrize("column", ["due", "scheduled", "retries", "actor", "sum"])
def test_a_flipped_bit_is_never_an_alarm(column: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(tmp_path)
    write(store, {1: Alarm(4, 4), 3: Alarm(8, 8)}, new=range(1, 5))
    store._conn.execute(f"UPDATE alarm SET {column} = {column} + 1 WHERE actor = 1")
    damaged = 2 if column == "actor" else 1
    with pytest.raises(StoreCorrupt, match="checksum"):
        store.read_alarm(damaged)
    with caplog.at_level(logging.CRITICAL):
        for _ in range(3):
            assert store.armed_alarms(until=FOREVER, limit=1) == [entry(3, Alarm(8, 8))]
    assert len([r for r in caplog.records if "does not fire" in r.message]) == 1
    store.close()


def test_an_error_that_was_lost_or_found_is_damage(tmp_path: Path) -> None:
    store = opened(tmp_path)
    write(store, {1: Alarm(4, 4, 6, ""), 2: Alarm(4, 4)}, new=range(1, 3))
    store._conn.execute("UPDATE alarm SET error = CASE WHEN error IS NULL THEN '' END")
    assert store.armed_alarms(until=FOREVER, limit=9) == []
    assert store.failed_alarms(limit=9) == []
    store.close()


def test_a_database_of_the_format_before_alarms_is_brought_up_to_date(tmp_path: Path) -> None:
    store = opened(tmp_path)
    batch = Batch(1)
    batch.actors.append((1, 1, "Timer", "name-1"))
    batch.kv[1] = {"kept": b"value"}
    store.write(batch)
    store.close()
    conn = apsw.Connection(str(tmp_path / "0000.db"))
    conn.execute("DROP TABLE alarm; UPDATE meta SET value = 1 WHERE name = 'format'; ALTER TABLE meta DROP COLUMN sum")
    conn.close()
    store = opened(tmp_path)
    assert store.read(1, "kept") == b"value"
    write(store, {1: Alarm(5, 5)})
    store.close()
    store = opened(tmp_path)
    assert store.read_alarm(1) == Alarm(5, 5)
    store.close()
    conn = apsw.Connection(str(tmp_path / "0000.db"))
    conn.execute("UPDATE meta SET value = ? WHERE name = 'format'", (schema.FORMAT + 1,))
    conn.close()
    with pytest.raises(DataDirError, match="newer actord"):
        opened(tmp_path)


def test_a_page_of_the_nearest_alarms_is_read_without_the_rest(tmp_path: Path) -> None:
    """100,000 armed ones: SQLite steps over a page of rows, not over all."""
    store = opened(tmp_path)
    count = 100_000
    write(store, {a: Alarm(a, a) for a in range(1, count + 1)}, new=range(1, count + 1))
    steps = 0

    def step() -> bool:
        nonlocal steps
        steps += 1
        return False

    store._conn.set_progress_handler(step, 100)
    page = store.armed_alarms(until=FOREVER, limit=64, after=(50_000, 0))
    store._conn.set_progress_handler(None)
    assert [e.actor for e in page] == list(range(50_000, 50_064))
    assert steps * 100 < 64 * 200
    store.close()
