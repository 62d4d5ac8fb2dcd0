"""What all connections of a front share, the listening sockets, and the sweep that keeps every deadline."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from time import monotonic, time
from typing import Any, cast

from actord.limits import LINK_BYTES
from actord.measures import LoopLag
from actord.server.accepting import Acceptor
from actord.server.access import Access
from actord.server.connection import Connection
from actord.server.exits import ConfigError
from actord.server.forwarded import Proxies
from actord.server.heads import HeadReader
from actord.server.hub import SocketHub
from actord.server.origins import Origins
from actord.server.problems import Framer
from actord.server.router import Router
from actord.server.slotmap import SlotMap
from actord.server.sockets import is_loopback
from actord.server.tls import TlsAcceptor, context_of
from actord.server.websocket import WebSocket
from actord.settings import Server, Settings

log = logging.getLogger("actord.front")

Scraped = Callable[[dict[str, str] | None], None]  # "type" and "text"; None: they can't be had

# Listening again sets the backlog anew, and the loop's own default is 100.
BACKLOG = 4096

SETTLE_SECONDS = 0.01
# A sweep looks after so many connections in a step, or more, so that it has at most so many steps.
SWEEP_STEP = 64
SWEEP_STEPS = 100


class HttpServer:
    """Serves clients on inherited sockets. Create it on a running loop."""

    def __init__(self, settings: Settings, router: Router, slots: SlotMap, *, version: str) -> None:
        self.settings = settings
        self.router = router
        self.slots = slots
        self.version = version
        self.loop = asyncio.get_running_loop()
        self.heads = HeadReader(settings.http)
        self.framer = Framer()
        self.origins = Origins(settings.http.origins)
        self.hub = SocketHub(self)
        self.connections: set[Connection | WebSocket] = set()
        self.access: Access | None = None
        self.tls = context_of(settings.server)
        self.proxies = Proxies(settings.server.forwarded_allow_ips)
        self.draining = False
        self._settled = False
        self.receiving = 0  # bytes of bodies that are not complete yet, of all connections
        self.receiving_limit = LINK_BYTES
        host = settings.server.host
        # Who asks on an address that only this machine reaches may know how the server does.
        self.metrics_here = not settings.metrics.listen and (not host or is_loopback(host))
        self.scrape: Callable[[str, Scraped], None] | None = None  # has the metrics for an Accept header written
        self.accepted = 0
        self.received = self.sent = 0  # bytes of connections that have ended
        self.refused: Counter[str] = Counter()  # requests that no worker was asked for, by the error's class
        self.lag = LoopLag()
        self._peers: Counter[str] = Counter()
        self._shaking: Counter[str] = Counter()
        self._servers: list[asyncio.Server | Acceptor] = []
        self._empty = asyncio.Event()

    async def listen(self, sockets: list[socket.socket], kind: type[Connection] = Connection) -> None:
        """Accept connections on TCP and unix sockets that listen already."""

        def client() -> asyncio.Protocol:
            return cast(asyncio.Protocol, kind(self))

        for sock in sockets:
            server: asyncio.Server | Acceptor
            if self.tls is not None and kind is Connection and sock.family != socket.AF_UNIX:
                server = TlsAcceptor(sock, self, kind)
            elif self.settings.server.fronts > 1:
                server = Acceptor(sock, client)
            elif sock.family == socket.AF_UNIX:
                server = await self.loop.create_unix_server(client, sock=sock, backlog=BACKLOG)
            else:
                server = await self.loop.create_server(client, sock=sock, backlog=BACKLOG)
            self._servers.append(server)

    def take(self, settings: Settings) -> None:
        """Other settings, for connections and sockets that are open as well: they all hold the same structs."""
        for section in (name for name in settings.__struct_fields__ if name != "app"):
            ours, theirs = getattr(self.settings, section), getattr(settings, section)
            for field in theirs.__struct_fields__:
                setattr(ours, field, getattr(theirs, field))
        self.proxies = Proxies(self.settings.server.forwarded_allow_ips)
        self.origins = Origins(self.settings.http.origins)
        self.renew_tls(self.settings.server)
        self.heads.forget()
        self.hub.settle()
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.settle()

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; False when it is one too many."""
        http = self.settings.http
        self.accepted += 1
        self.connections.add(connection)
        peer = connection.peer
        if peer:
            self._peers[peer] += 1
        return len(self.connections) <= http.connections and not self._too_many_of(peer, self._peers[peer])

    def _too_many_of(self, peer: str, count: int) -> bool:
        limit = self.settings.http.connections_per_peer
        return bool(limit and peer and count > limit and not self.proxies.trusts(peer))

    def begin_handshake(self, peer: str) -> bool:
        """Count a connection that is to shake hands; False when it is one too many."""
        count = self._peers[peer] + self._shaking[peer] + 1
        total = len(self.connections) + self._shaking.total() + 1
        if self.draining or total > self.settings.http.connections or self._too_many_of(peer, count):
            return False
        self._shaking[peer] += 1
        return True

    def end_handshake(self, peer: str) -> None:
        """It is a connection now, or has failed."""
        self._shaking[peer] -= 1
        if not self._shaking[peer]:
            del self._shaking[peer]

    def renew_tls(self, server: Server) -> None:
        """Take the files of these settings for new connections; those that can't be used change nothing."""
        try:
            self.tls = context_of(server) or self.tls
        except ConfigError as error:
            log.error("%s Connections go on with the certificate of before.", error)

    def replace(self, connection: Connection, socket: WebSocket) -> None:
        """A connection has become a socket."""
        self._leave(connection)
        self.connections.add(socket)
        if self.draining:
            socket.drain()

    def forget(self, connection: Connection | WebSocket) -> None:
        self._leave(connection)
        peer = connection.peer
        if peer:
            self._peers[peer] -= 1
            if self._peers[peer] <= 0:
                del self._peers[peer]
        self.check_empty()

    def _leave(self, connection: Connection | WebSocket) -> None:
        self.connections.discard(connection)
        if isinstance(connection, Connection):
            self.received += connection.received
            self.sent += connection.sent
            connection.received = connection.sent = 0

    def check_empty(self) -> None:
        """Draining ends with the last connection, when the actors know of the last socket's end."""
        if self._settled and not self.connections and not len(self.hub):
            self._empty.set()

    def ask_for_tokens(self, message: Mapping[str, Any]) -> None:
        """The tokens are these from now on; see ``Access.update``."""
        if self.access is None:
            self.access = Access()
            self.metrics_here = not self.settings.metrics.listen  # for tokens with @admin:read
        self.access.update(message)
        self._recheck(self.access)

    def _recheck(self, access: Access) -> None:
        self.heads.ask(access)
        for connection in list(self.connections):
            connection.recheck(access)

    def sweep(self, now: float | None = None) -> Iterator[None]:
        """Once a second: the date, late calls, and the deadlines of every connection; ``now`` (monotonic) is for tests.

        In steps: whoever takes them lets others run in between, and other processes. 8,000 connections take 11 ms.
        """
        self.framer.tick()
        if self.access is not None and self.access.expire(time()):
            self._recheck(self.access)
        self.router.expire()
        self.hub.sweep()
        connections = list(self.connections)
        step = max(SWEEP_STEP, -(-len(connections) // SWEEP_STEPS))
        for first in range(0, len(connections), step):
            yield
            at = monotonic() if now is None else now
            for connection in connections[first : first + step]:
                if connection in self.connections:  # it may have ended, or become a socket
                    connection.sweep(at)

    def start_draining(self) -> None:
        """No new connections; idle ones close; each other one closes with its last answer."""
        if self.draining:
            return
        self.draining = True
        self.framer.plain.clear()
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.drain()
        self.loop.call_later(SETTLE_SECONDS, self._settle)

    def _settle(self) -> None:
        """What the loop had taken off the listening sockets before they were closed is among the connections now."""
        self._settled = True
        self.check_empty()

    async def drained(self) -> None:
        """Returns when the last connection has gone after ``start_draining``."""
        await self._empty.wait()
