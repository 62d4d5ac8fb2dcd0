"""A data directory with two shards and something of everything, and all that it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actord.shards.slots import shard_of_slot, slot_of, slot_range
from actord.storage import datadir
from actord.storage.api import Alarm, Batch, Event, Message, Reply
from actord.storage.doctor import examine
from actord.storage.sqlite import SqliteStore

BEFORE = 2
NAMES = [f"name-{n}" for n in range(40)]


def opened(path: Path, number: int, shards: int) -> SqliteStore:
    manifest = datadir.read_manifest(str(path))
    assert manifest.shards == shards
    return SqliteStore.open(
        datadir.shard_paths(str(path), number)[0],
        shard=number,
        identity=manifest.identity,
        slots=slot_range(number, shards),
        checkpoint_wal=1 << 22,
        page_cache=1 << 20,
    )


def home(name: str, shards: int = BEFORE) -> int:
    return shard_of_slot(slot_of("Till", name), shards)


def fill(path: Path) -> None:
    """Make a data directory with something of everything; its shards stopped uncleanly."""
    datadir.open_data_dir(str(path), shards=BEFORE, ballast=0).close()
    stores = [opened(path, number, BEFORE) for number in range(BEFORE)]
    sent: list[tuple[int, Message]] = []
    for name in NAMES:
        store = stores[home(name)]
        id_ = store.next_actor_id()
        batch = Batch(store.commit_seq + 1)
        batch.actors.append((id_, slot_of("Till", name), "Till", name))
        batch.kv[id_] = {"a": name.encode(), "b": b"\x01"}
        batch.page_counts[id_], batch.pages[id_] = 2, {1: b"one" + name.encode(), 2: b"two"}
        batch.alarms[id_] = Alarm(5, 5, 1, None if id_ % 2 else "it failed")
        batch.events[id_] = [Event(n, "kind", b'"x"', 1 << 50) for n in (1, 2, 3)]
        batch.event_logs[id_] = 1, 3
        if id_ % 3 == 0:
            batch.versions[id_] = id_
        for n in range(3):
            batch.replies[id_, f"key-{n}"] = Reply(100 + n, b"d" * 16, 200, None, b"%d" % n)
        for n, receiver in enumerate((NAMES[0], NAMES[1], NAMES[0])):
            message = Message(store.next_message_id(), id_, "Till", receiver, f"method_{n}", b"\x92\x90\x80")
            batch.outbox[message.id] = message
            if home(receiver) != home(name) and n == 0:
                sent.append((home(name), message))
        store.write(batch)
    for sender, message in sent:  # they have taken effect, and their senders don't know it yet
        store = stores[home(message.name)]
        batch = Batch(store.commit_seq + 1)
        batch.inbox[sender, message.id] = None
        store.write(batch)
    for store in stores:
        store.sync()
        store.abandon()


def content(path: Path, shards: int, *, received: bool = False) -> dict[str, Any]:
    """What the store says about every actor. ``received``: the messages that took effect are looked up by hand."""
    found: dict[str, Any] = {}
    stores = [opened(path, number, shards) for number in range(shards)]
    for name in NAMES:
        slot = slot_of("Till", name)
        store = stores[shard_of_slot(slot, shards)]
        id_ = store.find_actor(slot, "Till", name)
        assert id_ is not None
        messages = [m for m in store.queued_messages(after=0, until=1 << 62, limit=10_000)[0] if m.sender == id_]
        if received:
            messages = [m for m in messages if not stores[home(m.name)].was_received(home(name), m.id)]
        found[name] = {
            "kv": store.scan(id_),
            "pages": [store.read_page(id_, n) for n in range(1, store.page_count(id_) + 1)],
            "alarm": store.read_alarm(id_),
            "version": store.read_version(id_),
            "events": store.read_events(id_, after=0, batch=1 << 40, limit=10, limit_bytes=1 << 20),
            "log": store.event_log(id_),
            "replies": {key: store.read_reply(id_, key) for key in store.reply_keys(id_)},
            "keys": store.reply_keys(id_),
            "messages": [m[2:] for m in messages],
        }
    for store in stores:
        store.close()
    return found


def healthy(path: Path) -> bool:
    return not examine(str(path), slot_of=slot_of, slot_range=slot_range, deep=False).damaged
