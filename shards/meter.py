"""What a worker counts of its calls and commits, as plain numbers.

1. Calls are counted behind the output gate, when their replies have left, all that left together in one pass: no call
   waits for it. A call costs 0.3 µs here.
2. No clock is read for a call: a turn's begin and end are known anyway, and those that left together share one look at
   the clock. A batch costs three.
3. A method is known by the entry of the dispatch table that the call was admitted with; a caller's text and an actor's
   name are in no number.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING

from actord.measures import FAILED, REFUSED, RUN_SUM, SECONDS, SIZES, Histogram
from actord.shards.hot import HotActors
from actord.shards.recent import Entry, Key, Watch
from actord.shards.slow import SlowCalls

if TYPE_CHECKING:
    from actord.shards.call import Call
    from actord.shards.tracing import Tracing

# Of a problem document. What a detail quotes is escaped there, so that it can't look like this.
_NAME = re.compile(rb'"name":"(\w{1,64})"').search

# What a call that never had its turn was refused with, by its status, when its document is no JSON.
NOT_BEGUN = {
    500: "ActivationFailed",
    503: "ActorUnavailable",
    504: "BlockConcurrencyTimeoutError",
    507: "ActorOutputGateError",
    508: "ActorDeadlockError",
}

DEPTH_SECONDS = 30.0

_ended_of = attrgetter("ended")


class Meter:
    """One for each worker, shared by its gate and its committers. ``slow_call``: seconds, 0 to tell of none."""

    __slots__ = (
        "_deepest",
        "_since",
        "batch_calls",
        "batch_write",
        "call",
        "commit_wait",
        "fsync",
        "hot",
        "queue",
        "refused",
        "replayed",
        "slow",
        "tracing",
        "watch",
    )

    def __init__(self, slow_call: float = 0.0) -> None:
        self.call = Histogram()  # from admission until the reply left
        self.queue = Histogram()  # from admission until the turn began
        self.commit_wait = Histogram()  # from the end of the turn until its batch was durable
        self.batch_write = Histogram()
        self.fsync = Histogram()
        self.batch_calls = Histogram(SIZES)
        self.replayed = 0  # answered with the reply of an earlier run
        self.refused: Counter[str] = Counter()  # by the error's class: no turn ran
        self.hot = HotActors()
        self.slow = SlowCalls(slow_call)
        self.tracing: Tracing | None = None
        self.watch: Watch | None = None  # while somebody watches the calls of an actor
        self._since = monotonic()
        self._deepest = 0

    def left(self, calls: list[Call]) -> None:
        """The replies of these calls have left."""
        now = monotonic()
        queue, whole = self.queue.counts, self.call.counts
        waited = spent = total = 0.0
        arrived = -1.0
        at = 0
        slow = self.slow.limit
        search, bounds, first = bisect_left, SECONDS, SECONDS[0]
        for call in calls:
            times = call.method.times
            ended = call.ended
            if times is None or not ended:
                self._no_turn(call)
                continue
            started = call.started
            queued = call.queued
            took = ended - started
            if took <= first:
                times[0] += 1
            else:
                times[search(bounds, took)] += 1
            times[RUN_SUM] += took
            wait = started - queued
            if wait <= first:
                queue[0] += 1
            else:
                queue[search(bounds, wait)] += 1
            waited += wait
            if queued != arrived:  # those that came in one batch of their link have one time
                arrived = queued
                total = now - queued
                at = search(bounds, total)
            whole[at] += 1
            spent += total
            if total > slow:
                self.slow.note(call, now)
            if call.status >= 400:
                times[REFUSED if call.status < 500 else FAILED] += 1
        if self.tracing is not None:
            self.tracing.left(calls, now)
        if self.watch is not None:
            self.watch.note(calls, now)
        self.queue.sum += waited
        self.call.sum += spent
        self.hot.note(calls, now)

    def _no_turn(self, call: Call) -> None:
        if call.method.times is None:  # the runtime's own, or refused by the dispatcher, which counts itself
            return
        if call.status < 400:
            self.replayed += 1
        else:
            named = _NAME(call.body)
            self.refused[named[1].decode() if named else NOT_BEGUN.get(call.status, "Other")] += 1

    def tick(self, deepest: int) -> bool:
        """About once a second, with the longest mailbox since this was true."""
        self.hot.tick()
        now = monotonic()
        if self.watch is not None and not self.watch.expire(now):
            self.watch = None
        if now - self._since < DEPTH_SECONDS:
            return False
        self._since = now
        self._deepest = deepest
        return True

    def calls_since(self, key: Key) -> list[Entry]:
        """All calls of an actor since this was asked before, some seconds ago at most."""
        if self.watch is None:
            self.watch = Watch()
        return self.watch.renew(key, monotonic())

    def deepest(self, current: int) -> int:
        """The longest mailbox of the last one to two ``DEPTH_SECONDS``."""
        return max(current, self._deepest)

    def durable(self, submitted: float, calls: list[Call]) -> None:
        """The sync of a batch, asked for at ``submitted``, has returned. ``calls`` are in the order of their ends."""
        now = monotonic()
        self.fsync.take(now - submitted)
        self.batch_calls.take(len(calls))
        if not calls:
            return
        wait = self.commit_wait
        longest = bisect_left(SECONDS, now - calls[0].ended)
        if longest == bisect_left(SECONDS, now - calls[-1].ended):
            wait.counts[longest] += len(calls)
            wait.sum += now * len(calls) - sum(map(_ended_of, calls))
            return
        for call in calls:
            if call.ended:  # else no turn of it ran
                wait.take(now - call.ended)
