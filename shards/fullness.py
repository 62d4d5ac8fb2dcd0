"""Full mailboxes, as fronts are told of them: a call that finds its mailbox full has come a long way to be refused.

1. Fronts are told of a name whose mailbox has refused a call from outside, and refuse its calls themselves from then on
   (FULL, shards/shedding.py). So a hot name costs its worker the calls that it takes, and few of the excess.
2. They are told that there is room again once an eighth of the mailbox is free: so it is never empty while calls
   come, and what is let in and finds it full again is little beside what it takes.
3. What they were told ends by itself soon; while calls go on to be refused here, they are told again, but not more
   often than every ``AGAIN_SECONDS``: those that were under way come all the same.
4. A mailbox of fewer than ``LEAST`` calls may be empty before a front has heard that it was full. It is left alone.

Costs a call nothing: what is done here is done for calls that are refused, and once for each slice of the turn runner
while there are such names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actord.shards.activation import Activation

LEAST = 100
ROOM = 1 / 8
AGAIN_SECONDS = 0.05


class Fullness:
    """``names``: those that fronts believe to be full, and when they were told. Times are of CLOCK_MONOTONIC."""

    __slots__ = ("names", "on_change")

    def __init__(self) -> None:
        self.names: dict[Activation, float] = {}
        self.on_change: Callable[[Activation, bool], None] = lambda act, full: None

    def refused(self, act: Activation, now: float) -> None:
        """A call from outside found the mailbox full."""
        if act.host.mailbox >= LEAST and now - self.names.get(act, -AGAIN_SECONDS) >= AGAIN_SECONDS:
            self.names[act] = now
            self.on_change(act, True)

    def look(self) -> None:
        """Say of which names there is room again."""
        for act in list(self.names):
            if len(act.mailbox or ()) <= act.host.mailbox * (1 - ROOM):
                del self.names[act]
                self.on_change(act, False)
