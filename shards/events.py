"""``ctx.emit``: what an actor tells the world, numbered, stored in its turn's commit, kept for a while.

1. An event gets its number when its turn has succeeded, in the order of the turns and, within one, of the calls of
   ``emit``: 1, 2, 3 ... for each actor, without a gap, never one twice. A turn that fails, and a storage block that is
   undone, take theirs along, and no number is lost by that.
2. Of each actor the newest ``events_kept`` stay, each until ``events_age`` has passed: those that are too many go in
   the commit that brings others, those that are too old in a turn of their own (``EventSweeper``).
3. Readers of the stream (``shards.event_streams``) are told behind the output gate, so never before it is durable.

Crash story: the numbers and the events are rows of one commit; recovery finds both or none.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any

from actord import json
from actord.errors import ActordError, CodecError, StoreBroken
from actord.limits import EVENT_BYTES
from actord.shards import alarm as clock
from actord.shards.call import NO_DEADLINE, Call, Effect, Lifecycle, Sink
from actord.storage.api import Event

if TYPE_CHECKING:
    from actord.shards.activation import Activation
    from actord.shards.dispatch import Dispatcher
    from actord.shards.shard import Shard
    from actord.shards.turns import TurnRunner
    from actord.storage.api import Batch, ExpiredEvents

log = logging.getLogger("actord.events")

RESERVED_PREFIX = "actord."
SWEEP_EVENTS = 1_000  # looked at in one sweep of a shard
SWEEP_SECONDS = 10.0
_TURN_SECONDS = 30.0

_is_kind = re.compile(r"[A-Za-z0-9_.:-]{1,64}").fullmatch


class Numbers:
    """The numbers of an activation's oldest kept and newest event, as the turns so far left them."""

    __slots__ = ("first", "last")

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last


class Emitted(Effect):
    """One event on its way: made in the turn, numbered when it joins the commit, published when that is durable."""

    __slots__ = ("data", "kind", "seq", "until")

    def __init__(self, kind: str, data: bytes) -> None:
        self.kind = kind
        self.data = data
        self.seq = 0
        self.until = 0

    def join(self, call: Call, batch: Batch) -> None:
        act = call.act
        host = act.host
        numbers = act.events
        assert numbers is not None
        actor = act.kv.ensure_id(batch)
        numbers.last = self.seq = numbers.last + 1
        numbers.first = max(numbers.first, self.seq - host.events_kept + 1)
        self.until = clock.wall_ms() + host.events_age_ms
        event = Event(self.seq, self.kind, self.data, self.until)
        events = batch.events.get(actor)
        if events is None:
            batch.events[actor] = [event]
        else:
            events.append(event)
        batch.event_logs[actor] = numbers.first, numbers.last
        act.seq = batch.seq

    def leave(self, call: Call) -> None:
        topic = call.act.host.topics.get(call.act.name)
        if topic is not None:
            topic.publish(self.seq, self.kind, self.data, self.until)


class _Dropped(Effect):
    """Events up to number ``seq`` are let go."""

    __slots__ = ("seq",)

    def __init__(self, seq: int) -> None:
        self.seq = seq

    def join(self, call: Call, batch: Batch) -> None:
        act = call.act
        numbers = act.events
        assert numbers is not None
        numbers.first = max(numbers.first, self.seq + 1)
        batch.event_logs[act.kv.ensure_id(batch)] = numbers.first, numbers.last
        act.seq = batch.seq


def emit(turn: Call, kind: str, data: Any) -> None:
    """``ctx.emit``; see ``actord.context.Context``."""
    if type(kind) is not str or not _is_kind(kind) or kind.startswith(RESERVED_PREFIX):
        raise ValueError(
            f"the kind of an event is a short word: 1 to 64 of A-Z a-z 0-9 _ . : -, not beginning with "
            f"{RESERVED_PREFIX!r}; this is {kind!r}"
        )
    encoded = json.dumps(data)
    if len(encoded) > EVENT_BYTES:
        raise CodecError(f"The data of an event has {len(encoded)} bytes as JSON; the limit is {EVENT_BYTES}.")
    known_numbers(turn.act)  # what may fail has to fail before the turn's end
    turn.add(Emitted(kind, encoded))


def known_numbers(act: Activation) -> Numbers:
    """The numbers of an actor's events, read from the store where they are not known."""
    if act.events is None:
        actor = act.kv.known_id()
        act.events = Numbers(1, 0) if actor is None else Numbers(*act.store.event_log(actor))
    return act.events


class EventSweeper:
    """Removes what has been kept for long enough. ``sweep`` is to be called from time to time."""

    def __init__(self, dispatcher: Dispatcher, runner: TurnRunner, shards: Iterable[Shard]) -> None:
        self._dispatcher = dispatcher
        self._runner = runner
        self._shards = list(shards)
        self._due = 0.0
        self._failed: set[tuple[int, int]] = set()  # by shard and actor: reported, and left alone

    def sweep(self) -> None:
        """Look for old events, about every ``SWEEP_SECONDS``; the turns that remove them run soon."""
        now = monotonic()
        if now < self._due:
            return
        self._due = now + SWEEP_SECONDS
        wall = clock.wall_ms()
        for shard in self._shards:
            if shard.committer.broken is not None:
                continue
            try:
                found = shard.store.expired_events(now=wall, limit=SWEEP_EVENTS)
            except ActordError as error:
                _read_failed(shard, error)
                continue
            for one in found:
                if (shard.number, one.actor) not in self._failed:
                    self._drop(shard, one, wall)

    def _drop(self, shard: Shard, expired: ExpiredEvents, wall: int) -> None:
        try:
            act = self._dispatcher.activation(expired.type, expired.name, gone=True)
        except ActordError as error:
            self._left_alone(shard, expired, error)
            return

        def drop(turn: Call) -> None:
            # The listing went by an index; what is removed has to say itself that it may be.
            try:
                found = shard.store.read_events(
                    expired.actor, after=expired.seq - 1, batch=1 << 62, limit=1, limit_bytes=1
                )
                if found and found[0].seq == expired.seq and found[0].until <= wall:
                    known_numbers(turn.act)
                    turn.add(_Dropped(expired.seq))
            except StoreBroken:
                raise
            except ActordError as error:
                self._left_alone(shard, expired, error)

        kind = Lifecycle("events", _TURN_SECONDS, drop)
        self._runner.admit(Call(_NOWHERE, 0, bytearray(1), act, kind, (), {}, 0, NO_DEADLINE, monotonic()))

    def _left_alone(self, shard: Shard, expired: ExpiredEvents, error: ActordError) -> None:
        self._failed.add((shard.number, expired.actor))
        log.error("old events of %s %r can't be removed: %s", expired.type, expired.name, error)


def _read_failed(shard: Shard, error: ActordError) -> None:
    if isinstance(error, StoreBroken):
        shard.committer.break_off(error)
    else:
        log.critical("the events of shard %d can't be read: none is removed: %s", shard.number, error)


_NOWHERE = Sink()
