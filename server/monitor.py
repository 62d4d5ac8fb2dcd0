"""``/-/metrics`` on a front, and what a front counts itself.

1. The text is the supervisor's (server/metrics.py): a front passes the question on, so that nothing it serves waits.
2. It is served on the listener of ``metrics.listen`` alone when there is one; else on the server's own addresses, if
   they are loopback ones or unix sockets, or requests need tokens: nobody else gets to know how busy a server is.
3. That listener serves nothing but ``/-/metrics``, the health paths and ``/-/version``. It asks for no token: its
   address is a loopback one. On the server's own addresses ``/-/metrics`` needs @admin:read, once there are tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from actord.errors import NotFound
from actord.server import system
from actord.server.connection import Connection
from actord.server.problems import problem

if TYPE_CHECKING:
    from actord.measures import Figure
    from actord.server.access import Access
    from actord.server.http import Request
    from actord.server.httpserver import HttpServer

SERVED = (system.METRICS, system.LIVE, system.READY, system.VERSION)


class MonitorConnection(Connection):
    """A connection to the listener of ``metrics.listen``."""

    __slots__ = ()

    monitor = True

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server)
        self.access = None

    def recheck(self, access: Access) -> None:
        """Nobody is asked for a token here."""

    def _begin(self, request: Request) -> None:
        method, target, head, _ = request
        if target.partition("?")[0] in SERVED:
            super()._begin(request)
            return
        exchange = self._exchange(method, head)
        status, lines, document = problem(NotFound("This listener serves /-/metrics, /-/health and /-/version alone."))
        self.answer(exchange, status, lines, document)


def figures(server: HttpServer) -> Iterator[Figure]:
    """What a front says when it is asked."""
    hub, links = server.hub, server.router.links
    plain = [one for one in server.connections if isinstance(one, Connection)]
    yield ("actord_event_loop_lag_seconds", (), server.lag.times.value())
    yield ("actord_connections", (), len(server.connections))
    yield ("actord_accepted_connections_total", (), server.accepted)
    yield ("actord_sockets", (), len(server.connections) - len(plain))
    yield ("actord_received_bytes_total", (), server.received + hub.received + sum(one.received for one in plain))
    yield ("actord_sent_bytes_total", (), server.sent + hub.sent + sum(one.sent for one in plain))
    yield ("actord_calls_under_way", (), sum(map(len, links)))
    yield ("actord_resent_calls_total", (), sum(link.resent for link in links))
    yield ("actord_socket_queue_bytes", (), hub.queued)
    yield ("actord_socket_unsent_bytes", (), hub.unsent)
    for reason, count in server.refused.items():
        yield ("actord_refused_total", (reason,), count)
