"""Plain numbers that every process keeps of its own work: lists of counts, no objects of a metrics library.

1. Taking a value is one search in a tuple and two additions.
2. Bounds are inclusive upper ones, as Prometheus has them; one more bucket takes what is above the last.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from typing import Any

SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048)

# A value of a metric as it goes over a control line: its name, the values of its labels, and a number; or, for a
# histogram, the counts of its buckets and their sum.
Figure = tuple[str, tuple[str, ...], "float | tuple[list[int], float]"]


class Histogram:
    """Counts by bucket, and the sum of what was taken."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def take(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def value(self) -> tuple[list[int], float]:
        return self.counts, self.sum


# What a method keeps of its turns, in one list: how long they ran, by SECONDS; the sum of that; how many were answered
# with a status of 400 to 499, and with one above.
RUN_SUM = len(SECONDS) + 1
REFUSED = RUN_SUM + 1
FAILED = RUN_SUM + 2

Times = list[Any]


def new_times() -> Times:
    return [*[0] * RUN_SUM, 0.0, 0, 0]


class Requests:
    """Answers by their outcome, and how long they took."""

    __slots__ = ("outcomes", "times")

    def __init__(self) -> None:
        self.times = Histogram()
        self.outcomes = {"ok": 0, "refused": 0, "failed": 0, "gone": 0}

    def take(self, status: int, seconds: float) -> None:
        """``status`` 0: the client went away before it was answered."""
        self.times.take(seconds)
        outcome = "gone" if not status else "ok" if status < 400 else "refused" if status < 500 else "failed"
        self.outcomes[outcome] += 1


class LoopLag:
    """How much later than asked for a timer of this loop runs, looked at ``LAG_SECONDS`` apart."""

    LAG_SECONDS = 0.25

    def __init__(self) -> None:
        self.times = Histogram()
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self.LAG_SECONDS
        self._timer = loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self.times.take(max(0.0, asyncio.get_running_loop().time() - self._due))
        self.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
