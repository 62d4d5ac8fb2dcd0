"""Every request but the plain call: its head is checked, then it is given to a worker, or answered here."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from actord.errors import BadRequest
from actord.server import system
from actord.server.exchange import Exchange
from actord.server.formats import call_format, call_key
from actord.server.forwarded import described
from actord.server.heads import JSON, MSGPACK, PAIR
from actord.server.routes import CALL, DOOR, EVENTS, FETCH, SYSTEM
from actord.server.streams import StreamableExchange
from actord.server.upgrade import UpgradeExchange, socket_key
from actord.shards import wire
from actord.shards.slots import slot_of

if TYPE_CHECKING:
    from actord.server.connection import Connection
    from actord.server.http import Request


def begin(
    connection: Connection,
    exchange: Exchange,
    request: Request,
    kind: int,
    type_: str,
    name: str,
    verb: str,
    timing: bool,
) -> None:
    """Everything but the plain call: checks its head, and gives it to a worker or answers it."""
    method, target, head, body = request
    server = connection.server
    if target == "*":
        connection.answer(exchange, 204, b"", b"")
        return
    if kind == DOOR and head.websocket and method == "GET":
        key = socket_key(request[1], server.router.front_door)
        connection.deaf = True  # nothing that follows is HTTP
        connection.upgrade = UpgradeExchange(connection, connection.parser.take_rest())
        connection.upgrade.right = exchange.right
        connection.upgrade.open(request, key)
        return
    if kind == SYSTEM and verb == wire.OPENAPI and method in ("GET", "HEAD"):
        kind = DOOR  # any worker has it
    elif kind == SYSTEM and verb == system.METRICS:
        system.scrape(connection, exchange, method, head)
        return
    elif kind == SYSTEM or (kind == DOOR and not server.router.front_door):
        connection.answer(exchange, *system.respond(method, verb, head, server))
        return
    if not head.deadline_ok:
        raise BadRequest("Actord-Timeout is a number of seconds, as in `Actord-Timeout: 2.5`.")
    seconds = connection.call_deadline if head.deadline is None else head.deadline
    deadline = int((monotonic() + seconds) * 1000)
    flags = wire.TIMING if timing else connection.timing
    if kind == CALL:
        if head.content_type not in (JSON, MSGPACK, PAIR):
            server.origins.check(head, "make calls")
        if body or head.content_type in (MSGPACK, PAIR):
            flags |= call_format(head)
        link = connection.table[slot_of(type_, name)]
        exchange.link = link
        extras = head.trace or {}
        if head.idempotency_key is not None:
            extras = {**extras, "key": call_key(head)}
        if not extras:
            exchange.id = link.submit(exchange, wire.CALL, type_, name, verb, flags, deadline, body)
        else:
            exchange.id = link.submit(exchange, wire.CALLX, type_, name, verb, extras, flags, deadline, body)
    else:
        # The answer to HEAD is that to GET without its body, whatever the program makes of methods.
        verb_sent = "GET" if method == "HEAD" else method
        fields = described(connection, verb_sent, verb, head)
        if kind in (FETCH, EVENTS):
            flags |= wire.EVENTS if kind == EVENTS else 0
            link = connection.table[slot_of(type_, name)]
            exchange.link = link
            if kind == EVENTS and isinstance(exchange, StreamableExchange):
                exchange.again = type_, name, fields, flags
            exchange.id = link.submit(exchange, wire.FETCH, type_, name, fields, head.trace, flags, deadline, body)
        else:
            link = server.router.door()
            exchange.link = link
            exchange.id = link.submit(exchange, wire.DOOR, fields, flags, deadline, body)
    connection.queue.append(exchange)
