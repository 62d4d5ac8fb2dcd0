"""The serving end of a link: frames in, calls admitted; replies out, one write for each flush.

1. Every CALL, CALLX, FETCH and DOOR is answered by exactly one REPLY, also when it is refused or was cancelled; or by
   one HEAD and DATA up to a last one (shards/outflow.py).
2. A frame that makes no sense closes the link: nothing after it is taken.
3. When the caller goes away, its calls that have not begun are not made.
4. A worker that leaves takes no frame after ``stop``; the caller has ``stopped`` when it will write none either.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast

from actord.limits import MIB, STREAM_WINDOW_BYTES
from actord.shards.begun import open_map
from actord.shards.call import Call, Sink
from actord.shards.inflow import BodyBroken, Chunks, Inflow
from actord.shards.outflow import Outflow, begin_answer
from actord.shards.socket_events import SocketEvents
from actord.shards.wire import (
    BODY,
    CALL,
    CALLX,
    CANCEL,
    CYCLE,
    DOOR,
    DRAINING,
    FETCH,
    GRANT,
    GRANT_BODY,
    HELLO,
    LEAVING,
    PROBE,
    READY,
    REPLY,
    STOPPED,
    VERSION,
    WS_CLOSED,
    WS_DOOR,
    WS_HELD,
    WS_MESSAGE,
    WS_OPEN,
    BatchReader,
    Frame,
    WireError,
    pack_batch,
)

if TYPE_CHECKING:
    from actord.shards.dispatch import Dispatcher
    from actord.streaming import StreamingResponse

SOCKET_KINDS = (WS_MESSAGE, WS_OPEN, WS_CLOSED, WS_HELD, WS_DOOR)
# So much for sockets goes into one batch.
_BATCH_BYTES = 32 * MIB
# Whoever sends without end waits while so much waits for the front.
_HIGH_BYTES = 8 * MIB

log = logging.getLogger("actord.intake")

_GRANT_MAX = 1 << 40


class Cancellable(Protocol):
    """A task, or what stands for one."""

    def cancel(self) -> object: ...


class Connection(Sink):
    """One caller: a front, or another worker."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.blame = logging.ERROR  # the level of the log for a caller that makes no sense
        self.outside = False
        self._dispatcher = dispatcher
        self._reader = BatchReader()
        self._transport: asyncio.Transport | None = None
        self._out: list[Frame] = []
        self.begun: mmap.mmap | None = None
        self.calls: dict[int, Call] = {}  # by the caller's id; door requests are not among them
        self.doors: dict[int, Cancellable] = {}  # requests to the front door, and streamed answers
        self.streams: dict[int, Outflow] = {}
        self.sockets: SocketEvents | None = None
        self._socket_bytes = 0  # in ``_out``
        self.bodies: dict[int, Chunks] = {}  # of requests, while they come
        self._flush_due = False
        self.caller = ""
        self.hosts = dispatcher.exposed  # by the names of their types, those that its calls reach
        self._parked: list[Frame] = []  # while fronts are awaited
        self.closed = asyncio.Event()
        self.stopped: asyncio.Event | None = None  # this worker leaves; set: and the caller has said its last word
        self._room: asyncio.Event | None = None  # set when ``_HIGH_BYTES`` don't wait any more

    # -- replies

    def put(self, call: Call) -> None:
        self._out.append((REPLY, call.id, call.status, call.body, call.head))
        self.calls.pop(call.id, None)

    def put_reply(self, id_: int, status: int, body: bytes, head: bytes | None) -> None:
        """A reply that is no call's: the front door's."""
        if self.bodies:
            self.close_body(id_)
        self._out.append((REPLY, id_, status, body, head))

    def put_frame(self, frame: Frame) -> None:
        """A part of a stream: it goes out with whatever else comes in this iteration."""
        self._out.append(frame)
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush_soon)

    def put_socket(self, frame: Frame, size: int) -> None:
        """The same for a frame to a socket, with ``size`` bytes of data."""
        self._socket_bytes += size
        if self._socket_bytes > _BATCH_BYTES:
            self.flush()
            self._socket_bytes = size
        self.put_frame(frame)

    def _flush_soon(self) -> None:
        self._flush_due = False
        self._socket_bytes = 0
        self.flush()

    def eof_received(self) -> None:
        """The transport closes itself."""

    def pause_writing(self) -> None:
        self._room = asyncio.Event()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set()

    async def writable(self) -> None:
        """Returns when the caller keeps up, or has gone."""
        while self._room is not None:
            await self._room.wait()

    def put_stream(self, call: Call, response: StreamingResponse) -> None:
        self.calls.pop(call.id, None)
        if call.cancelled:
            self.put_reply(call.id, 503, b"", b"")
        else:
            begin_answer(self, call, response)

    def flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None:
            self._transport.write(pack_batch(out))

    # -- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        # Replies are not held up: a caller has at most LINK_CALLS calls open. Streams of messages wait.
        self._transport.set_write_buffer_limits(high=_HIGH_BYTES)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
            if self.begun is None and frames:
                self._greet(frames.pop(0))
            if self.stopped is not None:
                self._hear(frames)
                return
            if self._parked or self._dispatcher.awaited:
                frames = self._gather(frames)
            self._take(frames)
        except (WireError, ValueError, TypeError, IndexError, AttributeError, OSError) as error:
            log.log(self.blame, "a link is closed: %s: %s", type(error).__name__, error)
            self._forsake()  # now: the caller sends again what has not begun as soon as it sees the end
            if self._transport is not None:
                self._transport.abort()

    def go_on(self) -> None:
        """All fronts have told of their sockets: take what has come meanwhile."""
        if self._parked:
            self.data_received(b"")

    def _gather(self, frames: list[Frame]) -> list[Frame]:
        """A worker that begins hears of all sockets first, whichever front has them: rooms are right from then on."""
        held = [frame for frame in frames if frame[0] == WS_HELD]
        self._parked += [frame for frame in frames if frame[0] != WS_HELD]
        if held:
            self._take(held)
            if not held[-1][1]:  # the last of them
                self._dispatcher.front_is_here(self.caller)
        if self._dispatcher.awaited:
            return []
        frames, self._parked = self._parked, []
        return frames

    def _greet(self, frame: Frame) -> None:
        kind, version, caller, path = frame
        if self._dispatcher.left:
            raise WireError(f"{caller!r} came when the worker was about to leave")
        self.caller = caller
        self.outside = not caller.startswith("worker-")
        if not self.outside:
            self.hosts = self._dispatcher.hosts
        if kind != HELLO or version != VERSION:
            raise WireError(f"{caller!r} speaks version {version} of the wire format; this worker speaks {VERSION}")
        self.begun = open_map(path)
        assert self._transport is not None
        self._transport.write(pack_batch([(READY, VERSION, self._dispatcher.facts)]))
        self._dispatcher.connections.add(self)
        if self._dispatcher.leaving and not self.from_worker:
            self.say_draining()

    def _take(self, frames: list[Frame]) -> None:
        now = monotonic()
        admit = self._dispatcher.call
        for frame in frames:
            kind = frame[0]
            if kind == CALL:
                admit(self, frame, now)
            elif kind == CANCEL:
                self._cancel(frame[1])
            elif kind == FETCH:
                self._dispatcher.fetch(self, frame, now)
            elif kind == BODY:
                self._body(*frame[1:])
            elif kind == GRANT:
                self._grant(frame[1], frame[2])
            elif kind == DOOR:
                self._dispatcher.door(self, frame, now)
            elif kind == CALLX:
                self._dispatcher.callx(self, frame, now)
            elif kind == PROBE:
                self._dispatcher.waits.on_probe(frame)
            elif kind == CYCLE:
                self._dispatcher.waits.on_cycle(frame)
            elif kind in SOCKET_KINDS:
                if self.sockets is None:
                    self.sockets = SocketEvents(self, self._dispatcher)
                self.sockets.take(frame)
            else:
                raise WireError(f"frame kind {kind!r} is unknown")
        if self._out:
            self.flush()

    def _cancel(self, id_: int) -> None:
        call = self.calls.get(id_)
        if call is not None:
            call.cancelled = True
        elif id_ in self.doors:
            self.doors[id_].cancel()
            self.close_body(id_)

    def open_body(self, id_: int) -> Inflow:
        """A request whose body follows: it is granted room when somebody begins to read."""
        chunks = self.bodies[id_] = Chunks()
        return Inflow(
            chunks,
            lambda size: self.put_frame((GRANT_BODY, id_, size)) if id_ in self.bodies else None,
            lambda: None,
            first=STREAM_WINDOW_BYTES,
        )

    def close_body(self, id_: int) -> None:
        """Nothing of it comes any more."""
        chunks = self.bodies.pop(id_, None)
        if chunks is not None and not chunks.ended:
            chunks.end(BodyBroken("the body of the request is not there any more"))

    def _body(self, id_: int, data: bytes, last: bool) -> None:
        if type(data) is not bytes or type(last) is not bool:
            raise WireError("a part of a body that is none")
        chunks = self.bodies.get(id_)
        if chunks is not None and not chunks.ended:  # its request may be over
            chunks.feed(data)
            if last:
                chunks.end()

    def _grant(self, id_: int, size: int) -> None:
        if type(size) is not int or not 0 < size <= _GRANT_MAX:
            raise WireError(f"a grant of {size!r} bytes")
        stream = self.streams.get(id_)
        if stream is not None:  # it may have ended meanwhile
            stream.grant(size)

    def say_draining(self) -> None:
        """New calls of this caller should wait for this worker's successor."""
        if self._transport is not None:
            self._transport.write(pack_batch([(DRAINING,)]))

    def stop(self) -> None:
        """Take nothing more. What comes now has not begun, and its caller sends it to the successor."""
        self.stopped = asyncio.Event()
        self._parked.clear()
        if self._transport is not None:
            self._transport.write(pack_batch([(LEAVING,)]))

    def _hear(self, frames: list[Frame]) -> None:
        assert self.stopped is not None
        if any(frame[0] == STOPPED for frame in frames):
            self.stopped.set()

    def close(self) -> None:
        """End the link once everything has been written."""
        if self._transport is not None:
            self._transport.close()

    @property
    def from_worker(self) -> bool:
        return self.caller.startswith("worker")

    def connection_lost(self, exc: Exception | None) -> None:
        if self.stopped is not None:
            self.stopped.set()
        self.closed.set()
        self._transport = None
        self.resume_writing()
        self._dispatcher.connections.discard(self)
        self._forsake()

    def _forsake(self) -> None:
        for call in self.calls.values():
            call.cancelled = True
        for task in list(self.doors.values()):
            task.cancel()
        if self.sockets is not None:
            self.sockets.lost()
        for id_ in list(self.bodies):
            self.close_body(id_)
