"""What a front refuses itself because a worker has more to do than it can (shards/admission.py says how much).

1. A share of the calls is refused, by lot, before anything of them has left: ``applied: no`` is certain.
2. It ends ``SHED_SECONDS`` after the worker asked for it last, or with the worker.
"""

from __future__ import annotations

from random import random
from time import monotonic

from actord.errors import ActorOverloaded

SHED_SECONDS = 0.25
# Always the same one: whoever has to answer it often needs to build its answer once.
SHED_CALL = ActorOverloaded("The worker has too many calls waiting.", retry_after=1)


class Shedding:
    """``share``: of the calls, from 0 to 1, those to be refused. 0: no need to ask."""

    __slots__ = ("_until", "share")

    def __init__(self) -> None:
        self.share = self._until = 0.0

    def ask(self, share: float) -> None:
        """The worker asks for it, for a while."""
        self.share = share
        self._until = monotonic() + SHED_SECONDS

    def choose(self) -> None:
        """Raises ``SHED_CALL`` when the lot falls on a call."""
        if self.share and monotonic() > self._until:
            self.share = 0.0
        if random() < self.share:
            raise SHED_CALL.with_traceback(None)
