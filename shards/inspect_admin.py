"""What a worker tells of one actor that is in its memory: its queue, what that waits for, its last calls.

It only looks: no activation is made for it, no turn runs, nothing is read from the store. The stored state is read from
the files by whoever asks (``storage/look.py``).
"""

from __future__ import annotations

import time
from itertools import islice
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING

from actord.errors import BadRequest

if TYPE_CHECKING:
    from actord.shards.activation import Activation
    from actord.shards.admin import Handler
    from actord.shards.call import Call
    from actord.shards.control import Message
    from actord.shards.dispatch import Dispatcher
    from actord.shards.meter import Meter
    from actord.shards.recent import Entry
    from actord.shards.turns import TurnRunner

QUEUED_SHOWN = 20
WAITS_SHOWN = 20


class InspectAdmin:
    def __init__(self, dispatcher: Dispatcher, runner: TurnRunner, meter: Meter) -> None:
        self._dispatcher = dispatcher
        self._runner = runner
        self._meter = meter

    def handlers(self) -> dict[str, Handler]:
        return {"inspect": self.inspect}

    async def inspect(self, request: Message) -> Message:
        """``{"key": [type, name], "watch": bool}``.

        ``calls`` are the last ones that were sampled, one of ``sampled`` calls; with ``watch`` every one since this
        was asked before, ``WATCH_SECONDS`` ago at most. Durations in milliseconds.
        """
        key = request.get("key")
        if not (isinstance(key, list) and len(key) == 2 and all(isinstance(part, str) for part in key)):
            raise BadRequest("key is a list of type and name.")
        type_, name = key
        act = self._dispatcher.find((type_, name))
        host = self._dispatcher.hosts.get(type_)
        room = None if host is None else host.rooms.get(name)
        watch = bool(request.get("watch"))
        calls = self._meter.calls_since((type_, name)) if watch else self._meter.hot.recent.of((type_, name))
        mailbox = () if act is None else act.mailbox or ()
        now = monotonic()
        return {
            "in_program": host is not None,
            "version": None if host is None else host.type.version,
            "in_memory": act is not None and act.instance is not None,
            "cached_bytes": 0 if act is None else act.kv.cached_bytes,
            "sockets": 0 if room is None else len(room.members),
            "mailbox": len(mailbox),
            "queued": [self._queued(call, now) for call in islice(mailbox, QUEUED_SHOWN)],
            "running": None if act is None else self._running(act, now),
            "calls": [_shown(entry, now) for entry in calls],
            "sampled": 1 if watch else self._meter.hot.stride,
        }

    def _queued(self, call: Call, now: float) -> Message:
        return {
            "method": call.method.name,
            "waited_ms": _ms(now - call.queued),
            "from": None if call.origin is None else list(call.origin[0]),
        }

    def _running(self, act: Activation, now: float) -> Message | None:
        """The turn that the queue waits for, and for whom that one waits."""
        turn = act.turn
        if turn is None:
            return None
        return {
            "method": turn.method.name,
            "ms": _ms(now - turn.started),
            "limit_ms": _ms(turn.limit),
            "from": None if turn.origin is None else list(turn.origin[0]),
            "waits_for": [
                {"type": wait.key[0], "name": wait.key[1], "ms": round((monotonic_ns() - wait.born) / 1e6, 3)}
                for wait in islice(turn.waits or (), WAITS_SHOWN)
                if not wait.future.done()
            ],
        }


def _shown(entry: Entry, now: float) -> Message:
    method, status, queued, started, ended, left = entry
    return {
        "at": round((time.time() - (now - left)) * 1000),
        "method": method,
        "status": status,
        "waited_ms": _ms(started - queued),
        "ran_ms": _ms(ended - started),
        "committed_ms": _ms(left - ended),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
