"""Changes an actor as a whole in a data directory on which no server runs: puts one into its place, or removes one.

It is a commit like those of a server: the shard is opened, recovered and checked as a worker does it, the batch is
written and synced, and the stop is a clean one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from actord.storage.api import Alarm, Batch
from actord.storage.audit import record
from actord.storage.datadir import open_data_dir, read_manifest
from actord.storage.sqlite import SqliteStore
from actord.storage.versions import FIRST

_LOG_BYTES = 64 * 1024 * 1024
_CACHE_BYTES = 8 * 1024 * 1024


class Place(NamedTuple):
    """Where an actor lives."""

    path: str
    shard: int
    slots: range  # of that shard
    slot: int
    type: str
    name: str


class Content(NamedTuple):
    version: int
    values: dict[str, bytes]
    pages: list[bytes]
    alarm: Alarm | None


def put_actor(place: Place, content: Content, *, replace: bool, entry: dict[str, object]) -> bool:
    """Make ``content`` all that an actor has; ``entry`` goes to the audit.

    False: it has data already, and they were left alone (``replace`` is not set). Raises ``DataDirLocked`` when a
    server runs, ``DataDirError``, or what opening and writing a store raise.
    """
    with _opened(place) as (path, store):
        actor = store.find_actor(place.slot, place.type, place.name)
        if actor is not None and not replace and _has_data(store, actor):
            return False
        record(path, entry)
        batch = Batch(store.commit_seq + 1)
        if actor is None:
            actor = store.next_actor_id()
            batch.actors.append((actor, place.slot, place.type, place.name))
        batch.cleared.add(actor)
        batch.kv[actor] = dict(content.values)
        if content.pages:
            batch.page_counts[actor] = len(content.pages)
            batch.pages[actor] = dict(enumerate(content.pages, 1))
        batch.alarms[actor] = content.alarm
        if content.version != FIRST or store.read_version(actor) != FIRST:
            batch.versions[actor] = content.version
        store.write(batch)
        store.sync()
        return True


def remove_actor(place: Place, entry: dict[str, object], same: Callable[[Content], bool]) -> bool:
    """Remove all that an actor has but the messages that it has sent, if ``same`` says that this is what is meant.

    False when it is not, or there is nothing.
    """
    with _opened(place) as (path, store):
        actor = store.find_actor(place.slot, place.type, place.name)
        if actor is None or not _has_data(store, actor) or not same(_content(store, actor)):
            return False
        record(path, entry)
        batch = Batch(store.commit_seq + 1)
        batch.cleared.add(actor)
        batch.alarms[actor] = None
        _, last = store.event_log(actor)
        if last:
            batch.event_logs[actor] = last + 1, last
        for key in store.reply_keys(actor):
            batch.replies[actor, key] = None
        store.write(batch)
        store.sync()
        return True


@contextmanager
def _opened(place: Place) -> Iterator[tuple[str, SqliteStore]]:
    read_manifest(place.path)  # nothing is made where nothing is
    data_dir = open_data_dir(place.path, shards=1, ballast=0)
    try:
        store = SqliteStore.open(
            data_dir.shard_path(place.shard),
            shard=place.shard,
            identity=data_dir.identity,
            slots=place.slots,
            checkpoint_wal=_LOG_BYTES,
            page_cache=_CACHE_BYTES,
        )
        try:
            yield data_dir.path, store
        finally:
            store.close()
    finally:
        data_dir.close()


def _content(store: SqliteStore, actor: int) -> Content:
    pages = [store.read_page(actor, number) or b"" for number in range(1, store.page_count(actor) + 1)]
    return Content(store.read_version(actor), dict(store.scan(actor)[0]), pages, store.read_alarm(actor))


def _has_data(store: SqliteStore, actor: int) -> bool:
    return bool(store.scan(actor, limit=1)[0] or store.page_count(actor) or store.read_alarm(actor))
