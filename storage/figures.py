"""What a store knows of its own size, for whoever watches it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    from actord.storage.sqlite import SqliteStore


def figures(store: SqliteStore) -> dict[str, float]:
    """Sizes in bytes and counts since it was opened, by the names of their metrics. Costs a few microseconds."""
    found: dict[str, float] = {
        "actord_wal_bytes": store.wal_bytes,
        "actord_checkpoints_total": store.checkpoints,
        "actord_disk_full_total": store.full_events,
        "actord_shard_disk_full": int(store.full),
    }
    with suppress(OSError):
        found["actord_database_bytes"] = os.stat(store.path).st_size
    with suppress(apsw.Error):
        found["actord_page_cache_bytes"] = store.cache_bytes()
    return found
