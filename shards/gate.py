"""The output gate: the one place from which replies leave.

1. A reply leaves only when every write that its turn made or could have seen is durable. The group committer decides
   when; it hands over exactly the calls of a durable commit.
2. What else a turn lets out (``Effect``) leaves with its reply, just before it, in the order in which it was made.
3. Replies are put into their sinks' batches first; one flush for each sink follows.
4. Once closed for good (a failed commit), nothing passes but the truth about what was held.
5. What has left is counted behind the last write, so that no reply waits for it (``shards.meter``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from actord.shards.call import AT_THE_GATE, Call, Sink

if TYPE_CHECKING:
    from actord.shards.meter import Meter


class OutputGate:
    __slots__ = ("_dirty", "_left", "_meter")

    def __init__(self, meter: Meter | None = None) -> None:
        self._dirty: dict[Sink, None] = {}
        self._meter = meter
        self._left: list[Call] = []  # since the last flush

    def release(self, calls: Iterable[Call]) -> None:
        """Put the replies of these calls into their sinks."""
        dirty = self._dirty
        for call in calls:
            if call.flags & AT_THE_GATE:
                call.leave()
            sink = call.sink
            sink.put(call)
            dirty[sink] = None
        if self._meter is not None:
            self._left += calls

    def flush(self) -> None:
        """Send what was released."""
        if self._dirty:
            dirty, self._dirty = self._dirty, {}
            for sink in dirty:
                sink.flush()
        if self._left:
            left, self._left = self._left, []
            self._meter.left(left)  # type: ignore[union-attr]  # it fills for a meter alone
