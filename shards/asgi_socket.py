"""One WebSocket of an ASGI application, from ``websocket.connect`` to ``websocket.disconnect``.

Promises:

1. The handshake has one answer: accepted, closed (403), a response of the application's
   (``websocket.http.response``), or a problem when it raises, returns or runs over its time before. The time limit ends
   with it.
2. Messages come in the order of the specification: any other raises in ``send``, and nothing of it is sent. Once the
   socket has gone, ``send`` raises ``OSError`` at once, and ``receive`` gives the messages that had come before it,
   then ``websocket.disconnect``. The application is never cancelled for that, and a server that drains waits for it.
3. A message counts as waiting until the application receives it. The front bounds how many wait, and stops reading
   before (server/websocket.py); nothing of it is acknowledged earlier.
4. An application that raises closes its socket with 1011, one that returns with 1000.
5. Crash story: what the application knows of a socket is in this process. When it is lost, the front closes the socket
   with 1012, and no other worker hears of it. A worker that is replaced does the same itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

from actord.errors import ActordError, ActorUnavailable
from actord.http import check_status
from actord.limits import MIB, SOCKET_REASON_BYTES
from actord.shards.asgi_messages import ClientGone, body_of, header_lines, response_head
from actord.shards.door import problem_of
from actord.shards.lifespan import Message
from actord.shards.outbound import Visit
from actord.shards.outflow import LengthError
from actord.shards.problem import log_fault, problem_reply
from actord.shards.socket_events import ABNORMAL, FAILED, RESTARTED, Party, SocketEvents
from actord.shards.sockets import check_close, checked, handshake_lines
from actord.shards.wire import WS_ACCEPT, WS_CLOSE, WS_REFUSE, WS_SEND

log = logging.getLogger("actord.asgi")

EXTENSIONS = ("websocket.http.response",)
NORMAL = 1000
REPLACED = "the worker is being replaced"
# The body of a response in the socket's place.
RESPONSE_BYTES = MIB
# After so much in one go others get their turn; a message counts as so much at least.
_BURST_BYTES = 64 * 1024
_MESSAGE_BYTES = 1024

# CONNECTING: the application decides. RESPONDING: it has begun a response. CLOSED: it has said its last word.
CONNECTING, RESPONDING, OPEN, CLOSED = "CONNECTING", "RESPONDING", "OPEN", "CLOSED"


class AsgiSocket(Party):
    """Created by ``AsgiDoor.open_socket``, which runs the application on it."""

    __slots__ = (
        "_body",
        "_burst",
        "_changed",
        "_closed",
        "_end",
        "_events",
        "_head",
        "_length",
        "_offered",
        "_over",
        "_queue",
        "_seq",
        "_sid",
        "_state",
        "_status",
        "_told",
        "started",
        "timeout",
        "visit",
    )

    timeout: asyncio.Timeout
    started: float
    visit: Visit

    def __init__(self, events: SocketEvents, sid: int, seq: int, offered: tuple[str, ...]) -> None:
        self._events = events
        self._sid = sid
        self._seq = seq  # of the opening
        self._offered = offered
        self._state = CONNECTING
        self._told = False  # of the connection
        self._queue: deque[tuple[int, str | bytes]] = deque()  # messages that were not received; 0: acknowledged
        self._end: tuple[int, str] | None = None  # code and reason: the socket has gone
        self._closed = 0  # the event of that
        self._over = False  # the application has returned
        self._changed = asyncio.Event()  # something to receive
        self._burst = 0
        # a response in the socket's place
        self._status = 0
        self._head = b""
        self._length: int | None = None
        self._body = bytearray()

    # -- the front's side

    def message(self, seq: int, data: str | bytes) -> None:
        if self._state != OPEN or self._end is not None:
            self._events.done(self._sid, seq)
            return
        self._queue.append((seq, data))
        self._changed.set()

    def closed(self, seq: int, code: int, reason: str) -> None:
        """Done when the application has returned: a front that drains waits for what it still does."""
        if self._state in (CONNECTING, RESPONDING) and self._end is None:
            self._events.done(self._sid, self._seq)
        self._gone(code, reason)
        self._closed = seq
        if self._over:
            self._forget()

    def _forget(self) -> None:
        self._events.parties.pop(self._sid, None)
        self._events.done(self._sid, self._closed)

    def lost(self) -> None:
        self._gone(ABNORMAL, "")

    def restart(self) -> None:
        """This worker leaves."""
        if self._end is not None or self._state == CLOSED:
            return
        if self._state == OPEN:
            self._say(WS_CLOSE, RESTARTED, REPLACED)
        else:
            self._refuse_with(ActorUnavailable("The worker is being replaced.", retry_after=1))
        self._gone(RESTARTED, REPLACED)

    def _gone(self, code: int, reason: str) -> None:
        if self._end is None:
            self._end = code, reason
        self._acknowledge()
        self._changed.set()

    def _acknowledge(self) -> None:
        """What waits is the worker's alone from here on."""
        for index, (seq, data) in enumerate(self._queue):
            if seq:
                self._events.done(self._sid, seq)
                self._queue[index] = 0, data

    def _say(self, kind: int, *fields: Any) -> None:
        self._events.connection.put_socket((kind, self._sid, *fields), 0)

    # -- the application's side

    async def receive(self) -> Message:
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        while not self._queue:
            if self._end is not None:
                code, reason = self._end
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._changed.clear()
            await self._changed.wait()
        seq, data = self._queue.popleft()
        if seq:
            self._events.done(self._sid, seq)
        if isinstance(data, str):
            return {"type": "websocket.receive", "text": data}
        return {"type": "websocket.receive", "bytes": data}

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self._state == CLOSED:
            raise RuntimeError(f"{kind!r} comes after the end: the application has closed the socket, or refused it")
        if self._end is not None:
            raise ClientGone("the client has gone")
        if self._state == OPEN:
            if kind == "websocket.send":
                await self._send(message)
            elif kind == "websocket.close":
                self._close(message)
            else:
                raise RuntimeError(f"'websocket.send' or 'websocket.close' was expected, not {kind!r}")
        elif self._state == RESPONDING:
            if kind != "websocket.http.response.body":
                raise RuntimeError(f"'websocket.http.response.body' was expected, not {kind!r}")
            self._respond(message)
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._refuse(403, b"", b"")
        elif kind == "websocket.http.response.start":
            check_status(message["status"])
            self._head, self._length = response_head(message.get("headers", ()))
            self._status = int(message["status"])
            self._state = RESPONDING
        else:
            raise RuntimeError(
                f"'websocket.accept', 'websocket.close' or 'websocket.http.response.start' was expected, not {kind!r}"
            )

    def _accept(self, message: Message) -> None:
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and subprotocol not in self._offered:
            raise ValueError(f"the client offers no subprotocol {subprotocol!r}, but {list(self._offered)!r}")
        head = handshake_lines(header_lines(message.get("headers") or ()))
        self._decided(OPEN)
        self._say(WS_ACCEPT, subprotocol, head)
        self._events.done(self._sid, self._seq)

    async def _send(self, message: Message) -> None:
        text, binary = message.get("text"), message.get("bytes")
        if (text is None) == (binary is None):
            raise ValueError("'websocket.send' has either 'text' or 'bytes'")
        if text is not None and not isinstance(text, str):
            raise TypeError(f"'text' of a message is str, not {type(text).__name__}")
        if binary is not None and isinstance(binary, str):
            raise TypeError("'bytes' of a message is bytes, not str")
        data, size = checked(text if text is not None else binary)
        connection = self._events.connection
        connection.put_socket((WS_SEND, self._sid, data), size)
        self._burst += max(size, _MESSAGE_BYTES)
        if self._burst >= _BURST_BYTES:
            self._burst = 0
            await asyncio.sleep(0)
            await connection.writable()

    def _close(self, message: Message) -> None:
        code, reason = message.get("code", NORMAL), message.get("reason") or ""
        check_close(code, reason)
        self._state = CLOSED
        self._say(WS_CLOSE, code, reason)
        self._drop()

    def _respond(self, message: Message) -> None:
        self._body += body_of(message)
        if len(self._body) > RESPONSE_BYTES:
            raise LengthError(f"a response in the place of a socket has at most {RESPONSE_BYTES >> 20} MiB")
        if not message.get("more_body", False):
            if self._length is not None and self._length != len(self._body):
                raise LengthError(f"the body has {len(self._body)} bytes, its Content-Length says {self._length}")
            self._refuse(self._status, bytes(self._body), self._head)

    # -- the answer, and the end

    def _decided(self, state: str) -> None:
        self._state = state
        self.timeout.reschedule(None)
        self.visit.deadline = 0

    def _refuse(self, status: int, body: bytes, head: bytes) -> None:
        """Answer the handshake over HTTP: that was the socket's whole life."""
        self._decided(CLOSED)
        self._answer(status, body, head)

    def _refuse_with(self, error: ActordError) -> None:
        status, body, head = problem_reply(error, msgpack=False)
        self._answer(status, body, head)

    def _answer(self, status: int, body: bytes, head: bytes | None) -> None:
        self._events.parties.pop(self._sid, None)
        self._say(WS_REFUSE, status, body, head)
        self._events.done(self._sid, self._seq)
        self._gone(ABNORMAL, "")

    def _drop(self) -> None:
        """The application takes no more messages."""
        self._acknowledge()
        self._queue.clear()

    def close(self, error: BaseException | None, over_limit: float | None) -> None:
        """The application has ended."""
        state, self._state = self._state, CLOSED
        self._drop()
        if state == CLOSED or self._end is not None:
            if error is not None and not isinstance(error, ClientGone | asyncio.CancelledError):
                log_fault(log, "the application failed after the end of its socket", error)
        elif state == OPEN:
            if error is None:
                self._say(WS_CLOSE, NORMAL, "")
            else:
                log_fault(log, "the application failed, and its socket is closed", error)
                self._say(WS_CLOSE, FAILED, "the application failed")
        else:
            if error is None:
                error = RuntimeError("the application returned without an answer to the handshake")
            self._answer(*problem_of(error, self.visit, over_limit))
        self._over = True
        if self._closed:
            self._forget()


assert len(REPLACED) <= SOCKET_REASON_BYTES
