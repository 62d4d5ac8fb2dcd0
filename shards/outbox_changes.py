"""Changes to messages, in commits for which no reply waits: removed, tried once more, parked, released from a delay.

1. A change is in the open batch at once, and its deliverer is told when that is durable, in the order of the commits.
2. While the disk is full, changes are tried again until they are taken; a newer change of a message replaces an older.
3. A delayed message whose time has come gets a new id, above all others, in one commit with the end of the old one.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from actord.shards import alarm as clock
from actord.shards.outbox_lane import FOREVER, Change, Lane
from actord.storage.api import Message

if TYPE_CHECKING:
    from actord.shards.outbox import Outbox

RELEASED_AT_ONCE = 256
FULL_PAUSE_SECONDS = 1.0
LOOK_AGAIN_MS = 100


class Changes:
    """Of all lanes of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self._loop = loop
        self._outbox = outbox
        self.closed = False  # the stores are: nothing is written any more

    def write(self, lane: Lane, change: Change) -> None:
        """Have a change to a message committed. It does not get lost while the disk is full."""
        committer = lane.shard.committer
        if self.closed or committer.broken is not None:
            return
        batch = committer.batch
        batch.outbox[change.id] = change.message
        lane.redo.pop(change.id, None)
        if lane.batch is not batch:
            lane.batch = batch
            lane.changes = []
            committer.attend(partial(self._written, lane, lane.changes))
            self._loop.call_soon(committer.kick)
        lane.changes.append(change)

    def _written(self, lane: Lane, changes: list[Change], durable: bool) -> None:
        if not durable:
            lane.redo.update((change.id, change) for change in changes)
            self._loop.call_later(FULL_PAUSE_SECONDS, self._write_again, lane)
            return
        self._outbox.changed(lane, changes)

    def _write_again(self, lane: Lane) -> None:
        redo, lane.redo = lane.redo, {}
        for change in redo.values():
            self.write(lane, change)

    def release(self, lane: Lane) -> None:
        """Give those whose delay is over their place among the others."""
        store, committer = lane.shard.store, lane.shard.committer
        due = store.delayed_messages(until=clock.wall_ms(), limit=RELEASED_AT_ONCE)
        # One that is not durable yet makes itself known when it is.
        due = [message for message in due if message.id <= lane.durable and not lane.removed(message.id)]
        if not due:
            ahead = store.delayed_messages(until=FOREVER, limit=RELEASED_AT_ONCE)
            waiting = (message.due for message in ahead if message.id <= lane.durable and not lane.removed(message.id))
            # All being removed: look again when they are.
            lane.next_due = next(waiting, clock.wall_ms() + LOOK_AGAIN_MS if ahead else FOREVER)
            return
        released = [message._replace(id=store.next_message_id(), due=0) for message in due]
        for message, again in zip(due, released, strict=True):
            committer.batch.outbox[message.id] = None
            committer.batch.outbox[again.id] = again
        lane.releasing = True
        committer.attend(partial(self._released, lane, released))
        self._loop.call_soon(committer.kick)

    def _released(self, lane: Lane, released: list[Message], durable: bool) -> None:
        if not durable:
            self._loop.call_later(FULL_PAUSE_SECONDS, self._released, lane, [], True)
            return
        lane.releasing = False
        lane.next_due = 0
        self._outbox.released(lane, released)
