"""What an operator does to the alarms of one worker: list them, fire one now, re-arm what has failed, remove one.

1. A change is a turn of the actor: it waits behind the calls that came before, and is durable when it is answered.
2. It works for types that the program does not have any more, too.
3. Listings and changes of many go in pages; calls get through between them.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from actord.errors import ActordError, AlarmNotFound, BadRequest
from actord.shards.admin import run_turn
from actord.shards.alarm import wall_ms
from actord.shards.call import Call, Lifecycle
from actord.storage.api import Alarm, AlarmEntry

if TYPE_CHECKING:
    from actord.shards.admin import Handler
    from actord.shards.control import Message
    from actord.shards.dispatch import Dispatcher
    from actord.shards.shard import Shard
    from actord.shards.turns import TurnRunner

PAGE = 500
LIST_MAX = 10_000
CHANGE_SECONDS = 30.0
_FOREVER = 1 << 62

Change = Callable[[Call], bool]


class AlarmAdmin:
    def __init__(self, dispatcher: Dispatcher, runner: TurnRunner, shards: list[Shard]) -> None:
        self._dispatcher = dispatcher
        self._runner = runner
        self._shards = shards

    def handlers(self) -> dict[str, Handler]:
        return {
            "alarms.list": self.show,
            "alarms.run": partial(self._change_one, _fire),
            "alarms.retry": partial(self._change_one, _retry),
            "alarms.remove": partial(self._change_one, _remove),
            "alarms.retry_all": self.retry_all,
        }

    async def show(self, request: Message) -> Message:
        """``{"failed": bool, "type": str or None, "limit": int}`` -> ``{"alarms": [...], "more": bool}``.

        Armed ones by due time; failed ones by the time when they were due.
        """
        limit = request.get("limit", LIST_MAX)
        if type(limit) is not int or not 1 <= limit <= LIST_MAX:
            raise BadRequest(f"limit must be an integer of 1 to {LIST_MAX}.")
        parts = [
            await self._entries(shard, bool(request.get("failed")), request.get("type"), limit + 1)
            for shard in self._shards
        ]
        entries = list(heapq.merge(*parts, key=lambda entry: entry.alarm.due))
        return {"alarms": [_shown(entry) for entry in entries[:limit]], "more": len(entries) > limit}

    async def retry_all(self, request: Message) -> int:
        """``{"type": str or None}``: re-arm every failed one. How many they were."""
        count = 0
        for shard in self._shards:
            after = 0
            while page := shard.store.failed_alarms(limit=PAGE, after=after):
                after = page[-1].actor
                wanted = [entry for entry in page if request.get("type") in (None, entry.type)]
                count += sum(await asyncio.gather(*(self._change(_retry, e.type, e.name) for e in wanted)))
        return count

    async def _entries(self, shard: Shard, failed: bool, type_: str | None, limit: int) -> list[AlarmEntry]:
        found: list[AlarmEntry] = []
        for page in _pages(shard, failed):
            found += [entry for entry in page if type_ in (None, entry.type)]
            if failed:  # these come by actor
                found = heapq.nsmallest(limit, found, key=lambda entry: entry.alarm.due)
            elif len(found) >= limit:
                break
            await asyncio.sleep(0)
        return found[:limit]

    async def _change_one(self, change: Change, request: Message) -> None:
        """``{"key": [type, name]}``. ``AlarmNotFound`` when there is nothing to change."""
        type_, name = request["key"]
        if not await self._change(change, type_, name):
            raise AlarmNotFound(f"{type_}/{name} has no {'failed ' if change is _retry else ''}alarm.")

    async def _change(self, change: Change, type_: str, name: str) -> bool:
        act = self._dispatcher.activation(type_, name, gone=True)
        return bool(await run_turn(self._runner, act, Lifecycle("alarm", CHANGE_SECONDS, change)))


def _pages(shard: Shard, failed: bool) -> Iterator[list[AlarmEntry]]:
    actor, position = 0, (-1, 0)
    while True:
        if failed:
            page = shard.store.failed_alarms(limit=PAGE, after=actor)
        else:
            page = shard.store.armed_alarms(until=_FOREVER, limit=PAGE, after=position)
        if not page:
            return
        actor, position = page[-1].actor, (page[-1].alarm.due, page[-1].actor)
        yield page


def _shown(entry: AlarmEntry) -> Message:
    alarm = entry.alarm
    return {
        "type": entry.type,
        "name": entry.name,
        "due": alarm.due,
        "scheduled": alarm.scheduled,
        "retries": alarm.retries,
        "error": alarm.error,
    }


def _fire(turn: Call) -> bool:
    alarm = turn.act.committed_alarm()
    if alarm is None:
        return False
    if not turn.act.host.type.has_alarm:
        raise ActordError(f"The program has no {turn.act.host.type.name} with an alarm handler: it can't be run.")
    return _arm(turn, alarm, alarm.retries if alarm.error is None else 0)


def _retry(turn: Call) -> bool:
    alarm = turn.act.committed_alarm()
    return alarm is not None and alarm.error is not None and _arm(turn, alarm, 0)


def _arm(turn: Call, alarm: Alarm, retries: int) -> bool:
    turn.alarm = Alarm(wall_ms(), alarm.scheduled, retries)
    turn.more = True
    return True


def _remove(turn: Call) -> bool:
    if turn.act.committed_alarm() is None:
        return False
    turn.alarm = None
    turn.more = True
    return True
