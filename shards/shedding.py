"""What a front refuses itself because a worker has more to do than it can, or a name more calls than may wait for it.

1. What is refused here is refused before anything of it has left: ``applied: no`` is certain.
2. A share of all calls, by lot (shards/admission.py says how much). It ends ``SHED_SECONDS`` after the worker asked for
   it last, or with the worker.
3. The calls and fetches of a name whose mailbox is full (shards/fullness.py says which). It ends when the worker says
   that there is room, ``SHED_SECONDS`` after the worker said last that it is full, or with the worker.
"""

from __future__ import annotations

from collections.abc import Callable
from random import random
from time import monotonic
from typing import Any

from actord.errors import ActorOverloaded
from actord.shards.wire import CALL, CALLX, EVENTS, FETCH

SHED_SECONDS = 0.25
# Always the same ones: whoever has to answer them often needs to build its answers once.
SHED_CALL = ActorOverloaded("The worker has too many calls waiting.", retry_after=1)
FULL_CALL = ActorOverloaded("Too many calls wait for this actor already.", retry_after=1)


class Shedding:
    """``share``: of the calls, from 0 to 1, those to be refused. ``on_ask`` is told that there are any.

    ``on``: some calls may be refused, so that ``chosen`` is to be asked, which finds out when there are none any more.
    """

    __slots__ = ("_full", "_until", "on", "on_ask", "share")

    def __init__(self) -> None:
        self.on = False
        self.on_ask: Callable[[], None] = lambda: None
        self.share = self._until = 0.0
        self._full: dict[tuple[str, str], float] = {}  # names, and until when they count as full

    def ask(self, share: float) -> None:
        """The worker asks for it, for a while."""
        self.share = share
        self._until = monotonic() + SHED_SECONDS
        self.on = True
        if share:
            self.on_ask()

    @property
    def asked(self) -> bool:
        """Whether the worker's wish stands."""
        return self.share > 0 and monotonic() <= self._until

    def fill(self, type_: str, name: str, full: bool) -> None:
        """The worker says that a name's mailbox is full, or that it has room again."""
        if full:
            self._full[type_, name] = monotonic() + SHED_SECONDS
        else:
            self._full.pop((type_, name), None)
        self.on = True

    def end(self) -> None:
        """The worker has gone, and what it said goes with it."""
        self.share = 0.0
        self._full.clear()

    def chosen(self, kind: int, fields: tuple[Any, ...]) -> ActorOverloaded | None:
        """``FULL_CALL`` for a call of a full name, and ``SHED_CALL`` when the lot falls on it: it is to be refused.

        ``fields`` are those of the frame behind its id; of a CALL and a CALLX the first two are enough.
        """
        if self._full and (kind in (CALL, CALLX) or (kind == FETCH and not fields[-3] & EVENTS)):
            until = self._full.get(fields[:2])
            if until is not None:
                if monotonic() <= until:
                    return FULL_CALL
                del self._full[fields[:2]]
        if not self.asked:
            self.share = 0.0
        elif random() < self.share:
            return SHED_CALL
        if not self.share and not self._full:
            self.on = False
        return None
