"""For how long turns run before anything else does: replies leave, the next commit begins, what has arrived is read.

1. A slice ends when no turn is ready, and after about ``SLICE_SECONDS``. So commits stay large: what a busy worker has
   to do for all that comes in one iteration takes less.
2. Beside names with long queues of their own, slices of ``SHORT_SECONDS`` are enough for everybody else: once each name
   that was ready at the slice's begin has had a turn, only theirs are left. A call to another name waits for the rest
   of the slice in which it arrives, for one turn of each of them and the rest of its own slice, and for its commit.
3. Where nobody called another name for ``COMPANY_SECONDS``, there is nobody to wait, and slices are long again.
4. At the end of a short slice the worker gives way to whoever waits for its core: the front, which may share it, and
   the kernel's thread that runs its sync, which always does. Linux makes them wait for the next tick of its timer (4 ms
   at 250 Hz) while a thread that never rests holds the core, and a sync begins and ends behind such a wait.
5. A worker whose turns never run out is *full*: then the kernel's threads, a sync's among them, get its core late,
   however long the slices are (``storage.flush``).

Asked when a slice has lasted for ``SHORT_SECONDS``, which most do not, and then after each ``STEP_SECONDS``.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actord.shards.call import Call

SLICE_SECONDS = 0.005
# With 0.5 ms, and the core given away at both ends, others wait 3.4 ms (p50) instead of 5.4, and the hot name has 1,742
# calls a second instead of 2,284, on a core that the front shares: a commit and giving way have their price.
SHORT_SECONDS = 0.001
REST_SECONDS = SLICE_SECONDS - SHORT_SECONDS
# After this a slice that went on is asked again. It is little: a longer one lets more calls come, for one longer still.
STEP_SECONDS = SHORT_SECONDS / 4
COMPANY_SECONDS = 0.1
# A worker that had turns ready at the end of every slice for so long is full.
FULL_SECONDS = 0.02

give_way = os.sched_yield


class Slices:
    """``names``: how many had a turn ready when the slice began. ``last``: the turn behind all others then.

    ``short``: slices are. ``full``: the worker does not rest.
    """

    __slots__ = ("_company", "_rested", "full", "last", "names", "short")

    def __init__(self) -> None:
        self.last: Call | None = None
        self.names = 0
        self.short = False
        self.full = False
        self._rested = 0.0
        self._company = 0.0  # until then short slices are worth their price

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
            self.full = False
        elif now - self._rested > FULL_SECONDS:
            self.full = True

    def pressed(self) -> bool:
        """Whether the kernel's threads would get the core late: the worker never rests, or did not a moment ago."""
        return self.full or monotonic() <= self._company
