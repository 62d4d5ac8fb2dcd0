"""A stream that arrives over a link, as an async iterator of bytes.

1. Chunks come in the order in which they were sent, and no more than a window waits here: the sender is granted more as
   chunks are taken.
2. It ends with ``StopAsyncIteration`` only if the sender ended it; else with the error that says why.
3. Given up by ``aclose``, or forgotten: the sender is told, and what still comes is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from actord.limits import STREAM_FRAME_BYTES, STREAM_WINDOW_BYTES

# So much is taken before the sender is told.
GRANT_STEP_BYTES = STREAM_WINDOW_BYTES // 4


class BodyBroken(OSError):
    """A request's body that will never be complete: its client or its front has gone, or it was answered."""


class Chunks:
    """What has come, between the link and the iterator; the link holds this one only."""

    __slots__ = ("chunks", "ended", "error", "waiter")

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.ended = False
        self.error: BaseException | None = None
        self.waiter: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        if data:
            self.chunks.append(data)
            self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """No more: complete, or broken off for a reason."""
        self.ended = True
        self.error = error
        self._wake()

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Inflow:
    """The iterator. For one reader."""

    __slots__ = ("_chunks", "_first", "_give_up", "_grant", "_taken")

    def __init__(
        self, chunks: Chunks, grant: Callable[[int], Any], give_up: Callable[[], Any], *, first: int = 0
    ) -> None:
        """``first``: what is granted when the reader begins, where nothing was before."""
        self._first = first
        self._chunks = chunks
        self._grant = grant
        self._give_up = give_up
        self._taken = 0

    def __aiter__(self) -> Inflow:
        return self

    async def __anext__(self) -> bytes:
        inflow = self._chunks
        if self._first:
            self._grant(self._first)
            self._first = 0
        while not inflow.chunks:
            if inflow.error is not None:
                raise inflow.error
            if inflow.ended:
                raise StopAsyncIteration
            inflow.waiter = asyncio.get_running_loop().create_future()
            await inflow.waiter
        data = inflow.chunks.popleft()
        self._taken += len(data) + STREAM_FRAME_BYTES
        if self._taken >= GRANT_STEP_BYTES and not inflow.ended:
            self._grant(self._taken)
            self._taken = 0
        return data

    async def aclose(self) -> None:
        self._end()

    def __del__(self) -> None:
        self._end()

    def _end(self) -> None:
        inflow = self._chunks
        if not inflow.ended:
            inflow.end()
            self._give_up()
        inflow.chunks.clear()
