"""What all sockets of a front share: the rules of their opening, their limits, and their number."""

from __future__ import annotations

import secrets
from time import monotonic
from typing import TYPE_CHECKING

from actord.errors import ActordError
from actord.server.forwarded import described
from actord.server.handshake import Handshakes
from actord.server.problems import problem
from actord.server.relay import Relay
from actord.server.websocket import WebSocket
from actord.shards.link import Link
from actord.shards.slots import slot_of
from actord.shards.wire import WS_DOOR, WS_OPEN

if TYPE_CHECKING:
    from actord.server.http import Request
    from actord.server.httpserver import HttpServer
    from actord.server.upgrade import UpgradeExchange


class SocketHub:
    """One for each front."""

    def __init__(self, server: HttpServer) -> None:
        settings = server.settings
        self.settings = settings.sockets
        self._server = server
        self.settle()
        self._relays: dict[Link, Relay] = {link: Relay(link) for link in server.router.links}
        self._prefix = secrets.token_hex(6)
        self._opened = 0
        self._opening: dict[WebSocket, None] = {}
        self.queued = 0  # bytes of messages that wait for their actors
        self.unsent = 0  # bytes that wait for slow clients
        self.received = self.sent = 0  # bytes of all sockets so far

    def settle(self) -> None:
        """Take what the settings say now, for the sockets that are opened from now on."""
        settings = self._server.settings
        self._call_deadline = settings.http.call_deadline
        self._handshakes = Handshakes(
            message_bytes=settings.sockets.message_bytes,
            compression=settings.sockets.compression,
            origins=self._server.origins,
        )

    # -- openings

    def open(self, exchange: UpgradeExchange, request: Request, key: tuple[str, str] | None) -> WebSocket:
        """Ask for a socket: at the actor ``key``, or at the front door. Raises ``Refusal`` and ``ActordError``."""
        method, target, head, body = request
        handshake = self._handshakes.open(target, head, body)
        deadline = int((monotonic() + self._call_deadline) * 1000)
        self._opened += 1
        connection = exchange.connection
        uid = f"{self._prefix}-{self._opened:x}"
        socket = WebSocket(self, exchange, handshake, uid, connection.peer, deadline)
        socket.right = exchange.right
        fields = described(connection, method, target, head)
        if key is None:
            relay = self._relays[self._server.router.door()]
            relay.enter(socket, None)
            relay.event(socket, WS_DOOR, socket.uid, fields, deadline)
        else:
            relay = self.relay_of(*key)
            relay.enter(socket, key)
            relay.event(socket, WS_OPEN, socket.uid, *key, fields, deadline)
        self._opening[socket] = None
        return socket

    def relay_of(self, type_: str, name: str) -> Relay:
        """That of the worker that owns an actor."""
        return self._relays[self._server.router.table[slot_of(type_, name)]]

    def answered(self, socket: WebSocket) -> None:
        """The client was let in, refused, or has gone."""
        self._opening.pop(socket, None)

    @property
    def date(self) -> bytes:
        return self._server.framer.date

    @staticmethod
    def problem(error: ActordError) -> tuple[int, bytes, bytes]:
        """Status, body and head of an error."""
        status, head, body = problem(error)
        return status, body, head

    # -- life

    def sweep(self) -> None:
        """Once a second."""
        now = monotonic() * 1000
        for socket in list(self._opening):
            socket.expire(now)

    def forget(self, socket: WebSocket) -> None:
        """The connection of a socket has gone."""
        self._server.forget(socket)

    def released(self) -> None:
        """A worker has done the last event of a socket."""
        self._server.check_empty()

    def __len__(self) -> int:
        """Sockets that a worker still has to hear of, those that have ended among them."""
        return sum(map(len, self._relays.values()))
