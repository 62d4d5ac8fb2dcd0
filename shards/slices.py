"""For how long turns run before anything else does: replies leave, the next commit begins, what has arrived is read.

1. A slice ends when no turn is ready, and after ``SLICE_SECONDS`` at the latest. So commits stay large: what a busy
   worker has to do for all that comes in one iteration takes less.
2. Beside names with long queues of their own, slices of ``SHORT_SECONDS`` are enough for everybody else: once each name
   that was ready at the slice's begin has had a turn, only theirs are left. A call to another name waits for the rest
   of the slice in which it arrives, for one turn of each of them and the rest of its own slice, and for its commit.
3. Where nobody called another name for ``COMPANY_SECONDS``, there is nobody to wait, and slices are long again.

Asked once in a slice, when it has lasted for ``SHORT_SECONDS``: most never do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actord.shards.call import Call

SLICE_SECONDS = 0.005
SHORT_SECONDS = 0.001
REST_SECONDS = SLICE_SECONDS - SHORT_SECONDS
COMPANY_SECONDS = 0.1


class Slices:
    """``names``: how many had a turn ready when the slice began. ``last``: the turn behind all others then."""

    __slots__ = ("_company", "last", "names")

    def __init__(self) -> None:
        self.last: Call | None = None  # None: the slice was asked about before
        self.names = 0
        self._company = 0.0  # until then short slices are worth their price

    def goes_on(self, now: float, end: float) -> bool:
        """Whether a slice that has lasted for ``SHORT_SECONDS`` and has turns to run takes its time to the ``end``."""
        last, self.last = self.last, None
        if last is None:
            return False
        if self.names > 1:
            self._company = now + COMPANY_SECONDS
        return now < end and (not last.started or now > self._company)
