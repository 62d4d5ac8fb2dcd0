"""The output gate: the one place from which replies leave.

1. A reply leaves only when every write that its turn made or could have seen is durable. The group committer decides
   when; it hands over exactly the calls of a durable commit.
2. What else a turn lets out (``Effect``) leaves with its reply, just before it, in the order in which it was made.
3. Replies are put into their sinks' batches first; one flush for each sink follows.
4. Once closed for good (a failed commit), nothing passes but the truth about what was held.
"""

from __future__ import annotations

from collections.abc import Iterable

from actord.shards.call import AT_THE_GATE, Call, Sink


class OutputGate:
    __slots__ = ("_dirty",)

    def __init__(self) -> None:
        self._dirty: dict[Sink, None] = {}

    def release(self, calls: Iterable[Call]) -> None:
        """Put the replies of these calls into their sinks."""
        dirty = self._dirty
        for call in calls:
            if call.flags & AT_THE_GATE:
                call.leave()
            sink = call.sink
            sink.put(call)
            dirty[sink] = None

    def flush(self) -> None:
        """Send what was released."""
        if self._dirty:
            dirty, self._dirty = self._dirty, {}
            for sink in dirty:
                sink.flush()
