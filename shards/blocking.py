"""Steps of turns that hold the loop: while one does, no other actor of the worker runs. Told once for each method."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actord.shards.call import Call

log = logging.getLogger("actord.turns")

# A step that takes longer is worth a warning. Turns read the clock anyway: looking costs one comparison.
BLOCKING_SECONDS = 0.1


class BlockingSteps:
    """What was told already."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def note(self, call: Call, seconds: float) -> None:
        """A step of this call took so long."""
        type_, method = call.act.host.type.name, call.method.name
        if (type_, method) in self._told:
            return
        self._told.add((type_, method))
        log.warning(
            "%s.%s of %r held its worker for %.2f s without an await, and nothing else ran meanwhile: move what blocks "
            "into a thread, as in `await asyncio.to_thread(...)`. Told once for each method.",
            type_,
            method,
            call.act.name,
            seconds,
        )
