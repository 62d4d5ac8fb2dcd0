"""A streamed answer on its way from a worker to a client.

1. It is written when it is the turn of its request, each piece as it comes; before it a window at most waits here.
2. The worker is granted more only while the client takes what is written: a client that does not read costs a window
   here, one in the worker, and what the kernel holds, until ``http.write_stall`` ends it.
3. An answer that broke off, because its iterator failed or its worker died, never looks like a whole one: its
   connection is cut. One that ends by the end of the connection (HTTP/1.0) is cut by a reset.
4. A stream has no deadline. It is given up when its client goes away; when the client has stopped sending, or the
   server drains, it goes on as long as something moves, and events (``text/event-stream``) end with the drain.
5. A stream of an actor's events goes on when its worker has a successor: it is asked for again, from where it stood.
"""

from __future__ import annotations

import re
import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING, Any

from actord.errors import ActorOverloaded, ActorUnavailable
from actord.limits import STREAM_FRAME_BYTES, STREAM_WINDOW_BYTES
from actord.server.exchange import Exchange
from actord.server.problems import CLOSE, KEEP_ALIVE, problem
from actord.shards.wire import BROKEN, END, FETCH, MORE, MOVED

if TYPE_CHECKING:
    from actord.server.connection import Connection

# How long nothing may move when the client has stopped sending, or the server drains.
IDLE_SECONDS = 2.0

_GRANT_STEP_BYTES = STREAM_WINDOW_BYTES // 4
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n").search
_LINGER_ZERO = struct.pack("ii", 1, 0)
_CHUNKED = b"Transfer-Encoding: chunked\r\n"


class StreamableExchange(Exchange):
    """A request whose answer may be a stream: one to the front door, or to an actor's ``fetch``."""

    __slots__ = (
        "_by_close",
        "_chunked",
        "_endless",
        "_head",
        "_http10",
        "_owed",
        "_since",
        "_state",
        "_status",
        "_waiting",
        "_writing",
        "again",
        "streams",
    )

    def __init__(
        self,
        connection: Connection,
        *,
        close: bool = False,
        head_only: bool = False,
        keep_alive_10: bool = False,
        no_store: bool = True,
        http10: bool = False,
    ) -> None:
        super().__init__(connection, close=close, head_only=head_only, keep_alive_10=keep_alive_10, no_store=no_store)
        self._http10 = http10
        self.streams = False  # the head has come
        self.again: tuple[str, str, list[Any], int] | None = None  # of an actor's events: how they were asked for

    # -- the link's side

    def on_head(self, status: int, head: bytes) -> None:
        if self.streams:  # it goes on
            return
        self.streams = True
        self._status = status
        self._head = head
        self._endless = b"text/event-stream" in head.lower()
        self._waiting: list[bytes] = []
        self._owed = 0  # bytes written that were not granted anew
        self._state = MORE
        self._writing = False
        self._chunked = False
        self._by_close = False  # the end of the connection is that of the body
        self._since = monotonic()
        self.advance()

    def on_data(self, data: bytes, state: int) -> None:
        if state == MOVED:
            state = MORE if self._ask_again(data.decode()) else END
            data = b""
        if data:
            self._waiting.append(data)
        if state != MORE:
            self._state = state
            self.link = None
        self._since = monotonic()
        self.advance()

    def _ask_again(self, seen: str) -> bool:
        """Have the successor of the worker go on behind event ``seen``. False: the stream may as well end."""
        connection, link = self.connection, self.link
        if self.again is None or link is None or connection.ended or connection.server.draining:
            return False
        type_, name, (method, target, headers, peer), flags = self.again
        headers = [pair for pair in headers if pair[0] != "last-event-id"] + [("last-event-id", seen)]
        deadline = int((monotonic() + connection.call_deadline) * 1000)
        try:
            self.id = link.submit(self, FETCH, type_, name, [method, target, headers, peer], None, flags, deadline, b"")
        except ActorOverloaded:
            return False
        self._owed = 0  # the window is a new one
        return True

    def on_reply(self, status: int, body: bytes, head: bytes | None) -> None:
        if self.streams:  # the successor refuses to go on
            self.on_data(b"", END)
        else:
            super().on_reply(status, body, head)

    def on_lost(self, begun: bool) -> None:
        if self.streams and not begun:  # nobody goes on with it
            self.on_data(b"", END)
            return
        if not self.streams:
            super().on_lost(begun)
            return
        self.link = None
        self._state = BROKEN
        self.advance()

    # -- the connection's side

    def advance(self) -> None:
        """Write what has come, if it is this answer's turn. Called as well when the client has read."""
        connection = self.connection
        if connection.ended or not connection.queue or connection.queue[0] is not self:
            return
        if self._state == BROKEN and not self._writing:  # nobody has seen anything of it
            self.streams = False
            error = ActorUnavailable("The answer broke off before it could be sent.", applied="unknown")
            status, head, body = problem(error)
            self.on_reply(status, body, head)
            return
        parts = [] if self._writing else [self._begin()]
        if self._state == BROKEN:
            self.cut()
            return
        chunked = self._chunked
        for data in self._waiting:
            parts.append(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            self._owed += len(data) + STREAM_FRAME_BYTES
        self._waiting.clear()
        if self._state == END:
            if chunked:
                parts.append(b"0\r\n\r\n")
            connection.send(b"".join(parts))
            assert connection.transport is not None
            connection.transport.set_write_buffer_limits(high=connection.server.settings.http.write_buffer)
            self.streams = False
            self.finished()
            self.answer = b""
            connection.answered()
            return
        if parts:
            connection.send(b"".join(parts))
        if self._owed >= _GRANT_STEP_BYTES and connection.writable and self.link is not None:
            self.link.grant(self.id, self._owed)
            self._owed = 0

    def _begin(self) -> bytes:
        """The head, and how the body is framed."""
        connection = self.connection
        self._writing = True
        length = _LENGTH(b"\r\n" + self._head)
        bodiless = self._status in (204, 304)
        framing = b""
        if length is None and not bodiless:
            if self._http10:
                self.close = self._by_close = True
            else:
                framing = _CHUNKED
                self._chunked = not self.head_only
        if connection.server.draining:
            self.close = True
        if self.close:
            connection.deaf = True
        if (self.head_only or bodiless) and self._state == MORE:
            assert self.link is not None
            self.link.cancel(self.id)
            self.link = None
            self._state = END
        if self.head_only or bodiless:
            self._waiting.clear()
        assert connection.transport is not None
        # Unlike whole answers, which are in memory anyway, it need not be read from the worker before it is wanted.
        connection.transport.set_write_buffer_limits(high=STREAM_WINDOW_BYTES)
        return connection.server.framer.stream_head(
            self._status,
            self._head,
            no_store=self.no_store,
            framing=framing + (CLOSE if self.close else KEEP_ALIVE if self.keep_alive_10 else b""),
        )

    def finished(self) -> None:
        """The whole answer was written."""

    def sweep(self, now: float) -> None:
        draining = self.connection.server.draining
        if (draining and self._endless) or ((draining or self.connection.eof) and now - self._since > IDLE_SECONDS):
            self.cut()

    def cut(self) -> None:
        """End the connection so that the client can't take what it has for the whole."""
        connection = self.connection
        if self._by_close and connection.transport is not None:
            sock = connection.transport.get_extra_info("socket")
            if sock is not None and sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        connection.abort()
