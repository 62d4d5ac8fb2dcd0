"""Admission: a worker to which more comes than it can do refuses the excess at once, so that nobody waits long in it.

1. While a worker keeps up it refuses nothing, however many calls come at a time: bursts wait.
2. How long a turn waits is measured, not guessed: one call at a time, the *probe*, is watched from the end of the queue
   of turns to its begin. Calls that wait behind others of their own name are not in that queue: a hot name fills its
   mailbox, which has a limit of its own, and does not make the worker overloaded for other names.
3. When the wait was over the target for ``INTERVAL_SECONDS`` without a break, the worker is *crowded*: a call that
   would find more turns waiting than are carried out within the target is refused, ``ActorOverloaded``, applied: no.
   So the queue stays as long as the target says, and the worker never idles for want of calls. ``LEAST`` may always
   wait.
4. Only calls from outside are refused: one that a turn makes, or a message, is part of work that was let in already.
5. A call that is refused here has come a long way. So fronts are told which share of their calls they should refuse
   themselves (SHED): so much that the queue keeps its length, and a little less, so that it never runs out.
6. It ends when the queue is short and fronts refuse nothing any more. What fronts were told ends by itself soon after
   they were told last.
7. While a name waits for its own turns alone, slices are shorter: those who call it have to wait anyway.

Costs a call nothing: it lowers the limit that every call is compared with anyway (``most``), and the clock is looked at
once for each slice of the turn runner.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from actord.shards.shedding import SHED_SECONDS

if TYPE_CHECKING:
    from actord.shards.call import Call

log = logging.getLogger("actord.admission")

# For so long turns run before anything else does. A busy worker needs less for all that comes in one iteration: commits
# stay as large as they were.
SLICE_SECONDS = 0.005
# The same while a name runs for which more than MANY calls wait.
SHORT_SLICE_SECONDS = 0.001
MANY = 256
FEW = 8  # turns at the head of the queue that are looked at for it
# For how long turns must have waited too long before anything is refused (as in CoDel).
INTERVAL_SECONDS = 0.1
# So many turns may always wait: a slow method with a hundred callers is slow, and not overloaded.
LEAST = 100
# The weight of the newest probe in what a turn costs.
WEIGHT = 0.3
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
    """``most``: calls that may wait before anybody has to ask ``refuses``. Times are those of CLOCK_MONOTONIC."""

    __slots__ = (
        "_before",
        "_bound",
        "_cost",
        "_late_since",
        "_probe",
        "_probed",
        "_ready",
        "_room",
        "_steered",
        "_target",
        "_told",
        "crowded",
        "most",
        "on_shed",
        "refused",
        "shed",
    )

    def __init__(self, ready: deque[Call]) -> None:
        """``ready``: the queue of turns."""
        self._ready = ready
        self._bound = self.most = 1 << 30
        self._target = 0.0
        self.crowded = False
        self.refused = 0  # since the start
        self.shed = 0.0  # the share of calls that fronts refuse
        self.on_shed: Callable[[float], None] = lambda share: None
        self._steered = 0.0
        self._before = (0, 0)  # the length of the queue, and what was refused, when it was last steered
        self._room = 0  # turns that may wait, while it is crowded
        self._cost = 0.0  # seconds for each turn of the queue; 0: not known
        self._probe: Call | None = None
        self._probed = (0.0, 0)  # when it was last in the queue, and how long that was
        self._late_since = 0.0
        self._told = 0.0

    def set_limits(self, bound: int, target: float) -> None:
        """``bound``: calls that may wait in all. ``target``: seconds that a turn may wait; 0: as long as it takes."""
        self._bound = self.most = bound
        self._target = target

    def refuses(self, waiting: int, outside: bool, busy: bool) -> bool:
        """Whether a call may not be let in, asked when ``waiting`` has reached ``most``.

        ``busy``: it would wait in the mailbox of its own name, which is somebody else's limit.
        """
        if waiting >= self._bound:
            return True
        if not self.crowded or not outside or busy or len(self._ready) < self._room:
            return False
        self.refused += 1
        return True

    def look(self, now: float) -> float:
        """Called when nothing waits any more, and when the runner has worked for a slice of time: how long the next
        one is."""
        ready = self._ready
        if not ready:
            self._probe = None
            self._late_since = 0.0
            if self.crowded:
                self._steer(now)
        elif self._target:
            self._look(now)
        for call in islice(ready, FEW):
            if call.act.mailbox is not None and len(call.act.mailbox) > MANY:
                return SHORT_SLICE_SECONDS
        return SLICE_SECONDS

    def _look(self, now: float) -> None:
        ready = self._ready
        waited = self._look_at_probe(now)
        if waited > self._target or len(ready) * self._cost > self._target:
            self._late_since = self._late_since or now
            if not self.crowded and now - self._late_since >= INTERVAL_SECONDS and self._cost:
                self._begin(now)
        else:
            self._late_since = 0.0
        if self.crowded:
            self._room = max(LEAST, int(self._target / self._cost))
            self.most = min(self._bound, self._room)
            self._steer(now)

    def _look_at_probe(self, now: float) -> float:
        """For how long the probe has waited, so far or in all; a new one takes the place of one that has begun."""
        probe = self._probe
        waited = 0.0
        if probe is not None:
            since, length = self._probed
            if not (probe.started or probe.ended or probe.cancelled):
                # What comes after an answer without a turn, such as that of a repeated key, looks like waiting.
                if now - since < 10 * self._target:
                    return now - since
            elif probe.started:
                waited = probe.started - since
                cost = waited / length
                self._cost = cost if not self._cost else self._cost + WEIGHT * (cost - self._cost)
        self._probe = self._ready[-1]
        self._probed = now, len(self._ready)
        return waited

    def _begin(self, now: float) -> None:
        self.crowded = True
        self._steered, self._before = now, (len(self._ready), self.refused)
        if now - self._told > TOLD_SECONDS or not self._told:
            self._told = now
            log.warning(
                "more calls come than this worker can do: %d turns wait, %.2f ms each; what would wait for more than "
                "%.0f ms is refused",
                len(self._ready),
                self._cost * 1e3,
                self._target * 1e3,
            )

    def _steer(self, now: float) -> None:
        """Choose the fronts' share by what came since the last time, and end what is over."""
        passed = now - self._steered
        if passed < STEER_SECONDS:
            return
        length = len(self._ready)
        length_before, refused_before = self._before
        self._steered, self._before = now, (length, self.refused)
        if passed > SHED_SECONDS:  # the fronts have begun to let in everything
            self.shed = 0.0
        done = passed / self._cost
        came = max(1.0, self.refused - refused_before + done + length - length_before)
        wanted = done * (1 + LEFT) + CLOSER * (self._room - length)
        if not length:  # it ran out of work: nobody knows how much more it could have done
            wanted = MORE * came
        let_in = (1 - self.shed) * min(MORE, wanted / came)
        self.shed = 1 - min(1.0, max(LET_IN_LEAST, let_in))
        self.on_shed(self.shed)
        if not self.shed and length < self._room / 2:
            self.crowded = False
            self._late_since = 0.0
            self.most = self._bound
