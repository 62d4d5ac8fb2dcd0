"""Delivers the messages of one worker's actors. They are in the store; what is here is only what is under way.

1. A message is delivered after the commit that holds it is durable, and again until its receiver's shard has it: at
   least once. ``shards.inbox`` makes that once in effect.
2. Messages of one sender to one receiver (a *pair*) are delivered one after the other, in the order of their ids. Pairs
   do not wait for each other.
3. A message whose receiver fails on it (its method raises or is refused) is tried again after 1 s, doubling up to 5
   minutes, up to a quarter more by chance; after the last retry it is parked, which is logged, and the pair goes on.
4. Nothing else counts as an attempt: a worker that is away, a full mailbox, an outcome that nobody knows. These are
   tried again for ever, with pauses up to ``PAUSE_MAX_SECONDS``. The pair waits.
5. When its delay is over, a message is given a new id, in a commit of its own, and is like any other from then on. So
   ids alone decide about order, and what is below a floor never comes again.
6. Memory is bounded by ``HELD_BYTES`` and a little for each pair that waits; the rest stays in the store and is read in
   pages. ``sends_at_once`` messages are under way at most to each worker.

Crash story: nothing here is state. All messages that the store holds are found again by the next worker; those whose
removal was not durable are delivered again, and have no effect.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from actord import codec
from actord.errors import ActordError, ActorUnavailable, ActorUnknownTypeError, InvariantViolated, StoreBroken
from actord.shards import alarm as clock
from actord.shards.alarms import backoff_ms
from actord.shards.call import NO_DEADLINE, Call, Sink
from actord.shards.inbox import FromHere, arrive, came_before
from actord.shards.link import Link, Waiter
from actord.shards.outbox_changes import Changes
from actord.shards.outbox_lane import FOREVER, Change, Lane, Pair, key_of
from actord.shards.problem import as_error
from actord.shards.wire import CALLX, MSGPACK, PAIR
from actord.storage.api import Message

if TYPE_CHECKING:
    from actord.shards.dispatch import Dispatcher
    from actord.shards.shard import Shard

log = logging.getLogger("actord.outbox")

HELD_BYTES = 16 * 1024 * 1024
MESSAGE_BYTES = 500  # that a message takes beside its arguments
PAGE = 256
PAIR_HELD = 32  # messages behind the current one of a pair
RECHECK_SECONDS = 1.0  # a jump of the wall clock is noticed
PAUSE_SECONDS = 0.1
PAUSE_MAX_SECONDS = 5.0
BACKOFF_MAX_SECONDS = 375.0
ERROR_CHARS = 1_000

# Failures that say nothing about the message: it was not run, or nobody knows.
NOT_COUNTED = frozenset({"ActorUnavailable", "ActorOverloaded", "ActorOutputGateError", "StoreBroken", "StoreFull"})


class _Delivery(Waiter):
    """One attempt. Its end is looked at in the next step: the gate or a link is in the middle of its work."""

    __slots__ = ("lane", "message", "outbox", "pair", "place")

    def __init__(self, outbox: Outbox, lane: Lane, pair: Pair, message: Message, place: int) -> None:
        self.outbox = outbox
        self.lane = lane
        self.pair = pair
        self.message = message
        self.place = place

    def on_reply(self, status: int, body: bytes, head: bytes | None) -> None:
        self.outbox.ended(self, status, body)

    def on_lost(self, begun: bool) -> None:
        self.outbox.ended(self, ActorUnavailable.status, b"")


class _Own(Sink):
    """Where the reply goes of a delivery to this worker itself."""

    __slots__ = ("delivery",)

    def __init__(self, delivery: _Delivery) -> None:
        self.delivery = delivery

    def put(self, call: Call) -> None:
        self.delivery.outbox.ended(self.delivery, call.status, call.body)


class Outbox:
    """``retries`` is for types that state none. ``chance`` returns 0 to 1."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        shards: Iterable[Shard],
        *,
        count: int,
        links: Callable[[int], Link],
        retries: int,
        at_once: int,
        chance: Callable[[], float] = random.random,
        on_bug: Callable[[BaseException], None] = lambda bug: None,
    ) -> None:
        """``count``: the shards of the whole server. ``links``: the link to the worker of a slot."""
        self._loop = asyncio.get_running_loop()
        self._dispatcher = dispatcher
        self._link_of = links
        self._retries = retries
        self._at_once = at_once
        self._chance = chance
        self._on_bug = on_bug
        self.lanes = {shard.number: Lane(shard, count) for shard in shards}
        self.changes = Changes(self._loop, self)
        self._ended: list[tuple[_Delivery, int, bytes]] = []
        self._ready: dict[int, deque[tuple[Lane, Pair]]] = {}  # by receiving shard
        self._under_way: dict[int, int] = {}
        self._held = 0  # bytes
        self._step_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = True
        # counters
        self.delivered = 0
        self.retried = 0
        self.parked = 0

    def start(self) -> None:
        """Begin to deliver, with what the store holds. Before any turn has run."""
        self._stopped = False
        for lane in self.lanes.values():
            lane.durable = lane.shard.store.next_message_id()  # what an earlier life stored is below
            lane.next_due = 0
        self.soon()

    @property
    def under_way(self) -> int:
        """Messages that are being delivered."""
        return sum(self._under_way.values())

    def stop(self) -> None:
        """Deliver nothing more; it stays in the store. What is under way ends."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """The stores are about to be closed: what ends from now on is delivered again by the next worker."""
        self.stop()
        self.changes.closed = True

    def take(self, shard: Shard, message: Message) -> None:
        """A message is durable."""
        if not self._stopped:
            self.lanes[shard.number].fresh.append(message)
            self.soon()

    def ended(self, delivery: _Delivery, status: int, body: bytes) -> None:
        self._ended.append((delivery, status, body))
        self.soon()

    def soon(self) -> None:
        if not self._step_is_due:
            self._step_is_due = True
            self._loop.call_soon(self._step)

    # -- a step: everything that has happened since the last one, and what follows from it

    def _step(self) -> None:
        self._step_is_due = False
        try:
            ended, self._ended = self._ended, []
            for delivery, status, body in ended:
                self._end(delivery, status, body)
            if self._stopped:
                return
            for lane in self.lanes.values():
                if lane.shard.committer.broken is None:
                    self._guarded(lane, self._look)
            self._start_ready()
            self._arm()
        except Exception as bug:
            log.critical("messages are not delivered any more: %r", bug, exc_info=bug)
            self._on_bug(bug)

    def _guarded(self, lane: Lane, what: Callable[[Lane], None]) -> None:
        try:
            what(lane)
        except StoreBroken as error:
            lane.shard.committer.break_off(error)
        except ActordError as error:
            lane.known, lane.next_due = lane.durable, FOREVER
            log.critical("the messages of shard %d can't all be read: %s", lane.shard.number, error)

    def _look(self, lane: Lane) -> None:
        if lane.fresh:
            fresh, lane.fresh = lane.fresh, []
            fresh.sort()  # released ones come behind the others of their commit
            for message in fresh:
                delayed = message.due > 0 and message.attempts == 0
                if delayed:
                    lane.next_due = min(lane.next_due, message.due)
                if not lane.behind and (delayed or self._held < HELD_BYTES):
                    lane.known = message.id
                    if not delayed:
                        self._accept(lane, message)
                if message.id <= lane.durable:
                    raise InvariantViolated(f"message {message.id} came after {lane.durable}")
                lane.durable = message.id
        if lane.behind and self._held < HELD_BYTES // 2:
            self._read_on(lane)
        if lane.next_due <= clock.wall_ms() and not lane.releasing:
            self.changes.release(lane)

    def _read_on(self, lane: Lane) -> None:
        page, upto = lane.shard.store.queued_messages(after=lane.known, until=lane.durable, limit=PAGE)
        for message in page:
            if not lane.removed(message.id):
                self._accept(lane, message)
        lane.known = upto
        if lane.behind:
            self.soon()

    def _accept(self, lane: Lane, message: Message) -> None:
        """A message that was not known before, in the order of the ids."""
        key = key_of(message)
        pair = lane.pairs.get(key)
        if pair is None:
            lane.pairs[key] = pair = Pair(message)
            self._held += _size(message)
            self._make_current(lane, pair, message)
        elif pair.more or pair.timer is not None or len(pair.queue) >= PAIR_HELD:
            pair.more = True
        else:
            self._held += _size(message)
            pair.queue.append(message)

    def _make_current(self, lane: Lane, pair: Pair, message: Message) -> None:
        pair.current = message
        pair.tries = 0
        lane.floor_for(pair.slot).add(message.id)
        if message.attempts:  # of an earlier life
            self._pause(lane, pair, min(max(0, message.due - clock.wall_ms()) / 1000, BACKOFF_MAX_SECONDS))
        else:
            self._make_ready(lane, pair)

    def _make_ready(self, lane: Lane, pair: Pair) -> None:
        place = lane.destination(pair.slot)
        ready = self._ready.get(place)
        if ready is None:
            ready = self._ready[place] = deque()
        ready.append((lane, pair))

    def _start_ready(self) -> None:
        for place, ready in self._ready.items():
            while ready and self._under_way.get(place, 0) < self._at_once:
                lane, pair = ready.popleft()
                waits = pair.flying or pair.timer is not None  # where it stands here twice, after a removal
                if pair.current is not None and not waits and lane.shard.committer.broken is None:
                    self._deliver(lane, pair, pair.current, place)

    # -- delivering

    def _deliver(self, lane: Lane, pair: Pair, message: Message, place: int) -> None:
        delivery = _Delivery(self, lane, pair, message, place)
        pair.flying = True
        self._under_way[place] = self._under_way.get(place, 0) + 1
        target = self._dispatcher.shard_of[pair.slot]
        try:
            if target is not None:
                self._deliver_here(delivery, target)
                return
            if pair.slot in self._dispatcher.damaged:
                raise ActorUnavailable("The receiver's shard is damaged and not served.")
            link = self._link_of(pair.slot)
            if not link.ready:  # what waits in a link takes the place of others
                raise ActorUnavailable("The receiver's worker is away.")
            mark = {"msg": lane.mark(message, pair.slot)}
            link.submit(
                delivery,
                CALLX,
                message.type,
                message.name,
                message.method,
                mark,
                MSGPACK | PAIR,
                NO_DEADLINE,
                message.args,
            )
        except ActordError as error:
            self.ended(delivery, error.http_status, codec.encode(error.to_problem()))

    def _deliver_here(self, delivery: _Delivery, target: Shard) -> None:
        message, lane = delivery.message, delivery.lane
        mark = None if target is lane.shard else lane.mark(message, delivery.pair.slot)
        try:
            host = self._dispatcher.hosts.get(message.type)
            if host is None:
                raise ActorUnknownTypeError(f"The program has no actor type {message.type!r} any more.")
            method = host.type.method(message.method)
            args, kwargs = method.binder.from_pair(message.args)
        except Exception as error:  # converting arguments runs code of the user's classes
            if mark is not None and came_before(target, mark):
                self.ended(delivery, 200, b"")
                return
            raise as_error(error, f"{message.type}.{message.method}") from error
        call = self._dispatcher.local(
            _Own(delivery), message.type, message.name, method, args, kwargs, message.args, {}, NO_DEADLINE
        )
        # Its turn has not begun: admission only queues it.
        call.once = FromHere(message.id) if mark is None else arrive(target, mark)
        call.more = True

    def _end(self, delivery: _Delivery, status: int, body: bytes) -> None:
        self._under_way[delivery.place] -= 1
        lane, pair, message = delivery.lane, delivery.pair, delivery.message
        if status < 400:
            self.delivered += 1
            if delivery.place == lane.shard.number:  # removed by the receiver's own commit
                lane.floor_for(pair.slot).drop(message.id)
            else:
                self.changes.write(lane, Change(message.id, None, pair.slot, None))
            self.go_on(lane, pair)
            return
        problem = codec.decode(body) if body else {"name": "ActorUnavailable"}
        if problem["name"] in NOT_COUNTED:
            pair.flying = False
            pause = min(PAUSE_SECONDS * (1 << min(pair.tries, 20)), PAUSE_MAX_SECONDS)
            pair.tries += 1
            self._pause(lane, pair, pause * (1 + self._chance() / 4))
        else:
            self._failed(lane, pair, message, f"{problem['name']}: {problem['detail']}"[:ERROR_CHARS])

    def _failed(self, lane: Lane, pair: Pair, message: Message, why: str) -> None:
        host = self._dispatcher.hosts.get(message.type)
        retries = self._retries if host is None or host.type.send_retries is None else host.type.send_retries
        attempts = message.attempts + 1
        if attempts > retries:
            # The pair goes on when that is durable: else it could come back behind the messages that follow it.
            self.parked += 1
            log.error(
                "message %s to %s %r, method %s, has failed %d times and is parked (`actord outbox ls --parked`): %s",
                shown_id(lane.shard.number, message.id),
                message.type,
                message.name,
                message.method,
                attempts,
                why,
            )
            parked = message._replace(due=clock.wall_ms(), attempts=attempts, error=why)
            self.changes.write(lane, Change(message.id, parked, pair.slot, pair))
            return
        self.retried += 1
        wait = backoff_ms(attempts, self._chance())
        log.warning(
            "message %s to %s %r, method %s, has failed; retry %d of %d follows in %.1f s: %s",
            shown_id(lane.shard.number, message.id),
            message.type,
            message.name,
            message.method,
            attempts,
            retries,
            wait / 1000,
            why,
        )
        pair.flying = False
        pair.current = message._replace(due=clock.wall_ms() + wait, attempts=attempts)
        self.changes.write(lane, Change(message.id, pair.current, pair.slot, None))
        self._pause(lane, pair, wait / 1000)

    def _pause(self, lane: Lane, pair: Pair, seconds: float) -> None:
        """Nobody else waits for the memory of a pair that waits: what it has is read again."""
        current = pair.current
        assert current is not None
        self._held -= sum(map(_size, pair.queue)) + _size(current)
        pair.more = pair.more or bool(pair.queue)
        pair.queue.clear()
        pair.current = current._replace(args=b"")
        pair.timer = self._loop.call_later(seconds, self.wake, lane, pair)

    def wake(self, lane: Lane, pair: Pair) -> None:
        """The pause of a pair is over, or is not to be waited for."""
        if pair.timer is None:
            return
        pair.timer.cancel()
        pair.timer = None
        if not self._stopped and lane.shard.committer.broken is None:
            self._guarded(lane, partial(self._resume, pair=pair))
            self.soon()

    def _resume(self, lane: Lane, pair: Pair) -> None:
        assert pair.current is not None
        again = lane.shard.store.read_message(pair.current.id)
        if again is None or lane.removed(again.id):  # damaged
            self._held += _size(pair.current)
            lane.floor_for(pair.slot).drop(pair.current.id)
            self.go_on(lane, pair)
            return
        # Its attempts may still be on their way into the store.
        pair.current = again._replace(attempts=pair.current.attempts, due=pair.current.due)
        self._held += _size(pair.current)
        self._make_ready(lane, pair)

    def go_on(self, lane: Lane, pair: Pair) -> None:
        """The current message of a pair is done with: on to the next one."""
        done = pair.current
        assert done is not None
        self._held -= _size(done)
        pair.flying = False
        if not pair.queue and pair.more:
            found, all_ = lane.shard.store.pair_messages(
                *key_of(done), after=done.id, until=lane.known, limit=PAIR_HELD
            )
            pair.queue.extend(message for message in found if not lane.removed(message.id))
            self._held += sum(map(_size, pair.queue))
            pair.more = not all_
            if pair.more and not pair.queue:  # all of the page is being removed
                found_last = found[-1]
                pair.current = found_last
                self._held += _size(found_last)
                self.go_on(lane, pair)
                return
        if pair.queue:
            self._make_current(lane, pair, pair.queue.popleft())
        else:
            pair.current = None
            del lane.pairs[key_of(done)]

    def forget(self, lane: Lane, message: Message) -> None:
        """A message is about to be removed: nothing here delivers it any more. It is not being delivered."""
        pair = lane.pairs.get(key_of(message))
        if pair is None or pair.current is None:
            return
        if pair.current.id == message.id:
            if pair.timer is not None:
                pair.timer.cancel()
                pair.timer = None
                self._held += _size(pair.current)
            self._guarded(lane, partial(self.go_on, pair=pair))
            self.soon()
        elif message in pair.queue:
            pair.queue.remove(message)
            self._held -= _size(message)

    # -- what was written is durable

    def changed(self, lane: Lane, changes: list[Change]) -> None:
        for change in changes:
            message = change.message
            if message is None or message.error is not None:
                lane.floor_for(change.slot).drop(change.id)
            if change.pair is not None and change.pair.current is not None:
                self._guarded(lane, partial(self.go_on, pair=change.pair))
        self.soon()

    def released(self, lane: Lane, messages: list[Message]) -> None:
        """Delayed messages have their place among the others."""
        for message in messages:
            self.take(lane.shard, message)
        self.soon()

    # -- waiting for delays to end

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = min((lane.next_due for lane in self.lanes.values() if not lane.releasing), default=FOREVER)
        if due < FOREVER:
            wait = (due - clock.wall_ms()) / 1000
            self._timer = self._loop.call_later(min(max(wait, 0.001), RECHECK_SECONDS), self.soon)


def shown_id(shard: int, id_: int) -> str:
    """A message's number for people: shard, epoch and count, as in ``0-3-17``."""
    return f"{shard}-{id_ >> 40}-{id_ & (1 << 40) - 1}"


def _size(message: Message) -> int:
    return len(message.args) + MESSAGE_BYTES
