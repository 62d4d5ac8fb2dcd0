"""The last calls of actors, each split into waited, ran and committed, for an operator who asks (`actord inspect`).

1. It costs a call nothing: ``Recent`` is given the calls that ``shards.hot`` samples anyway, which are all of them as
   long as they are few. Only for a call that is sampled it does something, about 0.6 us.
2. It is bounded: ``CALLS`` of each of the ``ACTORS`` that were seen last.
3. Every call of an actor is kept while somebody watches it, and ``WATCH_SECONDS`` longer; meanwhile each call of its
   worker costs about 0.1 us.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actord.shards.call import Call

CALLS = 10
ACTORS = 1_024
WATCHED_CALLS = 1_000
WATCH_SECONDS = 10.0

Key = tuple[str, str]
# Method, status, and when it was queued, when it began, when it ended, when its reply left: of the monotonic clock.
Entry = tuple[str, int, float, float, float, float]


def _entry(call: Call, left: float) -> Entry:
    return call.method.name, call.status, call.queued, call.started, call.ended, left


class Recent:
    def __init__(self) -> None:
        self._rings: dict[Key, deque[Entry]] = {}  # those that were seen last at the end

    def add(self, key: Key, call: Call, left: float) -> None:
        ring = self._rings.pop(key, None)
        if ring is None:
            ring = deque(maxlen=CALLS)
            if len(self._rings) >= ACTORS:
                del self._rings[next(iter(self._rings))]
        self._rings[key] = ring
        ring.append(_entry(call, left))

    def of(self, key: Key) -> list[Entry]:
        """The oldest first."""
        return list(self._rings.get(key, ()))


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
