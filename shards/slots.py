"""Which shard owns a slot. The hash of keys is ``actord.slots``, which clients need as well."""

from __future__ import annotations

from actord.slots import SLOTS as SLOTS
from actord.slots import slot_of as slot_of


def shard_of_slot(slot: int, shards: int) -> int:
    """Slots are dealt to shards in contiguous ranges whose sizes differ by at most one."""
    return slot * shards // SLOTS


def slot_range(shard: int, shards: int) -> range:
    """The slots of one shard."""
    first = -(-shard * SLOTS // shards)
    last = -(-(shard + 1) * SLOTS // shards)
    return range(first, last)
