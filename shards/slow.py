"""Tells of calls that took long: one line each, with where the time went.

1. At most ``LINES`` lines in ``WINDOW_SECONDS``; the next line then says how many were left out.
2. A call that is not slow pays one comparison, which ``shards.meter`` makes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from actord.shards.call import TRACED

if TYPE_CHECKING:
    from actord.shards.call import Call

log = logging.getLogger("actord.slow")

LINES = 10
WINDOW_SECONDS = 10.0


class SlowCalls:
    """``limit`` is in seconds, 0 for none. ``limit`` as an attribute is what to compare with."""

    __slots__ = ("_lines", "_silent", "_since", "count", "limit")

    def __init__(self, limit: float) -> None:
        self.limit = limit or float("inf")
        self.count = 0
        self._since = 0.0
        self._lines = 0
        self._silent = 0

    def note(self, call: Call, now: float) -> None:
        """The reply of this call left now, late."""
        self.count += 1
        if now - self._since >= WINDOW_SECONDS:
            self._since = now
            self._lines = 0
        self._lines += 1
        if self._lines > LINES:
            self._silent += 1
            return
        type_, method = call.act.host.type.name, call.method.name
        fields: dict[str, Any] = {
            "type": type_,
            "actor": call.act.name,
            "method": method,
            "status": call.status,
            "queue_ms": round((call.started - call.queued) * 1e3, 1),
            "run_ms": round((call.ended - call.started) * 1e3, 1),
            "commit_ms": round((now - call.ended) * 1e3, 1),
        }
        if call.flags & TRACED:
            fields |= call.trace.named()
        if self._silent:
            fields["untold"] = self._silent
            self._silent = 0
        log.warning("a slow call: %s.%s took %.2f s", type_, method, now - call.queued, extra=fields)
