"""Admission: a worker to which more comes than it can do refuses the excess at once, so that nobody waits long in it.

1. While a worker keeps up it refuses nothing; bursts wait.
2. When the calls whose turns begin have waited over the target for ``INTERVAL_SECONDS``, each of them (as in CoDel),
   the worker is *crowded*. A few hot names do not make it so: their calls wait in mailboxes, which have a limit of
   their own, and those of other names pass them.
3. How long a call would wait is counted, not guessed: the calls before it, at the pace of the last turns. In a crowded
   worker what would wait longer than the target is refused, ``ActorOverloaded``, applied: no. So the queue stays as
   long as the target says, and the worker never idles for want of calls. ``LEAST`` may always wait.
4. What is too much of the queue when that begins, or when turns become slower, is turned away from its end: those came
   last, and none of them has begun.
5. Only calls from outside are refused: one that a turn makes, or a message, is part of work that was let in already.
6. A call that is refused here has come a long way. So fronts are told which share of their calls they should refuse
   themselves (SHED): so much that the queue keeps its length, and a little less, so that it never runs out.
7. It ends when the queue has been short and nothing was refused for ``CALM_SECONDS``: until then a queue that is too
   long again is met at once. What fronts were told ends by itself soon after they were told last.

Costs a call nothing: it lowers the limit that every call is compared with anyway (``most``), and the queue is looked at
once for each slice of the turn runner.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from actord.shards.fullness import Fullness
from actord.shards.shedding import SHED_SECONDS

if TYPE_CHECKING:
    from actord.shards.activation import Activation
    from actord.shards.call import Call

log = logging.getLogger("actord.admission")

# For how long calls must have waited too long before anything is refused.
INTERVAL_SECONDS = 0.1
# With fewer names in the queue these are hot names, and not an overload.
NAMES = 16
# So many calls may always wait: a slow method with a hundred callers is slow, and not overloaded.
LEAST = 100
# By how much the queue may be too long before it is shortened.
TOO_LONG = 1.5
# For how long the queue must be short, and nothing be refused, before it is all over. Too soon, and an overload that
# goes on would have to be found anew: for half a second everything would be let in.
CALM_SECONDS = 1.0
# How often turns are counted while the queue does not become empty, and what a count weighs at the next one.
COUNT_SECONDS = 0.02
KEPT = 0.7
# How often the share for the fronts is chosen anew. What they let through is LEFT more than what can be done, and
# CLOSER of what the queue is too short or too long; at least LET_IN_LEAST, and at most MORE times what it was.
STEER_SECONDS = 0.05
LEFT = 0.05
CLOSER = 0.2
LET_IN_LEAST = 0.02
MORE = 2.0
# A worker that is crowded again and again says so once in this time.
TOLD_SECONDS = 60.0


class Admission:
    """``most``: calls that may wait before anybody has to ask ``refuses``. Times are those of CLOCK_MONOTONIC.

    ``ready`` is the queue of turns: one call of each name for which calls wait, the others being in its mailbox.
    """

    __slots__ = (
        "_before",
        "_bound",
        "_busy",
        "_cost",
        "_counted",
        "_late_since",
        "_lately",
        "_probe",
        "_ready",
        "_room",
        "_steered",
        "_target",
        "_told",
        "crowded",
        "fullness",
        "most",
        "on_excess",
        "on_shed",
        "refused",
        "shed",
    )

    def __init__(self, ready: deque[Call]) -> None:
        self._ready = ready
        self._bound = self.most = 1 << 30
        self._target = 0.0
        self.crowded = False
        self.fullness = Fullness()
        self.refused = 0  # since the start
        self.shed = 0.0  # the share of calls that fronts refuse
        self.on_shed: Callable[[float], None] = lambda share: None
        self.on_excess: Callable[[Call], None] = lambda call: None  # answers a call that was taken out of its queue
        self._late_since = 0.0
        self._room = 0  # calls that may wait, while it is crowded
        self._told = 0.0
        self._busy = 0.0  # when fronts refused calls, or the queue was not short, while it was crowded
        # what a turn costs
        self._cost = 0.0  # seconds for each turn, with everything that is done between turns; 0: not known
        self._probe: Call | None = None  # was last in the queue ...
        self._counted = (0.0, 0)  # ... and at this time had so many turns before it
        self._lately = (0.0, 0.0)  # seconds, and the turns that they took; what is longer ago counts less
        # the fronts' share
        self._steered = 0.0
        self._before = (0, 0)  # what waited, and what was refused, at that time

    def set_limits(self, bound: int, target: float) -> None:
        """``bound``: calls that may wait in all. ``target``: seconds that a call may wait; 0: as long as it takes."""
        self._bound = self.most = bound
        self._target = target

    def refuses(self, waiting: int, outside: bool, act: Activation | None) -> bool:
        """Whether a call may not be let in, asked when ``waiting`` has reached ``most``. ``act``: if there is one."""
        if waiting >= self._bound:
            return True
        if not self.crowded or not outside:
            return False
        # Each call of its own name that is before it waits for a whole round of the queue.
        rounds = 1 if act is None or not act.busy else 2 + len(act.mailbox or ())
        if rounds * len(self._ready) < self._room:
            return False
        self.refused += 1
        return True

    def look(self, now: float, waiting: int) -> None:
        """Called when nothing waits any more, and when the runner has worked for a slice of time."""
        if self.fullness.names:
            self.fullness.look()
        ready = self._ready
        if not ready:
            self._probe = None
            self._late_since = 0.0
            if self.crowded:
                self._steer(now, waiting)
            return
        if not self._target:
            return
        self._count(now)
        if len(ready) < NAMES or now - ready[0].queued < self._target:
            self._late_since = 0.0
        elif not self._late_since:
            self._late_since = now
        elif not self.crowded and now - self._late_since >= INTERVAL_SECONDS and self._cost:
            self._begin(now, waiting)
        if self.crowded:
            self._room = max(LEAST, int(self._target / self._cost))
            self.most = min(self._bound, self._room)
            self._steer(now, waiting)

    def _count(self, now: float) -> None:
        """Count the turns that have begun since the last time, by the place of the probe in the queue."""
        ready, probe = self._ready, self._probe
        since, before = self._counted
        if probe is not None:
            if now - since < COUNT_SECONDS and not probe.started:
                return
            try:
                place = -1 if probe.started else ready.index(probe)
            except ValueError:  # it was answered without a turn
                place = before
            until = probe.started or now
            time, count = self._lately
            self._lately = time, count = KEPT * time + until - since, KEPT * count + before - place
            if count > 0:
                self._cost = time / count
            if place > 0 and place != before:
                self._counted = now, place
                return
        self._probe = ready[-1]
        self._counted = now, len(ready) - 1

    def _begin(self, now: float, waiting: int) -> None:
        self.crowded = True
        self._busy = now
        self._steered, self._before = now - STEER_SECONDS, (waiting, self.refused)
        if now - self._told > TOLD_SECONDS or not self._told:
            self._told = now
            log.warning(
                "more calls come than this worker can do: %d wait, %.2f ms each; what would wait for more than %.0f ms "
                "is refused",
                waiting,
                self._cost * 1e3,
                self._target * 1e3,
            )

    def _shorten(self) -> int:
        """Turn away what would wait for too long; how many calls that were."""
        ready, room = self._ready, self._room
        excess, kept, before = len(ready) - room, [], self.refused
        while excess > 0 and ready:
            call = ready.pop()
            if call.sink.outside and not call.act.mailbox:
                call.act.busy = False
                self._turn_away(call)
                excess -= 1
            else:
                kept.append(call)
        ready.extend(reversed(kept))
        deepest = room // max(1, len(ready))
        for call in ready:
            mailbox = call.act.mailbox
            while mailbox and len(mailbox) > deepest and mailbox[-1].sink.outside:
                self._turn_away(mailbox.pop())
        self._probe = None  # it may be among them
        return self.refused - before

    def _turn_away(self, call: Call) -> None:
        self.refused += 1
        self.on_excess(call)

    def _steer(self, now: float, waiting: int) -> None:
        """Choose the fronts' share by what came since the last time, and end what is over."""
        passed = now - self._steered
        if passed < STEER_SECONDS:
            return
        if waiting > self._room * TOO_LONG:
            waiting -= self._shorten()
        waiting_before, refused_before = self._before
        self._steered, self._before = now, (waiting, self.refused)
        if passed > SHED_SECONDS:  # the fronts have begun to let in everything
            self.shed = 0.0
        done = passed / self._cost
        came = max(1.0, self.refused - refused_before + done + waiting - waiting_before)
        wanted = done * (1 + LEFT) + CLOSER * (self._room - waiting)
        if not waiting:  # it ran out of work: nobody knows how much more it could have done
            wanted = MORE * came
        let_in = (1 - self.shed) * min(MORE, wanted / came)
        self.shed = 1 - min(1.0, max(LET_IN_LEAST, let_in))
        self.on_shed(self.shed)
        if self.shed or waiting >= self._room / 2:
            self._busy = now
        elif now - self._busy > CALM_SECONDS:
            self.crowded = False
            self._late_since = 0.0
            self.most = self._bound
