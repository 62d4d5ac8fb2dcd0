"""What an operator does to the messages of one worker: list them, have one delivered now, remove one.

1. A change is durable when it is answered.
2. What is being delivered at this moment is not removed: the request waits until that has ended.
3. A parked message that is retried gets a new id, behind all others: no receiver remembers the old one for ever.
4. Listings and changes of many go in pages; calls get through between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from actord.errors import ActorOutputGateError, ActorUnavailable, BadRequest
from actord.shards.outbox_lane import Change, Lane, key_of
from actord.shards.slots import slot_of
from actord.storage.api import Message, MessageEntry

if TYPE_CHECKING:
    from actord.shards.admin import Handler
    from actord.shards.control import Message as Request
    from actord.shards.outbox import Outbox

PAGE = 500
LIST_MAX = 10_000
WAIT_SECONDS = 30.0  # for the end of a delivery
_POLL_SECONDS = 0.02


class OutboxAdmin:
    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def handlers(self) -> dict[str, Handler]:
        return {
            "outbox.list": self.show,
            "outbox.retry": self.retry,
            "outbox.retry_all": self.retry_all,
            "outbox.remove": self.remove,
        }

    async def show(self, request: Request) -> Request:
        """``{"parked": bool, "type": receiver's type or None, "limit": int}`` -> ``{"messages": [...], "more": bool}``.

        By shard and id, the oldest first.
        """
        limit = request.get("limit", LIST_MAX)
        if type(limit) is not int or not 1 <= limit <= LIST_MAX:
            raise BadRequest(f"limit must be an integer of 1 to {LIST_MAX}.")
        found: list[Request] = []
        for number, lane in sorted(self._outbox.lanes.items()):
            after = 0
            while len(found) <= limit:
                page = lane.shard.store.list_messages(parked=bool(request.get("parked")), after=after, limit=PAGE)
                if not page:
                    break
                after = page[-1].message.id
                found += [_shown(number, e) for e in page if request.get("type") in (None, e.message.type)]
                await asyncio.sleep(0)
        return {"messages": found[:limit], "more": len(found) > limit}

    async def retry(self, request: Request) -> bool:
        """``{"message": [shard, id]}``: deliver it now. False when this worker has no such message."""
        found = self._find(request)
        return found is not None and await self._retry(*found)

    async def retry_all(self, request: Request) -> int:
        """``{"type": receiver's type or None}``: every parked one. How many they were."""
        count = 0
        for lane in self._outbox.lanes.values():
            after = 0
            while page := lane.shard.store.list_messages(parked=True, after=after, limit=PAGE):
                after = page[-1].message.id
                wanted = [e.message for e in page if request.get("type") in (None, e.message.type)]
                count += sum(await asyncio.gather(*(self._retry(lane, message) for message in wanted)))
        return count

    async def remove(self, request: Request) -> bool:
        """``{"message": [shard, id]}``: it is not delivered. False when this worker has no such message."""
        end = monotonic() + WAIT_SECONDS
        while (found := self._find(request)) is not None:
            lane, message = found
            pair = lane.pairs.get(key_of(message))
            if pair is None or pair.current is None or pair.current.id != message.id or not pair.flying:
                self._outbox.forget(lane, message)
                self._outbox.changes.write(lane, Change(message.id, None, slot_of(message.type, message.name), None))
                await _durable(lane)
                return True
            if monotonic() > end:
                raise ActorUnavailable("The message is being delivered; try again when that has ended.", retry_after=1)
            await asyncio.sleep(_POLL_SECONDS)
        return False

    def _find(self, request: Request) -> tuple[Lane, Message] | None:
        shard, id_ = request["message"]
        lane = self._outbox.lanes.get(shard)
        if lane is None or lane.removed(id_):
            return None
        message = lane.shard.store.read_message(id_)
        return None if message is None else (lane, message)

    async def _retry(self, lane: Lane, message: Message) -> bool:
        if message.error is None and (message.attempts or not message.due):
            pair = lane.pairs.get(key_of(message))
            if pair is not None:
                self._outbox.wake(lane, pair)
            return True
        if lane.removed(message.id):
            return False
        store, batch = lane.shard.store, lane.shard.committer.batch
        again = message._replace(id=store.next_message_id(), due=0, attempts=0, error=None)
        batch.outbox[message.id] = None
        batch.outbox[again.id] = again
        await _durable(lane, lambda: self._outbox.take(lane.shard, again))
        return True


async def _durable(lane: Lane, then: Callable[[], None] = lambda: None) -> None:
    """Until what the open batch holds is durable. ``then`` is done at once, in the order of the commits."""
    committer = lane.shard.committer
    future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def told(durable: bool) -> None:
        if durable:
            then()
        if not future.done():
            future.set_result(durable)

    committer.attend(told)
    committer.kick()
    if not await future:
        raise ActorOutputGateError("The disk is full: nothing was changed.", disk_full=True, retry_after=5)


def _shown(shard: int, entry: MessageEntry) -> Request:
    message = entry.message
    return {
        "shard": shard,
        "id": message.id,
        "from": [entry.type, entry.name],
        "to": [message.type, message.name],
        "method": message.method,
        "bytes": len(message.args),
        "due": message.due,
        "attempts": message.attempts,
        "error": message.error,
    }
