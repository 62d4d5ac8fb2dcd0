"""The calling end of a link to one worker: used by the front, and by workers for calls to each other.

Promises:

1. Every call that was submitted is finished exactly once: ``on_reply`` or ``on_lost``.
2. Calls leave in the order in which they were submitted, in one write as soon as an iteration of the loop brings no
   more of them, or there are ``BATCH_FRAMES``.
3. When the worker dies, the calls whose turn had not begun are sent again to its successor, in their order; those
   that had begun are lost, outcome unknown. Which is which stands in the *begun map*: a small shared file in which
   the worker sets the byte of a call at the moment its turn begins, so that it outlives a kill -9.
   A call with an idempotency key is sent again also when it had begun, or when the link was garbled: the worker looks
   up its reply first. After ``SENT_AGAIN`` times it is lost like the others, so that a call which kills its worker does
   not go on doing so. It says that it comes "again", and its byte stays set: that it was not applied is not certain.
4. An answer that is a stream comes as ``on_head`` and ``on_data``, whose last has a state other than MORE; a stream has
   no deadline. ``on_lost`` in the middle of it: the worker has gone.
5. A call that is not begun by its deadline is lost with ``begun=False``: certain, because a worker marks a call
   before it looks at the clock, and never begins one that is late.
6. A worker that makes room for its successor says so: what is submitted from then on waits for that one. Nothing is
   written on a connection that is about to be closed, so that every reply which the worker has sent is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol, cast

from actord.errors import ActorOverloaded
from actord.limits import LINK_BYTES, LINK_CALLS
from actord.shards.begun import make_map
from actord.shards.shedding import Shedding
from actord.shards.wire import (
    BODY,
    CALLX,
    CANCEL,
    DATA,
    DRAINING,
    FULL,
    GRANT,
    GRANT_BODY,
    HEAD,
    HELLO,
    LEAVING,
    MORE,
    READY,
    REPLY,
    SHED,
    STOPPED,
    VERSION,
    BatchReader,
    Frame,
    WireError,
    pack_batch,
)

# How long after its deadline a begun call is waited for: the worker answers time-outs itself.
BEGUN_GRACE_MS = 5_000
BATCH_FRAMES = 32
RECONNECT_SECONDS = 0.02
SENT_AGAIN = 5
# How long a successor that was announced counts as there.
MOVING_SECONDS = 60.0


class Waiter:
    """The party that waits for one call. Subclassed by the front's exchanges and by stubs; ``frame`` is the link's."""

    __slots__ = ("frame",)

    frame: Frame

    def on_reply(self, status: int, body: bytes, head: bytes | None) -> None:
        raise NotImplementedError

    def on_lost(self, begun: bool) -> None:
        """The call will never be answered: it was not begun, for certain, or it had begun and nobody knows."""
        raise NotImplementedError

    def on_head(self, status: int, head: bytes) -> None:
        """The answer is a stream that begins now. ``grant`` tells the link how much of it was taken."""
        raise WireError("a stream answers what has no stream")

    def on_room(self, size: int) -> None:
        """The worker takes so many bytes more of the request's body (see ``send_body``)."""

    def on_data(self, data: bytes, state: int) -> None:
        """A piece of the stream; ``state`` is MORE, END, BROKEN or MOVED."""


class Relay(Protocol):
    """What else a link carries beside calls: the front's sockets."""

    def on_frame(self, frame: Frame) -> None:
        """A frame that is none of the link's own. Raises ``WireError`` when it makes no sense."""
        ...

    def on_up(self) -> None:
        """The worker has greeted: ``Link.send`` works."""
        ...

    def go_on(self) -> None:
        """The link is ready again, on the same connection."""
        ...

    def on_down(self, garbled: bool) -> None:
        """The worker has gone, or (``garbled``) speaks nonsense while it may still run."""
        ...


class Link:
    """One worker, seen from a caller's process. Reconnects for as long as ``close`` was not called."""

    def __init__(
        self,
        path: str,
        *,
        caller: str,
        begun_path: str,
        on_ready: Callable[[Link], None] | None = None,
        on_down: Callable[[Link], None] | None = None,
    ) -> None:
        # for life
        self.path = path
        self._caller = caller
        self._begun_path = begun_path
        # Never the file of a caller that died: the worker may still hold calls of its that mark and unmark there.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(begun_path)
        self._begun = make_map(begun_path)
        self._on_ready = on_ready
        self._on_down = on_down
        self._loop = asyncio.get_running_loop()
        self._free = list(range(LINK_CALLS))
        self._waiting: dict[int, Waiter] = {}
        self._later: list[Frame] = []  # without a reply, kept until the worker has greeted
        self._streams: dict[int, Waiter] = {}  # answers that have begun and not ended
        self._abandoned: set[int] = set()  # given up by the caller; the id comes back with the worker's reply
        self._bytes = 0
        self.shed = Shedding()
        self._closed = False
        self._greeted = False  # by this worker or one before it
        self.relay: Relay | None = None
        self.resent = 0  # calls sent a second time, to a successor
        self._reconnect: asyncio.Task[None] | None = None
        self._kept: list[Frame] | None = None  # what was submitted while the owner held everything back
        self._moving = -MOVING_SECONDS  # since when a successor is awaited
        # for a connection
        self.ready = False  # calls may be sent
        self._up = False  # the worker has greeted on this connection
        self._leaving = False  # the worker has said so
        self._mute = False  # the worker is about to close it: nothing is written any more
        self.facts: dict[str, Any] = {}
        self._transport: asyncio.Transport | None = None
        self._reader = BatchReader()
        self._out: list[Frame] = []
        self._seen = 0  # how many of them an iteration ago
        self._garbled = False

    def connect(self) -> None:
        """Begin to connect, and go on until it works."""
        self._reconnect = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        if self._garbled:
            await asyncio.sleep(RECONNECT_SECONDS)
        while not self._closed:
            with contextlib.suppress(OSError):
                await self._loop.create_unix_connection(lambda: cast(asyncio.Protocol, self), self.path)
                return
            await asyncio.sleep(RECONNECT_SECONDS)

    def close(self) -> None:
        """No more calls. What is waiting is lost, with the truth about each."""
        self._closed = True
        if self._reconnect is not None:
            self._reconnect.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._lose_all()
        with contextlib.suppress(OSError):
            os.unlink(self._begun_path)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._streams)

    # -- calls

    def submit(self, waiter: Waiter, kind: int, *fields: Any) -> int:
        """Send a frame ``(kind, id, *fields)`` whose last field is its body; returns the id for ``cancel``.

        While the worker is away the call waits for it. Raises ``ActorOverloaded`` when the link is full, and when the
        worker asks for fewer calls.
        """
        if self.shed.on and (refusal := self.shed.chosen(kind, fields)) is not None:
            raise refusal.with_traceback(None)
        return self.enter(waiter, kind, *fields)

    def enter(self, waiter: Waiter, kind: int, *fields: Any) -> int:
        """The same for a call that ``shed`` was asked about."""
        free = self._free
        if not free or self._bytes > LINK_BYTES:
            raise ActorOverloaded("The worker has too many calls waiting.", retry_after=1)
        id_ = free.pop()
        waiter.frame = frame = (kind, id_, *fields)
        self._bytes += len(fields[-1])
        self._waiting[id_] = waiter
        if self.ready:
            out = self._out
            if not out:
                self._loop.call_soon(self._flush_soon)
            out.append(frame)
        elif self._kept is not None:
            self._kept.append(frame)
        return id_

    def hold(self, held: bool) -> None:
        """Let nothing begin until it is called again: what is submitted is kept. Answers come all the same."""
        if held:
            self.ready = False
            if self._kept is None:
                self._kept = []
            return
        kept, self._kept = self._kept or [], None
        if not self._up or self._leaving or self.ready:
            return  # it goes with all others once the successor has greeted, or it has
        self.ready = True
        waiting = self._waiting
        if self.relay is not None:
            self.relay.go_on()
        self._out += [frame for frame in kept if frame[1] in waiting and waiting[frame[1]].frame is frame]
        self._flush()

    def say(self, frame: Frame) -> None:
        """Send a frame that has no reply, after the calls before it. Lost when the worker dies with it."""
        if self._up and not self._mute:
            self.send(frame)
        elif len(self._later) < LINK_CALLS:
            self._later.append(frame)

    def send(self, frame: Frame) -> None:
        """Send a frame. Only while the link is ready."""
        if not self._out:
            self._loop.call_soon(self._flush_soon)
        self._out.append(frame)

    @property
    def moving(self) -> bool:
        """The worker has said that a successor takes its place, which has not greeted yet; or the owner holds calls."""
        return self._kept is not None or monotonic() - self._moving < MOVING_SECONDS

    @property
    def begun_map(self) -> mmap.mmap:
        return self._begun

    def cancel(self, id_: int) -> None:
        """The caller has gone: a call that has not begun is not made. The waiter is not told anything more."""
        waiter = self._waiting.pop(id_, None)
        if waiter is not None:
            self._bytes -= len(waiter.frame[-1])
        elif self._streams.pop(id_, None) is None:
            return
        if self._kept and waiter is not None and any(frame is waiter.frame for frame in self._kept):
            self._release(id_)
        elif self._up:
            self._abandoned.add(id_)
            if self._mute:
                return
            self.send((CANCEL, id_))
        else:
            self._release(id_)

    def grant(self, id_: int, size: int) -> None:
        """So many bytes of a stream were taken (each piece counts as its own and STREAM_FRAME_BYTES)."""
        if id_ in self._streams and self._up and not self._mute:
            self.send((GRANT, id_, size))

    def send_body(self, id_: int, data: bytes, last: bool) -> None:
        """A part of a request's body, within what ``on_room`` has granted."""
        if self._up and not self._mute and (id_ in self._waiting or id_ in self._streams):
            self.send((BODY, id_, data, last))

    def expire(self) -> None:
        """Called about once a second by the owner: finish the calls that nobody should wait for any longer."""
        now = int(monotonic() * 1000)
        late = [
            (id_, waiter)
            for id_, waiter in self._waiting.items()
            # the deadline stands before the body, by the order of the fields
            if now > waiter.frame[-2] + (BEGUN_GRACE_MS if self._begun[id_] else 50)
        ]
        for id_, waiter in late:
            begun = bool(self._begun[id_])
            self.cancel(id_)
            waiter.on_lost(begun)

    def _release(self, id_: int) -> None:
        self._begun[id_] = 0
        self._free.append(id_)

    def _flush_soon(self) -> None:
        if self._seen < len(self._out) < BATCH_FRAMES:  # an iteration costs less than one more write
            self._seen = len(self._out)
            self._loop.call_soon(self._flush_soon)
        else:
            self._flush()

    def _flush(self) -> None:
        out, self._seen = self._out, 0
        if out and self._transport is not None:
            self._out = []
            self._transport.write(pack_batch(out))

    # -- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=1 << 30)  # bounded by LINK_BYTES instead
        self._reader = BatchReader()
        self._garbled = self._leaving = self._mute = False
        transport.write(pack_batch([(HELLO, VERSION, self._caller, self._begun_path)]))

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
        except WireError:
            self._garble()
            return
        waiting = self._waiting
        begun = self._begun
        free = self._free
        for frame in frames:
            if frame[0] == REPLY:
                try:
                    _, id_, status, body, head = frame
                    waiter = waiting.pop(id_, None)
                except (ValueError, TypeError):
                    self._garble()
                    return
                if waiter is None:
                    if id_ not in self._abandoned:
                        self._garble()
                        return
                    self._abandoned.discard(id_)
                    self._release(id_)
                    continue
                begun[id_] = 0
                free.append(id_)
                self._bytes -= len(waiter.frame[-1])
                waiter.on_reply(status, body, head)
            elif frame[0] == HEAD or frame[0] == DATA:
                try:
                    self._stream(*frame)
                except (WireError, TypeError):
                    self._garble()
                    return
            else:
                self._control(frame)

    def eof_received(self) -> None:
        """The transport closes itself."""

    def pause_writing(self) -> None:
        """Bounded by LINK_BYTES instead."""

    def resume_writing(self) -> None:
        """Likewise."""

    def _stream(self, kind: int, id_: int, first: Any, second: Any) -> None:
        """HEAD with status and head, or DATA with bytes and state."""
        if kind == HEAD:
            waiter = self._waiting.pop(id_, None)
            if waiter is not None:
                self._bytes -= len(waiter.frame[-1])
                waiter.frame = ()  # its body is not needed any more
                self._streams[id_] = waiter
                waiter.on_head(first, second)
                return
        else:
            waiter = self._streams.get(id_)
            if waiter is not None:
                if second != MORE:
                    del self._streams[id_]
                    self._release(id_)
                waiter.on_data(first, second)
                return
        if id_ not in self._abandoned:
            raise WireError("a part of a stream that nobody asked for")
        if kind == DATA and second != MORE:
            self._abandoned.discard(id_)
            self._release(id_)

    def _control(self, frame: Frame) -> None:
        if frame[0] == READY and len(frame) == 3 and frame[1] == VERSION:
            self.facts = frame[2]
            self.ready = self._up = True
            self._moving = -MOVING_SECONDS
            self._kept = None
            self._out = []
            if self.relay is not None:
                self.relay.on_up()
                self._flush()
            self.resent += len(self._waiting) if self._greeted else 0
            self._greeted = True
            self._out = [waiter.frame for waiter in self._waiting.values()] + self._later
            self._later = []
            self._flush()
            if self._on_ready is not None:
                self._on_ready(self)
        elif frame[0] == GRANT_BODY and len(frame) == 3:
            waiter = self._waiting.get(frame[1]) or self._streams.get(frame[1])
            if waiter is not None:
                waiter.on_room(frame[2])
        elif frame[0] == SHED and len(frame) == 2 and type(frame[1]) is float:
            self.shed.ask(frame[1])
        elif frame[0] == FULL and len(frame) == 4 and type(frame[1]) is type(frame[2]) is str:
            self.shed.fill(*frame[1:])
        elif frame[0] == DRAINING:
            self.ready = False  # what comes now waits for the successor
            self._leaving = True
            self._moving = monotonic()
        elif frame[0] == LEAVING:
            self.ready = False
            self._leaving = True
            self._moving = monotonic()
            self._out.append((STOPPED,))
            self._flush()
            self._mute = True
        elif self.relay is not None and self._up:
            try:
                self.relay.on_frame(frame)
            except (WireError, ValueError, TypeError, IndexError):
                self._garble()
        else:
            self._garble()

    def _garble(self) -> None:
        """The worker speaks nonsense while it may still run: nothing that was sent to it can be called unbegun."""
        self._garbled = True
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        was_up = self._up
        self.shed.end()
        self.ready = self._up = False
        self._transport = None
        self._out = []
        for id_ in self._abandoned:
            self._release(id_)
        self._abandoned.clear()
        lost = list(self._streams.values())
        for id_ in self._streams:
            self._release(id_)
        self._streams.clear()
        for id_, waiter in list(self._waiting.items()):
            if was_up and (self._garbled or self._begun[id_]):
                if _send_again(waiter):
                    self._begun[id_] = 1  # and its frame goes with the others once the successor has greeted
                    continue
                del self._waiting[id_]
                self._bytes -= len(waiter.frame[-1])
                self._release(id_)
                lost.append(waiter)
        if not self._closed:
            self.connect()
        for waiter in lost:
            waiter.on_lost(True)
        if was_up and self.relay is not None:
            self.relay.on_down(self._garbled)
        if was_up and self._on_down is not None:
            self._on_down(self)

    def _lose_all(self) -> None:
        waiting, self._waiting = self._waiting | self._streams, {}
        self._streams = {}
        for id_, waiter in waiting.items():
            begun = bool(self._begun[id_])
            self._release(id_)
            waiter.on_lost(begun)
        self._bytes = 0


def _send_again(waiter: Waiter) -> bool:
    """Whether a call that may have been applied takes effect once even so. Then its frame says that it comes again."""
    frame = waiter.frame
    if frame[0] != CALLX or "key" not in frame[5]:
        return False
    times = frame[5].get("again", 0) + 1
    if times > SENT_AGAIN:
        return False
    waiter.frame = (*frame[:5], frame[5] | {"again": times}, *frame[6:])
    return True
