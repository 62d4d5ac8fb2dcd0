"""Which actors are called most: a space-saving sketch (Metwally, Agrawal, El Abbadi 2005) over sampled calls.

1. It costs a call nothing: about ``SAMPLES`` calls a second are looked at, however many there are.
2. It is bounded: ``KEYS`` names. An actor with more than a ``KEYS``-th of the calls is among them; what its count may
   be too high by is known (``over``).
3. It forgets: it speaks of the last one to two ``WINDOW_SECONDS``; and whom memory pressure has evicted, at once, since
   the names and counts of those hold memory that is to be given back (see ``shards.recent``). Called again, such an
   actor is counted from then on.

The calls that it looks at are the ones that ``shards.recent`` keeps.

Names are for an operator who asks (`actord top`). They never become labels of metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from actord.shards.recent import Recent

if TYPE_CHECKING:
    from actord.shards.call import Call

KEYS = 64
SAMPLES = 200
WINDOW_SECONDS = 5.0

Key = tuple[str, str]


class Sketch:
    """Counts by key. An entry is [calls, of which this many may be another's, seconds of run time, key]."""

    __slots__ = ("entries", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        self.entries: dict[Key, list[Any]] = {}

    def add(self, key: Key, calls: int, seconds: float) -> None:
        entry = self.entries.get(key)
        if entry is not None:
            entry[0] += calls
            entry[2] += seconds
            return
        inherited = 0.0
        if len(self.entries) >= KEYS:
            least = min(self.entries.values())
            inherited = least[0]
            del self.entries[least[3]]
        self.entries[key] = [inherited + calls, inherited, seconds, key]


class HotActors:
    """``note`` is given the calls that ended together; ``tick`` is called about once a second."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self.recent = Recent()
        self._current = Sketch(now())
        self._before = Sketch(now())
        self._stride = 1  # every so many calls one is looked at,
        self._skip = 0  # this one of the next ones
        self._seen = 0  # calls since the last tick,
        self._taken = 0  # and of them those looked at

    def note(self, calls: list[Call], left: float) -> None:
        """``left``: when their replies did."""
        count = len(calls)
        self._seen += count
        at = self._skip
        if at >= count:
            self._skip = at - count
            return
        while at < count:
            call = calls[at]
            if call.ended and call.method.times is not None:
                act = call.act
                key = (act.host.type.name, act.name)
                self._current.add(key, self._stride, (call.ended - call.started) * self._stride)
                self.recent.add(key, call, left)
            at += self._stride
            self._taken += 1
            if self._taken > SAMPLES:  # the calls have become many since the last tick
                self._taken = 0
                self._stride *= 2
        self._skip = at - count

    @property
    def stride(self) -> int:
        """One of so many calls is looked at."""
        return self._stride

    def tick(self) -> None:
        self._stride = max(1, self._seen // SAMPLES)
        self._seen = self._taken = 0
        now = self._now()
        if now - self._current.since >= WINDOW_SECONDS:
            self._before, self._current = self._current, Sketch(now)

    def forget_absent(self, find: Callable[[Key], object | None]) -> None:
        """Forget those actors for which ``find`` returns None."""
        for sketch in (self._current, self._before):
            sketch.entries = {key: entry for key, entry in sketch.entries.items() if find(key) is not None}

    def top(self, count: int) -> list[tuple[str, str, float, float, float]]:
        """(type, name, calls a second, of which too many at most, run time as a share of the time)."""
        both = Sketch(self._before.since)
        for sketch in (self._before, self._current):
            for key, (calls, over, seconds, _) in sketch.entries.items():
                entry = both.entries.setdefault(key, [0.0, 0.0, 0.0, key])
                entry[0] += calls
                entry[1] += over
                entry[2] += seconds
        elapsed = max(self._now() - self._before.since, 1.0)
        found = sorted(both.entries.items(), key=lambda item: -item[1][0])[:count]
        return [(*key, calls / elapsed, over / elapsed, seconds / elapsed) for key, (calls, over, seconds, _) in found]
