"""How Linux schedules a front: while a worker sheds calls, the front does not take a core from it.

A thread that wakes may take its core from the one that runs there. A front does so for each call or two that arrive,
and then has little to do each time: on a core that a full worker has as well, both find their caches cold. A thread of
``SCHED_BATCH`` (sched(7)) does not: it comes when the other gives way or its time is over, and takes in one go what has
arrived. On two cores, one of them the load generator's, that answered 5,891 instead of 5,300 calls a second at twice
the capacity, and 6,193 instead of 5,577 at one and a half times; refusals took 11 instead of 9 ms (p99).

1. It begins when a worker asks for the first share of its calls to be refused (SHED), and ends within a second of the
   end of that. Calls to the worker wait for ``runtime.queue_target`` then, so a few milliseconds do not count.
2. A core that nobody else wants is had at once, as ever.
3. A front that was given another policy from outside, as by ``CPUSchedulingPolicy=`` of systemd, keeps it; one that may
   not choose, as in a sandbox without sched_setscheduler, stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actord.shards.link import Link


class Scheduling:
    """Of the thread that runs the links' loop, and no other."""

    def __init__(self, links: Sequence[Link]) -> None:
        self._links = links
        self._gentle = False  # by us
        for link in links:
            link.shed.on_ask = self.begin

    def begin(self) -> None:
        """A worker asks to be spared a share of its calls; it does so again and again."""
        if not self._gentle:
            self._gentle = _change(os.SCHED_OTHER, os.SCHED_BATCH)

    def look(self) -> None:
        """Called once a second: end what no worker has asked for lately."""
        if self._gentle and not any(link.shed.asked for link in self._links):
            self._gentle = False
            _change(os.SCHED_BATCH, os.SCHED_OTHER)


def _change(before: int, after: int) -> bool:
    """Whether the thread had the policy ``before``, and has the other one now."""
    try:
        if os.sched_getscheduler(0) != before:
            return False
        os.sched_setscheduler(0, after, os.sched_param(0))
    except OSError:
        return False
    return True
