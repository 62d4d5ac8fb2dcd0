"""One client's WebSocket on the front, from its handshake to its end, whoever is behind it.

Promises:

1. A message leaves for the actor whole, checked (UTF-8, size after decompression) and in order. Pings are answered
   here.
2. The connection ends when the client, the actor, a limit or the network ends it, never because a worker or an
   instance went away. Who is behind it hears of the end exactly once as a ``closed`` event with the code:
   the client's own (1005: none), the actor's, that of the limit, or 1006 when the connection broke.
3. What may wait is bounded on both sides. Towards the actor: reading pauses when half of it waits, and goes on after
   ``queue_wait``; more than all of it closes with 1013. Towards the client: more than ``buffer_bytes`` that it has not
   read close with 1013, and no client delays another.
4. A client that has vanished without a word is found by a ping and cut off.

After its last frame our side is shut and whatever still arrives is thrown away for a moment: closing with bytes unread
would make the kernel throw away what the client has not fetched yet.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from actord.limits import SOCKET_QUEUE_TOTAL_BYTES
from actord.server.opening import ABNORMAL, CLOSING, ENDED, OPEN, Opening
from actord.server.outgoing import Outgoing
from actord.shards.wire import WS_CLOSED, WS_MESSAGE
from websockets.frames import Frame as DataFrame
from websockets.frames import Opcode
from websockets.protocol import State

if TYPE_CHECKING:
    from actord.server.access import Access
    from actord.server.handshake import Handshake
    from actord.server.hub import SocketHub
    from actord.server.upgrade import UpgradeExchange

GOING_AWAY, INVALID, POLICY, TRY_LATER = 1001, 1007, 1008, 1013
TOO_SLOW = "the client reads too slowly"
TOO_MUCH = "too many messages wait for the actor"

# So much is looked at before the queue's limits are.
SLICE = 4_096
LINGER_SECONDS = 2.0
WRITE_HIGH_BYTES = 64 * 1024

TEXT, BINARY, CONT, CLOSE = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.CLOSE


class WebSocket(Opening):
    """See the contract above. Created by ``SocketHub.open``; on the transport from ``attach`` on."""

    __slots__ = (
        "_backlog",
        "_code",
        "_heard",
        "_parts",
        "_paused",
        "_pinged",
        "_protocol",
        "_queued",
        "_reason",
        "_rest",
        "_since",
        "_slow",
        "_spent",
        "_text",
        "_unsent",
    )

    def __init__(
        self, hub: SocketHub, exchange: UpgradeExchange, handshake: Handshake, uid: str, peer: str, deadline: int
    ) -> None:
        super().__init__(hub, exchange, handshake, uid, peer, deadline)
        self._protocol = handshake.protocol
        # towards the actor
        self._queued = 0  # bytes of messages in it
        self._parts: bytearray | None = None  # of a fragmented message
        self._text = False
        self._paused = 0.0  # since when nothing is read, because much waits; 0: it is read
        self._spent = False  # the pause did not help
        self._backlog: list[DataFrame] = []  # read, but not queued
        self._rest = b""  # received, but not read
        # towards the client
        self._slow = False  # the client does not read as fast as we write
        self._unsent = 0
        # the end
        self._code = 0  # why it ends; 0: not known yet
        self._reason = ""
        # for the sweep
        self._heard = False
        self._pinged = False
        self._since = monotonic()

    # -- the transport's side

    def attach(self, transport: asyncio.Transport, rest: bytes) -> None:
        """The answer to the handshake was written: from here on this is the connection's protocol."""
        self._transport = transport
        self._exchange = None
        self._since = monotonic()
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        early, self._early = self._early, None
        for data in early or ():
            self._write(data)
        if self._state == CLOSING:
            self._say_close()
        if rest:
            self.data_received(rest)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._hub.received += len(data)
        if self._state == ENDED:
            return
        if self._paused:
            self._rest += data
        elif len(data) <= SLICE:
            self._take(data)
        else:
            self._rest = data
            self._read_on()

    def _read_on(self) -> None:
        """Take what has been received, as far as the queue's limits allow."""
        backlog, self._backlog = self._backlog, []
        self._frames(backlog)
        self._look()
        while self._rest and not self._paused and self._state != ENDED:
            data, self._rest = self._rest[:SLICE], self._rest[SLICE:]
            self._take(data)

    def _take(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        self._frames(cast(list[DataFrame], protocol.events_received()))
        if protocol.writes:
            self._flush()
        if protocol.state is not State.OPEN:
            self._look()

    def _look(self) -> None:
        """Whether the client's last word has come, and all before it was taken."""
        if self._protocol.state is not State.OPEN and not self._backlog and self._state != ENDED:
            self._on_protocol_end()

    def _frames(self, frames: list[DataFrame]) -> None:
        for index, frame in enumerate(frames):
            if self._state != OPEN:
                return
            if self._paused:
                self._backlog += frames[index:]
                return
            opcode = frame.opcode
            if opcode is TEXT or opcode is BINARY:
                if frame.fin:
                    self._message(frame.data, opcode is TEXT)
                else:
                    self._parts = bytearray(frame.data)
                    self._text = opcode is TEXT
            elif opcode is CONT:
                assert self._parts is not None
                self._parts += frame.data
                if frame.fin:
                    data, self._parts = bytes(self._parts), None
                    self._message(data, self._text)

    def _message(self, data: Any, text: bool) -> None:
        message: str | bytes
        if text:
            try:
                message = str(data, "utf-8")
            except UnicodeDecodeError:
                self.close_now(INVALID, "text that is not UTF-8")
                return
        else:
            message = bytes(data)
        hub, limits = self._hub, self._hub.settings
        size = len(data)
        if self.pending:
            waiting, queued = len(self.pending), self._queued + size  # the oldest one is being handled
            if waiting > limits.queue_events or queued > limits.queue_bytes:
                self.close_now(TRY_LATER, TOO_MUCH)
                return
            if (waiting > limits.queue_events // 2 or queued > limits.queue_bytes // 2) and not self._spent:
                self._pause()
        if hub.queued > SOCKET_QUEUE_TOTAL_BYTES:
            self.close_now(TRY_LATER, TOO_MUCH)
            return
        self._queued += size
        hub.queued += size
        self.relay.event(self, WS_MESSAGE, message)

    def eof_received(self) -> bool:
        return False  # a client that sends no more can't answer a ping: the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._hub.forget(self)
        self.resume_writing()
        self._end(ABNORMAL, "")

    # -- backpressure

    def _pause(self) -> None:
        self._paused = monotonic()
        if self._transport is not None:
            self._transport.pause_reading()

    def _read_again(self) -> None:
        self._paused = 0.0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._read_on()

    def message_done(self, data: str | bytes) -> None:
        """A message has been handled, and its turn is durable."""
        size = len(data) if type(data) is bytes or data.isascii() else len(data.encode())  # type: ignore[union-attr]
        self._queued -= size
        self._hub.queued -= size
        if self._paused or self._spent:
            limits = self._hub.settings
            if len(self.pending or ()) <= limits.queue_events // 4 and self._queued <= limits.queue_bytes // 4:
                self._spent = False
                if self._paused and self._state == OPEN:
                    self._read_again()

    def pause_writing(self) -> None:
        self._slow = True

    def resume_writing(self) -> None:
        self._slow = False
        self._hub.unsent -= self._unsent
        self._unsent = 0

    def _count_unsent(self) -> None:
        transport = self._transport
        if transport is None or self._state != OPEN:
            return
        size = transport.get_write_buffer_size()
        self._hub.unsent += size - self._unsent
        self._unsent = size
        if size > self._hub.settings.buffer_bytes:
            self.close_now(TRY_LATER, TOO_SLOW)
        elif self._hub.unsent > self._hub.settings.buffer_total:
            self.close_now(TRY_LATER, TOO_SLOW)
            transport.abort()

    # -- to the client

    def deliver(self, message: Outgoing) -> None:
        """Send a message; one for a socket that is closing is dropped."""
        if self._state != OPEN:
            return
        data = message.plain
        if self._bits and message.size >= self._hub.settings.compress_over:
            data = message.deflated(self._bits)
        transport = self._transport
        if transport is None:
            assert self._early is not None
            self._early.append(data)
            return
        self._hub.sent += len(data)
        transport.write(data)
        if self._slow:
            self._count_unsent()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._hub.sent += len(data)
            self._transport.write(data)

    def _flush(self) -> None:
        """Write what the protocol has to say. Its mark for the end of the stream is empty bytes."""
        for data in self._protocol.data_to_send():
            if data:
                self._write(data)
        if self._slow:
            self._count_unsent()

    # -- the end

    def close(self, code: int, reason: str) -> None:
        """Say goodbye and wait for the client to do so. The first reason counts."""
        if self._state != OPEN:
            return
        self._state = CLOSING
        self._code, self._reason = code, reason
        self._since = monotonic()
        if self._transport is not None:
            self._say_close()

    def _say_close(self) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(self._code, self._reason)
            self._flush()
        if self._paused:  # the client's own close frame stands behind what was not read
            self._read_again()

    def close_now(self, code: int, reason: str) -> None:
        """Send a close frame and hear nothing more."""
        if self._state == ENDED:
            return
        if self._transport is None:  # the answer to the handshake has not left yet
            self.close(code, reason)
            return
        self._state = ENDED
        if self._protocol.state is State.OPEN:
            self._protocol.fail(code, reason)
            self._flush()
        self._end(code, reason)
        self._shut()

    def _on_protocol_end(self) -> None:
        """A close frame has come, or something that is no frame."""
        protocol = self._protocol
        close = protocol.close_rcvd
        if protocol.parser_exc is not None or close is None:
            close = protocol.close_sent
            if protocol.parser_exc is None:
                return  # only ours was sent
        self._end(close.code if close is not None else ABNORMAL, close.reason if close is not None else "")
        self._shut()

    def _shut(self) -> None:
        transport = self._transport
        if transport is None:
            return
        self._since = monotonic()
        if transport.can_write_eof():
            transport.write_eof()
            if self._paused:
                self._paused = 0.0
                transport.resume_reading()
        else:
            transport.close()

    def _end(self, code: int, reason: str) -> None:
        """Tell who is behind the socket, once."""
        self._state = ENDED
        self._rest = b""
        self._backlog = []
        self._parts = None
        if self._reported:
            return
        self._reported = True
        if self._code:
            code, reason = self._code, self._reason
        self.relay.event(self, WS_CLOSED, code, reason)

    def released(self) -> None:
        """The relay has forgotten the socket."""
        self._reported = True
        self._hub.queued -= self._queued
        self._queued = 0
        self._hub.released()

    def recheck(self, access: Access) -> None:
        """The tokens have changed."""
        if not access.holds(self.right):
            self.close_now(POLICY, "the token is not valid any more")

    def drain(self) -> None:
        """The server stops."""
        self.close(GOING_AWAY, "the server is going away")

    # -- deadlines

    def sweep(self, now: float) -> None:
        """Called once a second with the monotonic time."""
        if self._heard:
            self._heard = self._pinged = False
            if self._state == OPEN:
                self._since = now
        limits = self._hub.settings
        waited = now - self._since
        if self._state == OPEN:
            if self._paused:
                self._since = now  # what the client has to say waits here
                if now - self._paused >= limits.queue_wait and not self.relay.link.moving:
                    self._spent = True
                    self._read_again()
            elif self._pinged:
                if waited > limits.ping_interval + limits.ping_timeout and self._transport is not None:
                    self._transport.abort()
            elif waited > limits.ping_interval * (1 - (self.sid & 31) / 128) and self._transport is not None:
                self._pinged = True
                self._protocol.send_ping(b"")
                self._flush()
        elif self._transport is not None:
            size = self._transport.get_write_buffer_size()
            if size and size < self._unsent:  # slow, but not standing still
                self._hub.unsent += size - self._unsent
                self._unsent = size
                self._since = now
            elif waited > (limits.close_timeout if self._state == CLOSING or size else LINGER_SECONDS):
                self._transport.abort()
