"""The store of one shard, as the shard sees it: load, read, commit a numbered batch, make it durable.

Contract, for any engine:

1. ``write`` applies a whole batch or nothing. Batches arrive in the order of their numbers, without gaps, and the
   number is stored in the same transaction.
2. Reads see every batch whose ``write`` has returned, durable or not.
3. ``sync`` returns only when every batch written before it was called survives a power cut. It alone may be called
   from a thread of its own, and never twice at once.
4. ``StoreFull`` from ``write`` means that nothing of the batch was applied, for certain, and that the store works on.
   Any other failure of ``write``, ``sync`` or ``maintain`` is ``StoreBroken``: the outcome is unknown, and no method
   may be called again, reads included.
5. A row that was not written by this store for this actor and key is never returned: ``StoreCorrupt`` instead.

Nothing above this interface assumes a file: an engine on a database server leases slots and checks an epoch in
``write``.
"""

from __future__ import annotations

from typing import Protocol


class Batch:
    """The writes of the turns that share one commit.

    ``kv`` maps actor id -> key -> encoded value, None for a deletion. An actor in ``cleared`` loses all of its keys
    before its part of ``kv`` is applied. ``actors`` are the names that get their id with this batch.
    Later parts of a group commit (pages, alarms, idempotency records, outbox) become attributes of their own.
    """

    __slots__ = ("actors", "cleared", "kv", "seq")

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.kv: dict[int, dict[str, bytes | None]] = {}
        self.cleared: set[int] = set()
        self.actors: list[tuple[int, int, str, str]] = []  # (id, slot, type, name)

    def __bool__(self) -> bool:
        return bool(self.kv or self.cleared or self.actors)


class Store(Protocol):
    """See the contract above. All sizes are bytes."""

    commit_seq: int  # the number of the newest batch written, 0 in a new store
    epoch: int  # how often the store has been opened, this time included

    def find_actor(self, slot: int, type_: str, name: str) -> int | None:
        """The id of an actor that has written before, else None."""
        ...

    def next_actor_id(self) -> int:
        """A new id, never used before in this store; it is taken by naming it in ``Batch.actors``."""
        ...

    def read(self, actor: int, key: str) -> bytes | None: ...

    def scan(
        self,
        actor: int,
        *,
        start: str | None = None,
        start_after: bool = False,
        end: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        limit_bytes: int | None = None,
    ) -> tuple[list[tuple[str, bytes]], bool]:
        """Rows of one actor in key order, and whether the range was read to its end.

        ``start`` inclusive (exclusive with ``start_after``), ``end`` exclusive, in key order also when ``reverse``.
        Stops after ``limit`` rows, or when the values read exceed ``limit_bytes``.
        """
        ...

    def write(self, batch: Batch) -> None: ...

    def sync(self) -> None: ...

    @property
    def sync_fd(self) -> int:
        """The descriptor whose ``fdatasync`` is what ``sync`` does, for whoever has a cheaper way to run it."""
        ...

    def sync_failed(self, error: OSError) -> Exception:
        """That way failed: the store is broken from now on. Returns the ``StoreBroken`` to report."""
        ...

    def maintain(self) -> None:
        """Called on the loop thread between commits, when nothing is in flight: checkpoints when one is due."""
        ...

    def close(self) -> None:
        """A clean stop: everything durable, a marker with the last number left behind."""
        ...

    def abandon(self) -> None:
        """Let go of files and locks without another write, after ``StoreBroken``."""
        ...
