"""The request that becomes a WebSocket: it waits in its connection's queue like any other, and is always the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actord.errors import ActordError, NotFound
from actord.server.exchange import Exchange
from actord.server.handshake import Refusal
from actord.server.problems import problem
from actord.server.routes import socket_route

if TYPE_CHECKING:
    from actord.server.access import Access
    from actord.server.connection import Connection
    from actord.server.http import Request
    from actord.server.websocket import WebSocket

# A client that does not wait for the answer may have sent so much before it is read no further.
EARLY_BYTES = 64 * 1024


class UpgradeExchange(Exchange):
    """``rest`` is what has arrived behind the request: the beginning of the socket's frames."""

    __slots__ = ("rest", "socket", "switched")

    def __init__(self, connection: Connection, rest: bytes) -> None:
        super().__init__(connection, close=True)  # a client that is refused begins anew
        self.rest = rest
        self.socket: WebSocket | None = None
        self.switched = False

    def open(self, request: Request, key: tuple[str, str] | None) -> None:
        """Ask for the socket; a refusal is this request's answer."""
        connection = self.connection
        connection.simple = False
        connection.queue.append(self)
        try:
            self.socket = connection.server.hub.open(self, request, key)
        except Refusal as refusal:
            status, head, body = problem(refusal.error, refusal.status)
            self.on_reply(status, body, head + refusal.lines)
        except ActordError as error:
            status, head, body = problem(error)
            self.on_reply(status, body, head)

    def keep(self, data: bytes) -> bool:
        """Take what arrives before the answer. False when it is enough for now."""
        self.rest += data
        return len(self.rest) <= EARLY_BYTES

    def switch(self, answer: bytes) -> None:
        """The client is let in: with this answer the connection becomes the socket's."""
        self.switched = True
        self.answer = answer
        self._answered()

    def refuse(self, status: int, body: bytes, head: bytes | None) -> None:
        self.on_reply(status, body, head)
        self._answered()

    def take_over(self, held: bool) -> None:
        """The answer was written: the connection is the socket's now. ``held``: its reading is paused."""
        connection, socket = self.connection, self.socket
        transport = connection.transport
        assert transport is not None
        assert socket is not None
        connection.ended = True
        connection.transport = connection.upgrade = None
        transport.set_protocol(socket)
        if held:
            transport.resume_reading()
        connection.server.replace(connection, socket)
        socket.attach(transport, self.rest)

    def recheck(self, access: Access) -> None:
        """The tokens have changed while the client waits."""
        if self.answer is None and self.socket is not None and not access.holds(self.right):
            self.socket.fail(access.ended())
            self.socket.gone()

    def _answered(self) -> None:
        if self.socket is not None:
            self.connection.server.hub.answered(self.socket)
        if self.switched:
            self.connection.answered()

    def forget(self) -> None:
        """The connection has gone."""
        if self.socket is not None:
            self.connection.server.hub.answered(self.socket)
            self.socket.gone()


def socket_key(target: str, front_door: bool) -> tuple[str, str] | None:
    """The actor that a socket is asked for; None: the front door. Raises ``BadRequest`` and ``NotFound``."""
    key = socket_route(target)
    if key is None and not front_door:
        raise NotFound("Nothing is served at this path.")
    return key
