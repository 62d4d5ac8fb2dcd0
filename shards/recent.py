"""The last calls of actors, each split into waited, ran and committed, for an operator who asks (`actord inspect`).

1. It costs a call nothing: ``Recent`` is given the calls that ``shards.hot`` samples anyway, which are all of them as
   long as they are few. Only for a call that is sampled it does something, about 2 us.
2. It is bounded: ``CALLS`` of each of some ``ACTORS`` actors. Each name has a set of ``WAYS`` places where it may
   stand; a new one takes the place of that one of its set which was seen longest ago.
3. It keeps no object that a call made: all is copied into tables of numbers that are there from the start. A name or
   a time that stayed would hold the whole arena (1 MiB) of Python's allocator that it lies in, so that a worker
   would evict its instances and get hardly any memory back: 1,000 samples among 40,000 instances held all of it.
4. Every call of an actor is kept while somebody watches it, and ``WATCH_SECONDS`` longer; meanwhile each call of its
   worker costs about 0.1 us.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actord.shards.call import Call

CALLS = 10
ACTORS = 1_024
WAYS = 8
WATCHED_CALLS = 1_000
WATCH_SECONDS = 10.0

Key = tuple[str, str]
# Method, status, and when it was queued, when it began, when it ended, when its reply left: of the monotonic clock.
Entry = tuple[str, int, float, float, float, float]


def _entry(call: Call, left: float) -> Entry:
    return call.method.name, call.status, call.queued, call.started, call.ended, left


class Recent:
    """An actor is known by its key's hash: 64 bits with a secret of the process, so that no two share one."""

    def __init__(self) -> None:
        self._hashes = array("q", bytes(8 * ACTORS))  # who stands at a place; 0: nobody
        self._calls = array("q", bytes(8 * ACTORS))  # how many of its calls were noted there
        self._methods = [""] * (ACTORS * CALLS)  # the program's own names, which live as long as it does
        self._statuses = array("H", bytes(2 * ACTORS * CALLS))
        self._queued, self._started, self._ended, self._left = (array("d", bytes(8 * ACTORS * CALLS)) for _ in range(4))

    def add(self, key: Key, call: Call, left: float) -> None:
        hashed = hash(key) or 1
        place = self._place(hashed)
        if place < 0:
            place = self._oldest(hashed)
            self._hashes[place] = hashed
            self._calls[place] = 0
        row = place * CALLS + self._calls[place] % CALLS
        self._calls[place] += 1
        self._methods[row] = call.method.name
        self._statuses[row] = call.status
        self._queued[row] = call.queued
        self._started[row] = call.started
        self._ended[row] = call.ended
        self._left[row] = left

    def of(self, key: Key) -> list[Entry]:
        """The oldest first."""
        place = self._place(hash(key) or 1)
        if place < 0:
            return []
        calls = self._calls[place]
        return [self._row(place * CALLS + number % CALLS) for number in range(max(0, calls - CALLS), calls)]

    def _row(self, row: int) -> Entry:
        times = self._queued[row], self._started[row], self._ended[row], self._left[row]
        return self._methods[row], self._statuses[row], *times

    def _place(self, hashed: int) -> int:
        """Where this one stands; -1: nowhere."""
        first = hashed % (ACTORS // WAYS) * WAYS
        try:
            return self._hashes.index(hashed, first, first + WAYS)
        except ValueError:
            return -1

    def _oldest(self, hashed: int) -> int:
        """The place in its set that is free, or whose last call left first."""
        first = hashed % (ACTORS // WAYS) * WAYS
        return min(range(first, first + WAYS), key=self._seen)

    def _seen(self, place: int) -> float:
        calls = self._calls[place]
        return self._left[place * CALLS + (calls - 1) % CALLS] if calls else -1.0


class Watch:
    """Actors that somebody watches."""

    def __init__(self) -> None:
        self._rings: dict[Key, tuple[float, deque[Entry]]] = {}

    def renew(self, key: Key, now: float) -> list[Entry]:
        """Watch an actor for ``WATCH_SECONDS`` more; its calls since this was asked before."""
        _, ring = self._rings.get(key, (0.0, deque[Entry](maxlen=WATCHED_CALLS)))
        found = list(ring)
        ring.clear()
        self._rings[key] = now + WATCH_SECONDS, ring
        return found

    def note(self, calls: list[Call], left: float) -> None:
        rings = self._rings
        for call in calls:
            if call.ended and call.method.times is not None:
                act = call.act
                found = rings.get((act.host.type.name, act.name))
                if found is not None:
                    found[1].append(_entry(call, left))

    def expire(self, now: float) -> bool:
        """Forget whom nobody watches any more. False when nobody is left."""
        self._rings = {key: found for key, found in self._rings.items() if found[0] > now}
        return bool(self._rings)
