"""The alarms of one worker: what is due runs as a turn of its instance, what fails is repeated, then kept.

1. The store is the queue: its index by due time is read in pages, so a worker holds the nearest ``PAGE`` alarms of
   each shard and those under way, however many are armed.
2. An alarm is delivered at least once: the turn that runs the handler removes it, so a crash before that commit
   leaves it where it was. It is never early: the due time is wall clock and is looked at again when the turn begins.
3. Waiting is monotonic and ends after ``RECHECK_SECONDS`` at the latest, so that a jump of the wall clock is noticed.
4. A run that fails is written down in a commit of its own: repeated after 1 s, doubling up to 5 minutes and up to a
   quarter more by chance; after its last retry it is kept as failed. An alarm that was set anew meanwhile stands.
5. What is overdue runs in the order in which it was due, ``SLICE`` a loop iteration and ``at_once`` at a time, so that
   calls get through in between.
6. An alarm that can't run (its type is not in the program) stays as it is, and is reported once.

Crash story: nothing here is state. What is armed in the store is found again by the next worker.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec
from actord.alarm import AlarmInfo
from actord.errors import ActordError, StoreBroken
from actord.measures import Histogram, new_times
from actord.shards import alarm as clock
from actord.shards.alarm import as_datetime
from actord.shards.call import NO_DEADLINE, Call, Lifecycle, Sink, Work, current_turn
from actord.storage.api import Alarm, AlarmEntry

if TYPE_CHECKING:
    from actord.shards.dispatch import Dispatcher
    from actord.shards.shard import Shard
    from actord.shards.turns import TurnRunner

log = logging.getLogger("actord.alarms")

PAGE = 64
SLICE = 16
LOOKED_AT = 256  # alarms that can't run are passed over too, so many in one piece of work
RECHECK_SECONDS = 1.0
PAUSE_SECONDS = 1.0  # before an alarm whose outcome the full disk did not take is tried again
BACKOFF_FIRST_MS = 1_000
BACKOFF_MAX_MS = 300_000
CHANGE_SECONDS = 30.0
ERROR_CHARS = 1_000

FOREVER = 1 << 62
_START = (-1, 0)
_END = (FOREVER, 0)
_TIMER_SLACK_SECONDS = 0.001  # loops count in milliseconds: less would spin

Position = tuple[int, int]  # (due, actor)


class Handler(Work):
    """Stands where a user's method would: one for each type."""

    __slots__ = ("retries",)

    def __init__(self, timeout: float, retries: int) -> None:
        self.name = "alarm"
        self.label = b"alarm"
        self.timeout = timeout
        self.retries = retries
        self.times = new_times()
        self.function: Callable[[Any, Run], Awaitable[None]] = _deliver


class Run(Sink):
    """One alarm under way, from its start until its outcome is durable."""

    __slots__ = ("again", "alarm", "entry", "handler", "owner", "queue")

    def __init__(self, owner: AlarmScheduler, queue: _Queue, entry: AlarmEntry, handler: Handler) -> None:
        self.owner = owner
        self.queue = queue
        self.entry = entry
        self.handler = handler
        self.alarm: Alarm | None = None  # what was delivered; None while nothing was
        self.again: Position | None = None  # met once more in the queue meanwhile

    def put(self, call: Call) -> None:
        # Behind whatever is going on: the gate is in the middle of its work.
        self.owner.soon(self.owner.ended, self, call)


class _Change(Sink):
    """The turn that writes a failure down."""

    __slots__ = ("run", "written")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.written: Alarm | None = None

    def put(self, call: Call) -> None:
        self.run.owner.soon(self.run.owner.recorded, self, call)


async def _deliver(instance: Any, run: Run) -> None:
    """The turn of a due alarm; it does nothing when the alarm was moved or removed while the turn waited."""
    turn = current_turn.get()
    assert turn is not None
    alarm = turn.act.committed_alarm()
    if alarm is None or alarm.error is not None or alarm.due > clock.wall_ms():
        return
    run.alarm = alarm
    run.owner.lag.take((clock.wall_ms() - alarm.due) / 1000)
    turn.alarm = None
    turn.more = True
    await instance.alarm(AlarmInfo(as_datetime(alarm.scheduled), alarm.retries))


class _Queue:
    """The armed alarms of one shard, in order. ``next``: none beyond the cursor is due before it."""

    __slots__ = ("_horizon", "_page", "cursor", "next", "shard")

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.reset()

    def reset(self) -> None:
        """Read everything from the store again."""
        self.cursor: Position = _START  # up to here everything is under way, or can't run
        self._page: deque[AlarmEntry] = deque()  # the nearest ones behind it,
        self._horizon: Position = _END  # all of them up to here
        self.next = 0

    def head(self, now: int) -> AlarmEntry | None:
        """The first one, if it is due."""
        if self.next > now:
            return None
        if not self._page:
            found = self.shard.store.armed_alarms(until=FOREVER, limit=PAGE, after=self.cursor)
            self._page.extend(found)
            self._horizon = _position(found[-1]) if len(found) == PAGE else _END
            self.next = found[0].alarm.due if found else FOREVER
        return self._page[0] if self.next <= now else None

    def take(self) -> AlarmEntry:
        entry = self._page.popleft()
        self.cursor = _position(entry)
        if self._page:
            self.next = self._page[0].alarm.due
        else:
            self.next = FOREVER if self._horizon is _END else entry.alarm.due
        return entry

    def notice(self, position: Position) -> None:
        """An alarm stands there now."""
        if position <= self.cursor:
            self.cursor = (position[0], position[1] - 1)
        if position <= self._horizon:  # its place is within the page: read that anew when it is needed
            self._page.clear()
            self._horizon = _END
            self.next = min(self.next, position[0])


class AlarmScheduler:
    """``timeout`` and ``retries`` are for types that state none. ``chance`` returns 0 to 1."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        runner: TurnRunner,
        shards: Iterable[Shard],
        *,
        timeout: float,
        retries: int,
        at_once: int,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._dispatcher = dispatcher
        self._runner = runner
        self._at_once = at_once
        self._chance = chance
        self._handlers = {
            name: Handler(
                host.type.alarm_timeout or timeout,
                retries if host.type.alarm_retries is None else host.type.alarm_retries,
            )
            for name, host in dispatcher.hosts.items()
            if host.type.has_alarm
        }
        self._queues = [_Queue(shard) for shard in shards]
        for queue in self._queues:
            queue.shard.committer.on_alarms = partial(self._changed, queue)
        self._failure = Lifecycle("alarm", CHANGE_SECONDS, _write_failure)
        self.running: dict[tuple[int, int], Run] = {}  # by shard and actor
        self._unknown: set[str] = set()  # types that were reported
        self._timer: asyncio.Handle | None = None
        self._timer_due = FOREVER
        self._stopped = True
        # counters
        self.fired = 0
        self.retried = 0
        self.failed = 0
        self.lag = Histogram()  # from the due time of a delivery until its turn began

    def start(self) -> None:
        """Begin to fire."""
        self._stopped = False
        self._wake()

    def stop(self) -> None:
        """Start no more runs; those under way go on."""
        self._stopped = True
        self._disarm()

    def handler(self, type_: str) -> Handler | None:
        """What takes the alarms of a type; None when it has none."""
        return self._handlers.get(type_)

    def overdue(self) -> float:
        """For how many seconds the alarm that waits longest has been due, 0 when none is."""
        known = [queue.next for queue in self._queues if queue.next]  # 0: it is to be read anew
        return max(0.0, (clock.wall_ms() - min(known, default=FOREVER)) / 1000)

    def soon(self, what: Callable[..., None], *args: Any) -> None:
        self._loop.call_soon(what, *args)

    # -- waiting

    def _changed(self, queue: _Queue, alarms: dict[int, Alarm | None] | None) -> None:
        """A commit with alarms is durable; or, with None, one was taken back."""
        if alarms is None:
            queue.reset()
        else:
            for actor, alarm in alarms.items():
                if alarm is not None and alarm.error is None:
                    queue.notice((alarm.due, actor))
        self._look()

    def _look(self) -> None:
        """Something may have come nearer."""
        if not self._stopped and min((queue.next for queue in self._queues), default=FOREVER) < self._timer_due:
            self._arm()

    def _arm(self) -> None:
        self._disarm()
        if self._stopped or len(self.running) >= self._at_once:
            return  # the end of a run looks again
        due = min((queue.next for queue in self._queues), default=FOREVER)
        if due >= FOREVER:
            return
        self._timer_due = due
        wait = (due - clock.wall_ms()) / 1000
        if wait <= 0:
            self._timer = self._loop.call_soon(self._wake)
        else:
            self._timer = self._loop.call_later(min(max(wait, _TIMER_SLACK_SECONDS), RECHECK_SECONDS), self._wake)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_due = FOREVER

    # -- starting

    def _wake(self) -> None:
        """Start what is due, a slice of it."""
        now = clock.wall_ms()
        started = 0
        for _ in range(LOOKED_AT):
            if started == SLICE or len(self.running) >= self._at_once:
                break
            first = self._first(now)
            if first is None:
                break
            started += self._start(first, first.take())
        self._arm()

    def _first(self, now: int) -> _Queue | None:
        """The queue whose head has been due for longest."""
        best, best_due = None, FOREVER
        for queue in self._queues:
            if queue.shard.committer.broken is not None:
                queue.next = FOREVER
                continue
            try:
                entry = queue.head(now)
            except ActordError as error:
                queue.next = FOREVER
                if isinstance(error, StoreBroken):
                    queue.shard.committer.break_off(error)
                else:
                    log.critical("the alarms of shard %d can't be read: none fires: %s", queue.shard.number, error)
                continue
            if entry is not None and entry.alarm.due < best_due:
                best, best_due = queue, entry.alarm.due
        return best

    def _start(self, queue: _Queue, entry: AlarmEntry) -> bool:
        key = (queue.shard.number, entry.actor)
        run = self.running.get(key)
        if run is not None:
            run.again = _position(entry)
            return False
        handler = self._handlers.get(entry.type)
        if handler is None:
            if entry.type not in self._unknown:
                self._unknown.add(entry.type)
                log.error(
                    "alarms of %s are due, but the program has no such type with an alarm handler: they are kept, and "
                    "fire once it has (`actord alarms ls --type %s`)",
                    entry.type,
                    entry.type,
                )
            return False
        known = self._dispatcher.hosts[entry.type].activations.get(entry.name)
        try:
            now = queue.shard.store.read_alarm(entry.actor) if known is None else known.committed_alarm()
            if now != entry.alarm:
                return False  # changed since the page was read
            act = known or self._dispatcher.activation(entry.type, entry.name)
        except ActordError as error:
            log.error("the alarm of %s %r can't be run: %s", entry.type, entry.name, error)
            return False
        run = self.running[key] = Run(self, queue, entry, handler)
        self._runner.admit(Call(run, 0, bytearray(1), act, handler, (run,), {}, 0, NO_DEADLINE, monotonic()))
        return True

    # -- ending

    def ended(self, run: Run, call: Call) -> None:
        """The run's outcome is durable: the alarm is gone, or still there."""
        if call.status < 400:
            if run.alarm is None:  # it was moved, or the clock was set back
                run.again = _position(run.entry)
            else:
                self.fired += 1
            self._finish(run)
            return
        problem = msgspec.json.decode(call.body)
        if problem["name"] == "ActorOutputGateError":  # the store's failure, not the handler's
            self._pause(run)
            return
        error = f"{problem['name']}: {problem['detail']}"[:ERROR_CHARS]
        change = _Change(run)
        arguments = (change, run.alarm or run.entry.alarm, error, self._chance())
        self._runner.admit(
            Call(change, 0, bytearray(1), call.act, self._failure, arguments, {}, 0, NO_DEADLINE, monotonic())
        )

    def recorded(self, change: _Change, call: Call) -> None:
        """What follows on the failure is durable, or could not be written."""
        run = change.run
        if call.status >= 400:
            self._pause(run)
            return
        written = change.written
        if written is not None and written.error is not None:
            self.failed += 1
            log.error(
                "the alarm of %s %r has failed %d times and is kept as failed (`actord alarms ls --failed`): %s",
                run.entry.type,
                run.entry.name,
                written.retries,
                written.error,
            )
        elif written is not None:
            self.retried += 1
            log.warning(
                "the alarm of %s %r has failed; retry %d of %d follows at %s",
                run.entry.type,
                run.entry.name,
                written.retries,
                run.handler.retries,
                as_datetime(written.due).isoformat(),
            )
        self._finish(run)

    def _pause(self, run: Run) -> None:
        run.again = _position(run.entry)
        self._loop.call_later(PAUSE_SECONDS, self._finish, run)

    def _finish(self, run: Run) -> None:
        del self.running[run.queue.shard.number, run.entry.actor]
        if run.again is not None:
            run.queue.notice(run.again)
        self._look()


def _write_failure(turn: Call) -> None:
    """A turn of its own: the alarm becomes its next retry, or a failed one; unless it was changed meanwhile."""
    change, expected, error, chance = turn.args
    if turn.act.committed_alarm() != expected:
        return
    retries = expected.retries + 1
    if retries > change.run.handler.retries:
        written = Alarm(expected.due, expected.scheduled, retries, error)
    else:
        written = Alarm(clock.wall_ms() + 1 + backoff_ms(retries, chance), expected.scheduled, retries)
    turn.alarm = change.written = written
    turn.more = True


def backoff_ms(retry: int, chance: float) -> int:
    """The wait before retry number ``retry`` (from 1); ``chance``, 0 to 1, adds up to a quarter."""
    wait = min(BACKOFF_FIRST_MS << min(retry - 1, 30), BACKOFF_MAX_MS)
    return int(wait * (1 + chance / 4))


def _position(entry: AlarmEntry) -> Position:
    return entry.alarm.due, entry.actor
