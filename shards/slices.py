"""For how long turns run before anything else does: replies leave, the next commit begins, what has arrived is read.

1. A slice ends when no turn is ready, and after about ``SLICE_SECONDS``. So commits stay large: what a busy worker has
   to do for all that comes in one iteration takes less.
2. Beside names with long queues of their own, slices of ``SHORT_SECONDS`` are enough for everybody else: once each name
   that was ready at the slice's begin has had a turn, only theirs are left. A call to another name waits for the rest
   of the slice in which it arrives, for one turn of each of them and the rest of its own slice, and for its commit.
   Calls that only names with long queues wait for are committed every ``SLICE_SECONDS`` all the same.
3. Where nobody called another name for ``COMPANY_SECONDS``, there is nobody to wait, and slices are long again.
4. At the end of a short slice the worker gives way to whoever waits for its core: the front, which may share it, and
   the kernel's thread that runs its sync, which always does. Linux makes them wait for the next tick of its timer (4 ms
   at 250 Hz) while a thread that never rests holds the core, and a sync begins and ends behind such a wait.
5. A worker whose turns never run out is *full*: then the kernel's threads, a sync's among them, get its core late,
   however long the slices are (``storage.flush``).

Asked when a slice has lasted for ``LOOK_SECONDS``, which most do not, or for ``SHORT_SECONDS`` where slices are short,
and then after each ``STEP_SECONDS``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actord.shards.call import Call

SLICE_SECONDS = 0.005
LOOK_SECONDS = 0.001
# On a core that the front shares, others wait 1.1 ms (p50) for it, and 2.4 with 1 ms. The hot name has as many calls a
# second with either, 4,245 and 4,232; but 2,901 if each short slice had a commit of its own.
SHORT_SECONDS = 0.00025
# After this a slice that went on is asked again. It is little: a longer one lets more calls come, for one longer still.
STEP_SECONDS = 0.00025
COMPANY_SECONDS = 0.1
# A worker that had turns ready at the end of every slice for so long is full, and for so long after that.
FULL_SECONDS = 0.03
LINGER_SECONDS = 0.1

give_way = os.sched_yield


class Slices:
    """``names``: how many had a turn ready when the slice began. ``last``: the turn behind all others then.

    ``short``: slices are.
    """

    __slots__ = ("_company", "_full", "_rested", "last", "names", "on_full", "short")

    def __init__(self) -> None:
        self.last: Call | None = None
        self.names = 0
        self.short = False
        self._company = 0.0  # until then short slices are worth their price
        self._rested = monotonic()  # when no turn was ready
        self._full = 0.0  # until then the worker counts as full
        self.on_full: Callable[[], None] = lambda: None  # told when it has become full

    def goes_on(self, now: float, end: float) -> bool:
        """Whether a slice that has turns to run does so for ``STEP_SECONDS`` more. It lasts until ``end`` at most."""
        if self.last is None:
            return False
        if not self.last.started:
            return now < end
        if self.names > 1:
            self._company = now + COMPANY_SECONDS
        self.short = now <= self._company
        return now < end and not self.short

    def ended(self, now: float, more: bool) -> None:
        """A slice is over; ``more``: turns are ready all the same."""
        if not more:
            self._rested = now
        elif now - self._rested > FULL_SECONDS:
            was_full, self._full = now <= self._full, now + LINGER_SECONDS
            if not was_full:
                self.on_full()

    def pressed(self) -> bool:
        """Whether the kernel's threads would get the core late: the worker never rests, or did not a moment ago."""
        now = monotonic()
        return now <= self._full or now <= self._company
