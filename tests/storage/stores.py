"""Stores for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actord.storage.api import Batch
from actord.storage.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]  # where child processes find the package of tests
IDENTITY = "0b5c3f0e-5a6f-4a44-8f5c-1f8f7d0c7a55"


def open_store(path: Path | str, **options: Any) -> SqliteStore:
    settings: dict[str, Any] = {
        "shard": 0,
        "identity": IDENTITY,
        "slots": range(1024),
        "checkpoint_wal": 1 << 20,
        "page_cache": 1 << 20,
        "lock_wait": 0,
    }
    return SqliteStore.open(str(path), **(settings | options))


def put(store: SqliteStore, items: dict[str, bytes | None], *, actor: int = 1) -> None:
    """One batch that changes keys of one actor; the actor is named with its first batch."""
    batch = Batch(store.commit_seq + 1)
    if store.find_actor(actor, "Account", f"name-{actor}") is None:
        batch.actors.append((actor, actor, "Account", f"name-{actor}"))
    batch.kv[actor] = items
    store.write(batch)


def fill(store: SqliteStore, *, value_bytes: int = 65_536, most: int = 10_000) -> int:
    """Write until the disk is full and let that error out; returns only when ``most`` batches fitted."""
    for number in range(most):
        put(store, {f"fill-{number}": bytes([number % 251]) * value_bytes})
        store.sync()
        store.maintain()
    return most
