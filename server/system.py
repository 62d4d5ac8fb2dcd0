"""The system's own paths that the front answers without a worker: all but the program's description."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from actord.errors import ActordError, ActorUnavailable, MethodNotAllowed, NotFound
from actord.server.problems import JSON_HEAD, NO_STORE, problem
from actord.shards import wire

if TYPE_CHECKING:
    from actord.server.connection import Connection
    from actord.server.exchange import Exchange
    from actord.server.heads import Head
    from actord.server.httpserver import HttpServer

LIVE, READY, VERSION, MAP = "/-/health/live", "/-/health/ready", "/-/version", "/-/map"
METRICS = "/-/metrics"

# Only while the program has no front door: a program's own routes win.
ALIASES = {"/health": READY, "/health/live": LIVE, "/health/ready": READY}


def answer(target: str, *, ready: bool, version: str) -> tuple[int, bytes] | None:
    """Status and JSON body for GET on a system path or an alias of one; None when there is no such path."""
    path = target.partition("?")[0]
    path = ALIASES.get(path, path)
    if path == LIVE:
        return 200, b'{"status":"live"}'
    if path == READY:
        return (200, b'{"status":"ready"}') if ready else (503, b'{"status":"not ready"}')
    if path == VERSION:
        return 200, orjson.dumps({"name": "actord", "version": version})
    return None


def scrape(connection: Connection, exchange: Exchange, method: str, head: Head) -> None:
    """Answer GET /-/metrics, which the supervisor writes. Raises the refusal."""
    server = connection.server
    if server.scrape is None or not (connection.monitor or server.metrics_here):
        raise NotFound("Metrics are served on the address of metrics.listen, or on a loopback address.")
    if method not in ("GET", "HEAD"):
        raise MethodNotAllowed("This path answers GET and HEAD.")
    accept = next((value for name, value in head.headers if name == "accept"), "")
    connection.queue.append(exchange)

    def scraped(metrics: dict[str, str] | None) -> None:
        if metrics is None:
            status, lines, document = problem(ActordError("The metrics can't be had; the server's log says why."))
            exchange.on_reply(status, document, lines)
            return
        lines = b"Content-Type: %b\r\n" % metrics["type"].encode("ascii") + NO_STORE
        exchange.on_reply(200, metrics["text"].encode(), lines)

    server.scrape(accept, scraped)


def respond(method: str, path: str, head: Head, server: HttpServer) -> tuple[int, bytes, bytes]:
    """Status, head and body for a system path, or for any other while there is no front door. Raises the refusal."""
    if path == MAP and method in ("GET", "HEAD"):
        everything = server.access is None or server.access.everything(head)
        return server.slots.respond(head.headers, ticket=everything)
    ready = server.router.ready and not server.draining
    found = answer(path, ready=ready, version=server.version)
    if found is None and path not in (wire.OPENAPI, MAP):
        if not server.router.started and not path.startswith("/-/"):
            raise ActorUnavailable("The workers are starting.", retry_after=1)
        raise NotFound("Nothing is served at this path.")
    if found is None or method not in ("GET", "HEAD"):
        raise MethodNotAllowed("This path answers GET and HEAD.")
    status, body = found
    return status, JSON_HEAD if status == 200 else JSON_HEAD + b"Retry-After: 1\r\n", body
