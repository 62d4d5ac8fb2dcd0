"""Messages in the store: listed as they are, never as something else, and forgotten a few at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from actord.errors import StoreCorrupt
from actord.storage.api import Batch, Message
from actord.storage.outbox import REMOVED_AT_ONCE

from tests.storage.stores import open_store

ARGS = b"\x92\x90\x80"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0000.db"


def batch_of(store: Any, *messages: Message, **parts: Any) -> None:
    batch = Batch(store.commit_seq + 1)
    if store.commit_seq == 0:
        batch.actors = [(1, 7, "Account", "ä"), (2, 8, "Account", "b")]
    batch.outbox = {message.id: message for message in messages} | parts.get("outbox", {})
    batch.inbox = dict.fromkeys(parts.get("inbox", ()))
    batch.floors = parts.get("floors", {})
    store.write(batch)
    store.sync()


def message(store: Any, name: str = "b", **fields: Any) -> Message:
    return Message(store.next_message_id(), fields.pop("sender", 1), "Account", name, "take", ARGS, **fields)


def test_messages_are_found_by_what_is_to_be_done_with_them(path):
    store = open_store(path)
    queued, other = message(store), message(store, "c")
    retried = message(store, due=50, attempts=2)
    delayed, later = message(store, due=900), message(store, due=100)
    parked = message(store, due=5, attempts=7, error="RuntimeError: ü")
    batch_of(store, queued, other, retried, delayed, later, parked)
    last = parked.id
    assert store.queued_messages(after=0, until=last, limit=10) == ([queued, other, retried], last)
    assert store.queued_messages(after=0, until=last, limit=2) == ([queued, other], other.id)
    assert store.queued_messages(after=other.id, until=other.id + 1, limit=9) == ([retried], retried.id)
    assert store.pair_messages(1, "Account", "b", after=0, until=last, limit=9) == ([queued, retried], True)
    assert store.pair_messages(1, "Account", "b", after=0, until=last, limit=1) == ([queued], False)
    assert store.pair_messages(2, "Account", "b", after=0, until=last, limit=1) == ([], True)
    assert store.delayed_messages(until=1000, limit=9) == [later, delayed]
    assert store.delayed_messages(until=899, limit=9) == [later]
    assert store.delayed_messages(until=1000, limit=9, after=(100, later.id)) == [delayed]
    assert [e.message for e in store.list_messages(parked=True, after=0, limit=9)] == [parked]
    listed = store.list_messages(parked=False, after=0, limit=9)
    assert [(e.type, e.name, e.message.id) for e in listed][:2] == [
        ("Account", "ä", queued.id),
        ("Account", "ä", other.id),
    ]
    batch_of(store, outbox={queued.id: None})
    assert store.read_message(queued.id) is None
    assert store.read_message(parked.id) == parked
    store.close()
    again = open_store(path)
    assert again.read_message(parked.id) == parked
    again.abandon()


def test_an_id_is_never_given_twice_also_when_its_message_is_gone_and_after_a_crash(path):
    given: list[int] = []
    for life in range(4):
        store = open_store(path)
        for _ in range(3):
            one = message(store)
            given.append(one.id)
            batch_of(store, one)
            batch_of(store, outbox={one.id: None})
        if life % 2:
            store.close()
        else:
            store.abandon()
    assert given == sorted(set(given))


def test_notes_below_a_floor_are_removed_a_few_with_each_commit(path):
    store = open_store(path)
    batch_of(store, inbox=[(1, n) for n in range(1000)] + [(2, 5)])
    assert store.was_received(1, 0)
    batch_of(store, inbox=[(1, 2000)], floors={1: 900})
    assert not store.was_received(1, REMOVED_AT_ONCE - 1)
    assert store.was_received(1, REMOVED_AT_ONCE)
    for n in range(3):
        batch_of(store, inbox=[(1, 3000 + n)], floors={1: 900})
    assert [store.was_received(1, n) for n in (899, 900, 999, 2000)] == [False, True, True, True]
    assert store.was_received(2, 5)
    assert not store.was_received(3, 5)
    store.abandon()


@pytest.mark.parametrize(
    "field", ["name = 'x'", "args = x'00'", "due = 1", "attempts = 1", "id = id + 1", "sum = sum + 1"]
)
def test_a_damaged_message_is_not_delivered_and_holds_up_no_other(path, field):
    store = open_store(path)
    one, two = message(store), message(store)
    batch_of(store, one)
    store._conn.execute(f"UPDATE outbox SET {field}")
    batch_of(store, Message(two.id + 10, 1, "Account", "b", "take", ARGS))
    found, _ = store.queued_messages(after=0, until=1 << 62, limit=9)
    assert [m.id for m in found] == [two.id + 10]
    assert store.read_message(one.id) is None
    store.abandon()


def test_a_damaged_note_is_an_error_and_not_an_answer(path):
    store = open_store(path)
    batch_of(store, inbox=[(1, 5)])
    store._conn.execute("UPDATE inbox SET sum = sum + 1")
    with pytest.raises(StoreCorrupt, match="message 1/5"):
        store.was_received(1, 5)
    store.abandon()
