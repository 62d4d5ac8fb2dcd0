"""A streamed answer on its way out of a worker: HEAD, then DATA as fast as the caller takes it.

1. One HEAD, any number of DATA, and exactly one last DATA: END, or BROKEN for whatever kept the body from its end.
2. Never more than a window is on the way, so that a client who does not read costs a window here and one in the front.
3. The id belongs to the answer until the last DATA; nothing is sent with it afterwards.
4. It runs outside of every turn. An actor's answer begins when its turn's commit has passed the output gate, since it
   is the gate that begins it.
5. A crash: the front sees the link break and cuts the connections of all answers that had begun.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any

from actord.limits import STREAM_FRAME_BYTES, STREAM_PIECE_BYTES, STREAM_WINDOW_BYTES
from actord.shards.call import Call, Sink
from actord.shards.problem import log_fault
from actord.shards.wire import BROKEN, DATA, END, HEAD, MORE
from actord.streaming import StreamingResponse, chunk_of

if TYPE_CHECKING:
    from actord.shards.intake import Connection

log = logging.getLogger("actord.stream")

# Server-sent events have no end of their own.
EVENTS = b"text/event-stream"
# While the worker drains: how long a stream may stand still before it is ended.
_IDLE_SECONDS = 1.0

# Those who write at this moment: a task that nobody holds may be collected in the middle of its clean-up.
_pumps: set[asyncio.Task[Any]] = set()


class LengthError(ValueError):
    """The body is longer or shorter than the length that was announced."""


class Outflow:
    """The sending end of one stream. Whoever writes is one task; the window is raised by ``grant``."""

    __slots__ = ("_endless", "_id", "_left", "_room", "_since", "_sink", "_stop", "_window", "over")

    def __init__(self, sink: Connection, id_: int, stop: Callable[[], object]) -> None:
        """``stop`` ends whoever writes, when the worker drains."""
        self._sink = sink
        self._id = id_
        self._stop = stop
        self._window = STREAM_WINDOW_BYTES
        self._room: asyncio.Future[None] | None = None
        self._left: int | None = None
        self._endless = False
        self._since = monotonic()
        self.over = False

    def begin(self, status: int, head: bytes, length: int | None) -> None:
        """Send the head; ``length`` is what it says of the body's, if it does."""
        self._left = length
        self._sink.streams[self._id] = self
        self._endless = EVENTS in head.lower()
        self._sink.put_frame((HEAD, self._id, status, head))

    async def send(self, data: bytes) -> None:
        """Send a piece of the body, as soon as the caller has room for it. ``LengthError`` for one too many."""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise LengthError("the body is longer than its Content-Length")
        for start in range(0, len(data), STREAM_PIECE_BYTES):
            while self._window <= 0 and not self.over:
                self._room = asyncio.get_running_loop().create_future()
                await self._room
            piece = data[start : start + STREAM_PIECE_BYTES]
            self._window -= len(piece) + STREAM_FRAME_BYTES
            self._since = monotonic()
            if not self.over:
                self._sink.put_frame((DATA, self._id, piece, MORE))

    def grant(self, size: int) -> None:
        """The caller has taken so much."""
        self._window += size
        self._since = monotonic()
        if self._room is not None and not self._room.done() and self._window > 0:
            self._room.set_result(None)

    def end(self) -> None:
        """The body is complete. ``LengthError`` when it is not."""
        if self._left:
            raise LengthError(f"the body is {self._left} bytes shorter than its Content-Length")
        self._finish(END)

    def break_off(self) -> None:
        """The body will never be complete. Harmless when the stream is over."""
        self._finish(BROKEN)

    def _finish(self, state: int, data: bytes = b"") -> None:
        if not self.over:
            self.over = True
            self._sink.streams.pop(self._id, None)
            self._sink.doors.pop(self._id, None)
            self._sink.close_body(self._id)
            self._sink.put_frame((DATA, self._id, data, state))
            if self._room is not None and not self._room.done():
                self._room.set_result(None)

    @property
    def endless(self) -> bool:
        return self._endless

    def end_if_idle(self, now: float, since: float) -> None:
        """The worker drains since then: do not wait for a stream in which nothing moves, nor for one of events."""
        if self._endless or now - max(self._since, since) > _IDLE_SECONDS:
            self._stop()

    async def pump(self, response: StreamingResponse, label: str) -> None:
        """Send the whole body. Returns when the stream is over; cancelled when the caller gave up."""
        iterator = None
        task: asyncio.Task[Any] | None = asyncio.current_task()
        assert task is not None
        _pumps.add(task)
        try:
            iterator = response.body_iterator.__aiter__()
            async for item in iterator:
                await self.send(chunk_of(item))
            self.end()
        except asyncio.CancelledError:
            self.break_off()
            raise
        except BaseException as error:
            log_fault(log, f"the streamed answer of {label} broke off", error)
        finally:
            self.break_off()
            await _close(iterator)
            _pumps.discard(task)


async def _close(iterator: Any) -> None:
    close = getattr(iterator, "aclose", None)
    if close is not None:
        with suppress(BaseException):
            await close()


def begin_answer(sink: Connection, call: Call, response: StreamingResponse) -> None:
    """The gate lets the streamed answer of an actor's ``fetch`` go: it begins, in a task outside of all turns."""
    id_ = call.id
    act = call.act
    assert call.head is not None
    task: asyncio.Task[None] | None = None
    outflow = Outflow(sink, id_, lambda: task is not None and task.cancel())
    outflow.begin(call.status, call.head, response.length)
    label = f"{act.host.type.name}.fetch of {act.name!r}"
    task = asyncio.get_running_loop().create_task(outflow.pump(response, label), context=Context())
    sink.doors[id_] = task
    task.add_done_callback(lambda _: outflow.break_off())  # it may have been cancelled before its first step


class StreamedReply(Sink):
    """Stands before a call's sink when its reply is a stream, so that other replies need not be looked at."""

    __slots__ = ("response", "sink")

    def __init__(self, sink: Sink, response: StreamingResponse) -> None:
        self.sink = sink
        self.response = response

    def put(self, call: Call) -> None:
        if call.body is STREAMED:
            self.sink.put_stream(call, self.response)
        else:  # the commit failed
            self.sink.put(call)

    def flush(self) -> None:
        self.sink.flush()


# The body of such a call, until it failed.
STREAMED = bytes(bytearray(b"streamed"))
