"""Changes one value of one actor in a data directory on which no server runs.

It is a commit like those of a server: the shard is opened, recovered and checked as a worker does it, the batch is
written and synced, and the stop is a clean one.
"""

from __future__ import annotations

from actord.errors import DataDirError
from actord.storage.api import Batch
from actord.storage.audit import record
from actord.storage.datadir import open_data_dir
from actord.storage.sqlite import SqliteStore

_LOG_BYTES = 64 * 1024 * 1024
_CACHE_BYTES = 8 * 1024 * 1024


def change(
    path: str,
    shard: int,
    slots: range,
    slot: int,
    type_: str,
    name: str,
    key: str,
    raw: bytes | None,
    entry: dict[str, object],
) -> bytes | None:
    """Store ``raw`` under ``key``, or remove the key where it is None; ``entry`` goes to the audit. The value before.

    Removing what is not there changes nothing. Raises ``DataDirLocked`` when a server runs, ``DataDirError`` for an
    actor that has never written something, or what opening and writing a store raise.
    """
    data_dir = open_data_dir(path, shards=1, ballast=0)
    try:
        store = SqliteStore.open(
            data_dir.shard_path(shard),
            shard=shard,
            identity=data_dir.identity,
            slots=slots,
            checkpoint_wal=_LOG_BYTES,
            page_cache=_CACHE_BYTES,
        )
        try:
            actor = store.find_actor(slot, type_, name)
            if actor is None:
                raise DataDirError(
                    f"There is no {type_}/{name!r}: it has never written anything. A server, which has its class, can "
                    "make it."
                )
            before = store.read(actor, key)
            if raw is not None or before is not None:
                record(data_dir.path, entry)
                batch = Batch(store.commit_seq + 1)
                batch.kv[actor] = {key: raw}
                store.write(batch)
                store.sync()
        finally:
            store.close()
        return before
    finally:
        data_dir.close()
