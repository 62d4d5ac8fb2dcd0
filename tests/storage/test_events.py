"""Events in the store: numbered without a gap, kept from first to last, read up to what is durable, never damaged."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from actord.errors import StoreCorrupt
from actord.storage import schema
from actord.storage.api import Batch, Event, ExpiredEvents
from actord.storage.sqlite import SqliteStore

from tests.storage.stores import open_store
from tests.support.memory_store import MemoryStore

EVERY = {"batch": 1 << 60, "limit": 1000, "limit_bytes": 1 << 30}
Any_Store = SqliteStore | MemoryStore


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any_Store:
    return MemoryStore() if request.param == "memory" else open_store(tmp_path / "0000.db")


def emit(store: Any_Store, actor: int, seqs: range, *, first: int = 1, until: int = 1_000) -> None:
    batch = Batch(store.commit_seq + 1)
    if store.find_actor(actor, "Ticker", f"name-{actor}") is None:
        batch.actors.append((actor, actor, "Ticker", f"name-{actor}"))
    batch.events[actor] = [event(seq, until) for seq in seqs]
    batch.event_logs[actor] = first, seqs[-1]
    store.write(batch)


def event(seq: int, until: int = 1_000) -> Event:
    return Event(seq, f"prïce-{seq}", b"[%d]" % seq, until)


def numbers(store: Any_Store, actor: int = 1, *, after: int = 0, **options: int) -> list[int]:
    return [e.seq for e in store.read_events(actor, after=after, **(EVERY | options))]


def test_events_come_back_as_they_were_written_also_after_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path / "0000.db")
    emit(store, 1, range(1, 4))
    for _ in range(2):
        assert store.read_events(1, after=0, **EVERY) == [event(1), event(2), event(3)]
        assert store.event_log(1) == (1, 3)
        assert store.event_log(2) == (1, 0)
        assert store.read_events(2, after=0, **EVERY) == []
        store.close()
        store = open_store(tmp_path / "0000.db")
    store.close()


def test_reading_goes_on_after_a_number_and_stops_at_its_limits(store: Any_Store) -> None:
    emit(store, 1, range(1, 10))
    emit(store, 2, range(1, 3))
    assert numbers(store, after=6) == [7, 8, 9]
    assert numbers(store, after=9) == []
    assert numbers(store, after=2, limit=3) == [3, 4, 5]
    assert numbers(store, limit_bytes=1) == [1], "one event at least: a reader must get on"
    assert numbers(store, limit_bytes=7) == [1, 2, 3]


def test_what_the_log_lets_go_is_removed_and_its_number_stays(store: Any_Store) -> None:
    emit(store, 1, range(1, 6))
    emit(store, 1, range(6, 8), first=4)
    assert numbers(store) == [4, 5, 6, 7]
    batch = Batch(store.commit_seq + 1)
    batch.event_logs[1] = 8, 7
    store.write(batch)
    assert numbers(store) == []
    assert store.event_log(1) == (8, 7)
    emit(store, 1, range(8, 9), first=8)
    assert numbers(store) == [8]


def test_more_events_than_are_kept_may_come_in_one_commit(store: Any_Store) -> None:
    emit(store, 1, range(1, 10), first=8)
    assert numbers(store) == [8, 9]


def test_clearing_an_actor_keeps_its_events(store: Any_Store) -> None:
    emit(store, 1, range(1, 4))
    batch = Batch(store.commit_seq + 1)
    batch.cleared.add(1)
    store.write(batch)
    assert numbers(store) == [1, 2, 3]


def test_a_reader_can_leave_out_what_later_commits_brought(store: Any_Store) -> None:
    emit(store, 1, range(1, 3))
    emit(store, 2, range(1, 2))
    emit(store, 1, range(3, 6))
    assert numbers(store, batch=2) == [1, 2]
    assert store.last_event(1, batch=2) == 2
    assert store.last_event(1, batch=3) == 5
    assert store.last_event(2, batch=1) == 0
    assert store.last_event(3, batch=3) == 0
    emit(store, 1, range(6, 10), first=8)  # it takes with it all that was there before
    assert store.last_event(1, batch=3) == 7
    assert numbers(store, batch=3) == []


def test_expired_events_are_found_with_the_number_up_to_which_they_go(store: Any_Store) -> None:
    emit(store, 1, range(1, 3), until=10)
    emit(store, 1, range(3, 4), until=20)
    emit(store, 2, range(1, 2), until=15)
    assert store.expired_events(now=9, limit=10) == []
    assert store.expired_events(now=10, limit=10) == [ExpiredEvents(1, "Ticker", "name-1", 2)]
    assert store.expired_events(now=30, limit=10) == [
        ExpiredEvents(1, "Ticker", "name-1", 3),
        ExpiredEvents(2, "Ticker", "name-2", 1),
    ]
    assert store.expired_events(now=30, limit=1) == [ExpiredEvents(1, "Ticker", "name-1", 1)]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE event SET data = x'5b335d' WHERE seq = 2",
        "UPDATE event SET kind = 'other' WHERE seq = 2",
        "UPDATE event SET kind = x'ff' WHERE seq = 2",
        "UPDATE event SET data = 'text' WHERE seq = 2",
        "UPDATE event SET until = until + 1 WHERE seq = 2",
        "UPDATE event SET batch = 'x' WHERE seq = 2",
        "UPDATE event SET seq = 9 WHERE seq = 2",
    ],
)
def test_a_damaged_event_is_never_returned(damage: str, tmp_path: Path) -> None:
    store = open_store(tmp_path / "0000.db")
    emit(store, 1, range(1, 3))
    store.close()
    _execute(tmp_path, damage)
    store = open_store(tmp_path / "0000.db")
    with pytest.raises(StoreCorrupt):
        store.read_events(1, after=0, **EVERY)
    assert numbers(store, limit=1) == [1], "what is before it can be read"


def test_a_damaged_log_of_events_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path / "0000.db")
    emit(store, 1, range(1, 3))
    store.close()
    _execute(tmp_path, "UPDATE event_log SET last = 1")
    store = open_store(tmp_path / "0000.db")
    with pytest.raises(StoreCorrupt, match="log of events of actor 1"):
        store.event_log(1)


def test_a_database_without_events_gets_their_tables(tmp_path: Path) -> None:
    store = open_store(tmp_path / "0000.db")
    store.close()
    _execute(tmp_path, "DROP TABLE event", "DROP TABLE event_log")
    conn = apsw.Connection(str(tmp_path / "0000.db"))
    conn.execute("UPDATE meta SET value = 4, sum = ? WHERE name = 'format'", (schema.meta_sum("format", 4),))
    conn.close()
    store = open_store(tmp_path / "0000.db")
    emit(store, 1, range(1, 3))
    assert numbers(store) == [1, 2]


def _execute(folder: Path, *statements: str) -> None:
    conn = apsw.Connection(str(folder / "0000.db"))
    for statement in statements:
        conn.execute(statement)
    conn.close()
