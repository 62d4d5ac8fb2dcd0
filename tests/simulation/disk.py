"""A store in memory and the disk below it: what was synced survives a crash, what was only written may.

Of the batches that were written and not synced a crash leaves a prefix, whose length the dice decide: the log has them
in their order, and each is whole or not there.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from actord.storage.api import Batch

from tests.support.memory_store import MemoryStore, broken, full


class Faults:
    """How likely things go wrong; none of them does once ``on`` is False."""

    def __init__(self, dice: random.Random) -> None:
        self.on = True
        self.dice = dice
        self.full = dice.choice((0.0, 0.05, 0.2, 0.4))
        self.broken_write = dice.choice((0.0, 0.0, 0.03))
        self.broken_sync = dice.choice((0.0, 0.0, 0.04))
        self.slow_sync = dice.choice((0.0, 0.01, 0.3, 2.0))

    def strikes(self, chance: float) -> bool:
        return self.on and chance > 0 and self.dice.random() < chance


class SimStore(MemoryStore):
    """Writes go to memory and to ``unsynced``; ``sync`` moves what was written before it was asked for to ``disk``."""

    def __init__(self, disk: MemoryStore, faults: Faults) -> None:
        super().__init__()
        _copy(disk, self)
        self.epoch = disk.epoch + 1
        self.disk = disk
        self.faults = faults
        self.unsynced: deque[Batch] = deque()

    def write(self, batch: Batch) -> None:
        if self.faults.strikes(self.faults.full):
            self.fail_write.append(full())
        elif self.faults.strikes(self.faults.broken_write):
            self.unsynced.append(batch)  # it may have reached the log all the same
            self.fail_write.append(broken())
        super().write(batch)
        self.unsynced.append(batch)

    def sync_to(self, seq: int) -> None:
        """The sync that was asked for when ``seq`` was the newest batch returns."""
        if self.faults.strikes(self.faults.broken_sync):
            self.fail_sync.append(broken())
        super().sync()
        while self.unsynced and self.unsynced[0].seq <= seq:
            self.disk.write(self.unsynced.popleft())

    def crash(self, dice: random.Random) -> None:
        """The machine is gone: decide what else reached the disk."""
        for _ in range(dice.randint(0, len(self.unsynced))):
            self.disk.write(self.unsynced.popleft())
        self.unsynced.clear()
        self.is_broken = True  # nothing that still runs reaches the disk


def _copy(source: MemoryStore, target: MemoryStore) -> None:
    target.commit_seq = target.durable_seq = source.commit_seq
    target.rows = {actor: dict(rows) for actor, rows in source.rows.items()}
    target.pages = {actor: dict(pages) for actor, pages in source.pages.items()}
    target.actors = dict(source.actors)
    target.alarms = dict(source.alarms)
    target._last_id = max(source.actors.values(), default=0)


class SimFlusher:
    """Syncs that return when the dice say so, or before ``submit`` does."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.here = False

    def submit(self, store: Any, done: Callable[[BaseException | None], None]) -> None:
        seq = store.commit_seq
        here, self.here = self.here, self._faults.dice.random() < 0.5
        delay = self._faults.slow_sync * self._faults.dice.random() if self._faults.on else 0.001

        def back() -> None:
            error: BaseException | None = None
            try:
                store.sync_to(seq)
            except BaseException as caught:
                error = caught
            done(error)

        if here:
            back()
        else:
            asyncio.get_running_loop().call_later(delay, back)
