"""The receiver's side of a message: it takes effect once, however often it is delivered.

1. A message of another shard is noted in the receiver's shard, in the commit of the turn that it caused. When it comes
   again, it is answered without a turn, as soon as that commit is durable.
2. A message of the receiver's own shard needs no note: that commit removes it from the outbox.
3. The sending shard says with each message below which id it will never deliver again to this shard (its *floor*).
   Notes below it are removed, and what still comes from below it is an echo, and is not run.
4. A refusal (no such method, arguments that do not fit) is told to the sender only if the message has not taken effect
   before: the program may have changed since.

Crash story: a note is there exactly if the effect is. Floors are in memory; the next message brings them again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actord import codec
from actord.errors import ActorUnavailable
from actord.shards.call import Call, Once
from actord.shards.problem import MSGPACK_HEAD
from actord.shards.wire import WireError

if TYPE_CHECKING:
    from actord.shards.shard import Shard
    from actord.storage.api import Batch

NOTHING = codec.encode(None)


class FromElsewhere(Once):
    """A message of another shard."""

    __slots__ = ("_key",)

    def __init__(self, key: tuple[int, int]) -> None:
        self._key = key  # shard, id

    def answered(self, call: Call) -> bool:
        if not has_come(call.act.shard, self._key):
            return False
        # Its note came with a commit that is not above ``act.seq``, for which the gate holds the answer.
        call.status, call.body, call.head = 200, NOTHING, MSGPACK_HEAD
        return True

    def join(self, call: Call, batch: Batch) -> None:
        shard = call.act.shard
        batch.inbox[self._key] = None
        batch.floors[self._key[0]] = shard.floors[self._key[0]]
        call.act.seq = batch.seq


class FromHere(Once):
    """A message of the receiver's own shard. Its deliverer never has it under way twice."""

    __slots__ = ("_id",)

    def __init__(self, id_: int) -> None:
        self._id = id_

    def answered(self, call: Call) -> bool:
        return False

    def join(self, call: Call, batch: Batch) -> None:
        batch.outbox[self._id] = None
        call.act.seq = batch.seq


def arrive(shard: Shard, mark: Any) -> FromElsewhere:
    """``mark`` is [shard, id, floor], as the sender says it."""
    sender, id_, floor = checked(mark)
    if floor > shard.floors.get(sender, 0):
        shard.floors[sender] = floor
    return FromElsewhere((sender, id_))


def checked(mark: Any) -> tuple[int, int, int]:
    """``WireError`` for what is no mark of a message."""
    if type(mark) is not list or len(mark) != 3 or any(type(n) is not int or not 0 <= n < 1 << 63 for n in mark):
        raise WireError(f"a message with the mark {mark!r:.200}")
    return mark[0], mark[1], mark[2]


def has_come(shard: Shard, key: tuple[int, int]) -> bool:
    return key in shard.committer.batch.inbox or key[1] < shard.floors.get(key[0], 0) or shard.store.was_received(*key)


def came_before(shard: Shard, mark: Any) -> bool:
    """A message is about to be refused: has it taken effect before? ``ActorUnavailable`` while that is not durable."""
    sender, id_, _ = checked(mark)
    if not has_come(shard, (sender, id_)):
        return False
    if not shard.committer.idle:
        raise ActorUnavailable("What the message has done is not durable yet.", retry_after=1)
    return True
