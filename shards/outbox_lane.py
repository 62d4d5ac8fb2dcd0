"""What the deliverer keeps of one shard's messages: pairs under way, how far it has read, and the floors."""

from __future__ import annotations

import asyncio
from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from actord.shards.slots import shard_of_slot, slot_of
from actord.storage.api import Message

if TYPE_CHECKING:
    from actord.shards.shard import Shard
    from actord.storage.api import Batch

FOREVER = 1 << 62
PairKey = tuple[int, str, str]  # sender, receiver's type and name


def key_of(message: Message) -> PairKey:
    return message.sender, message.type, message.name


class Pair:
    """A sender and a receiver with a message that is not done: ``current``. Everything behind it waits."""

    __slots__ = ("current", "flying", "more", "queue", "slot", "timer", "tries")

    def __init__(self, current: Message) -> None:
        self.current: Message | None = current
        self.slot = slot_of(current.type, current.name)
        self.queue: deque[Message] = deque()  # what follows, in order
        self.more = False  # and behind that there are others, in the store
        self.flying = False  # being delivered, or its outcome is being written
        self.timer: asyncio.TimerHandle | None = None  # until the next attempt
        self.tries = 0  # attempts that found nobody


class Floor:
    """The lowest id that may still be delivered to one shard."""

    __slots__ = ("_alive", "_order")

    def __init__(self) -> None:
        self._alive: set[int] = set()
        self._order: list[int] = []  # a heap of them, and of some that are gone

    def add(self, id_: int) -> None:
        self._alive.add(id_)
        heappush(self._order, id_)

    def drop(self, id_: int) -> None:
        self._alive.discard(id_)
        while self._order and self._order[0] not in self._alive:
            heappop(self._order)

    def value(self, otherwise: int) -> int:
        return self._order[0] if self._order else otherwise


class Lane:
    """The outbox of one shard. Messages up to ``known`` are in ``pairs``, behind one of them in the store, or done.

    Those above it, up to ``durable``, are read from the store when there is room in memory; usually there are none,
    because new messages come here by themselves, as long as they fit.
    """

    __slots__ = (
        "_floors",
        "_shards",
        "batch",
        "changes",
        "durable",
        "fresh",
        "known",
        "next_due",
        "pairs",
        "redo",
        "releasing",
        "shard",
    )

    def __init__(self, shard: Shard, shards: int) -> None:
        self.shard = shard
        self._shards = shards
        self._floors: dict[int, Floor] = {}  # by receiving shard
        self.pairs: dict[PairKey, Pair] = {}
        self.fresh: list[Message] = []  # durable since the last step
        self.known = 0
        self.durable = 0
        self.next_due = FOREVER  # no delay ends before
        self.releasing = False
        # what was last written about messages, and the batch that it is in
        self.batch: Batch | None = None
        self.changes: list[Change] = []
        self.redo: dict[int, Change] = {}  # changes that a full disk did not take, by message

    @property
    def behind(self) -> bool:
        return self.known < self.durable

    def destination(self, slot: int) -> int:
        return shard_of_slot(slot, self._shards)

    def floor_for(self, slot: int) -> Floor:
        shard = self.destination(slot)
        floor = self._floors.get(shard)
        if floor is None:
            floor = self._floors[shard] = Floor()
        return floor

    def mark(self, message: Message, slot: int) -> list[int]:
        """What a receiver is told with a message: shard, id, floor."""
        return [self.shard.number, message.id, self.floor_for(slot).value(self.known + 1)]

    def removed(self, id_: int) -> bool:
        """Whether the open batch removes a message that the store still shows."""
        changes = self.shard.committer.batch.outbox
        return id_ in changes and changes[id_] is None


class Change:
    """A message as it is from now on, None when it is gone; and what follows once that is durable."""

    __slots__ = ("id", "message", "pair", "slot")

    def __init__(self, id_: int, message: Message | None, slot: int, pair: Pair | None) -> None:
        self.id = id_
        self.message = message
        self.slot = slot
        self.pair = pair  # goes on with its next message then
