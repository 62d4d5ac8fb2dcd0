"""One client's connection: bytes to requests, requests to links, answers back in order.

Promises:

1. Answers leave in the order of their requests, whatever the order in which the workers reply.
2. A refused request ends the connection: its answer follows those of the requests before it, nothing after it runs.
3. No client holds more than its share: requests under way, bytes waiting to be written and bodies being received are
   bounded, and each phase (head, body, idle, writing, closing) has its deadline, kept by one sweep a second.
4. When the client has gone, its calls that have not begun are not made. One that only stopped sending is answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, cast

from actord.errors import ActordError, ActorOverloaded, BadRequest, MethodNotAllowed, Unauthorized
from actord.server import requests, uploads
from actord.server.exchange import Exchange, PlainExchange, shed
from actord.server.heads import Head, Refused
from actord.server.http import Request, RequestParser
from actord.server.problems import CONTINUE, problem
from actord.server.routes import CALL, DOOR, route
from actord.server.streams import StreamableExchange
from actord.shards import wire
from actord.shards.slots import slot_of

if TYPE_CHECKING:
    from actord.server.access import Access
    from actord.server.httpserver import HttpServer
    from actord.server.upgrade import UpgradeExchange
    from actord.server.uploads import UploadExchange

# How long a client may take to close its side after we have said that the connection ends.
LINGER_SECONDS = 2.0
# When the server drains: a connection of this age that has not made a request is an idle one.
FRESH_SECONDS = 1.0


class Connection:
    """See the contract above. Created by ``HttpServer`` for each client."""

    __slots__ = (
        "_active",
        "_flush_due",
        "_held",
        "_http",
        "_phase",
        "_pipeline",
        "_receiving",
        "_since",
        "_unsent",
        "_written",
        "access",
        "call_deadline",
        "deaf",
        "ended",
        "eof",
        "parser",
        "peer",
        "plain",
        "proxied",
        "queue",
        "received",
        "scheme",
        "sent",
        "server",
        "simple",
        "table",
        "timing",
        "transport",
        "upgrade",
        "upload",
        "writable",
        "write",
    )

    monitor = False  # it came by the listener of metrics.listen

    def __init__(self, server: HttpServer) -> None:
        # for the process
        self.server = server
        self.plain = server.framer.plain
        self._http = server.settings.http
        self.table = server.router.table
        # for the connection
        self.queue: deque[Exchange] = deque()
        self.access = server.access  # None: nobody is asked for a token
        self.simple = True  # nothing stands between an answer and the socket but its turn
        self.peer = ""  # the IP address at its other end; empty on a unix socket
        self.proxied = False  # that is a proxy's, which may say who asks
        self.scheme = "http"
        self.parser = RequestParser(server.heads, self._http, partial(uploads.begin, self))
        self.settle()
        self.transport: asyncio.Transport | None = None
        self.deaf = False  # whatever else arrives is thrown away
        self.eof = False  # the client has stopped sending
        self.ended = False  # we have stopped sending
        self._held = False  # reading is paused
        self.upgrade: UpgradeExchange | None = None  # the last request, which may become a socket
        self.upload: UploadExchange | None = None  # the last request, while its body is passed on
        self.writable = True
        self._flush_due = False
        self.received = self.sent = 0  # bytes
        # for the sweep
        self._active = False  # something came since the last sweep
        self._phase = "accepted"
        self._since = monotonic()
        self._receiving = 0  # bytes of a body counted in server.receiving
        self._unsent = 0
        self._written = 0

    def settle(self) -> None:
        """Take what the settings say now."""
        self._pipeline = self._http.pipeline
        self.call_deadline = self._http.call_deadline
        self.timing = wire.TIMING if self._http.server_timing else 0
        self.parser.settle()

    # -- the transport's side

    def begin_at(self, since: float) -> None:
        """It was taken before, at this monotonic time: so long its head is under way."""
        self._since = since

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's
        self.transport = transport = cast(asyncio.Transport, transport)
        self.write = transport.write
        transport.set_write_buffer_limits(high=self._http.write_buffer)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.peer = peer[0]
        self.proxied = self.server.proxies.trusts(self.peer)
        if transport.get_extra_info("ssl_object") is not None:
            self.scheme = "https"
        if not self.server.admit(self):
            self._refuse(503, ActorOverloaded("Too many connections.", retry_after=1))

    def data_received(self, data: bytes) -> None:
        """Begin every request that is complete, as far as the limits allow."""
        self._active = True
        self.received += len(data)
        if self.deaf:
            if self.upgrade is not None and not self.upgrade.keep(data):
                self.hold()
            return
        parser = self.parser
        try:
            request = parser.next(data)
            while request is not None:
                self._begin(request)
                if self.deaf or not parser.has_rest:
                    break
                if len(self.queue) >= self._pipeline or not self.writable:
                    self.hold()
                    return
                request = parser.next()
        except Refused as refusal:
            self._refuse(refusal.status, refusal.error)
            return
        if request is None:
            self._incomplete()
        elif self._phase != "idle":
            self._count_receiving(0)
            self._phase = "idle"
        if len(self.queue) >= self._pipeline:
            self.hold()

    def eof_received(self) -> bool:
        self.eof = True
        self.simple = False
        self.stop_listening()
        # Answers under way are still wanted: only the sending side was closed.
        return bool(self.queue) and not self.ended and self.upgrade is None

    def pause_writing(self) -> None:
        self.writable = False
        self.hold()

    def resume_writing(self) -> None:
        self.writable = True
        if self.queue and self.queue[0].streams:
            self.queue[0].advance()
        self.resume_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.transport = None
        self.stop_listening()
        self._forget_requests()
        self.server.forget(self)

    # -- requests

    def _incomplete(self) -> None:
        """A part of a request is there: its deadline runs from its first byte."""
        parser = self.parser
        phase = "body" if parser.in_body else "head" if parser.in_head else "idle"
        if phase != self._phase and not (phase == "head" and self._phase == "accepted"):
            self._phase = phase
            self._since = monotonic()
        self._count_receiving(parser.body_kept)
        if phase == "body":
            if self.server.receiving > self.server.receiving_limit:
                self._refuse(503, ActorOverloaded("Too many bodies are being received.", retry_after=1))
            elif parser.wants_continue:
                self.simple = False
                self.say_continue()

    def say_continue(self) -> None:
        """``100 Continue``, when it is the turn of the request that waits for it."""
        if (not self.queue or self.queue[0].wants_body) and not self.ended and self.parser.wants_continue:
            self.parser.continued()
            self.send(CONTINUE)
            self._simplify()

    def _begin(self, request: Request) -> None:
        method, target, head, body = request
        if self.server.draining:
            self.deaf = True  # it began to arrive before: it is the last one
        exchange: Exchange | None = None
        try:
            kind, type_, name, verb, timing = route(method, target)
            if self.access is not None and kind == CALL and (type_, verb) not in head.grant.calls:
                self.access.check(head, method, kind, type_, verb)
            if kind == CALL and (head.plain_call or head.keyed_call):
                link = self.table[slot_of(type_, name)]
                if link.shed.on and (refusal := link.shed.chosen(wire.CALL, (type_, name))) is not None:
                    if shed(self, refusal):
                        return
                    raise refusal.with_traceback(None)
                exchange = PlainExchange(self)
                exchange.link = link
                flags = wire.TIMING if timing else self.timing
                deadline = int((monotonic() + self.call_deadline) * 1000)
                if head.plain_call:
                    exchange.id = link.enter(exchange, wire.CALL, type_, name, verb, flags, deadline, body)
                else:
                    extras = {"key": head.idempotency_key}
                    exchange.id = link.enter(exchange, wire.CALLX, type_, name, verb, extras, flags, deadline, body)
                self.queue.append(exchange)
                return
            exchange = self._exchange(method, head, no_store=kind != DOOR)
            if self.access is not None and kind != CALL:
                front_door = self.server.router.front_door
                exchange.right = self.access.check(head, method, kind, type_, verb, front_door=front_door)
            requests.begin(self, exchange, request, kind, type_, name, verb, timing)
        except ActordError as error:
            self.server.refused[type(error).__name__] += 1
            exchange = exchange or self._exchange(method, head)
            exchange.link = None
            status, lines, document = problem(error)
            if isinstance(error, MethodNotAllowed):
                lines += b"Allow: POST\r\n" if target.startswith("/actors/") else b"Allow: GET, HEAD\r\n"
            self.queue.append(exchange)
            exchange.on_reply(status, document, lines)

    def _exchange(self, method: str, head: Head, *, no_store: bool = True) -> Exchange:
        close = not head.keep_alive
        if close:
            self.deaf = True  # the client said that this was its last request
        return StreamableExchange(
            self,
            close=close,
            head_only=method == "HEAD",
            keep_alive_10=head.http10 and not close,
            no_store=no_store,
            http10=head.http10,
        )

    def answer(self, exchange: Exchange, status: int, head: bytes, body: bytes) -> None:
        self.queue.append(exchange)
        exchange.on_reply(status, body, head)

    def _refuse(self, status: int, error: ActordError) -> None:
        """Answer in turn, then close; nothing that follows is looked at."""
        self.server.refused[type(error).__name__] += 1
        upload, self.upload = self.upload, None
        self.stop_listening()
        if upload is not None:
            upload.refuse(error, status)
            return
        status, head, body = problem(error, status)
        self.answer(Exchange(self, close=True), status, head, body)

    def stop_listening(self) -> None:
        """Whatever else arrives is thrown away, and so is what has arrived of a request that is not complete."""
        self.deaf = True
        self.parser.give_up()
        self._count_receiving(0)
        if self.upload is not None:
            self.upload.abandon()

    def recheck(self, access: Access) -> None:
        """The tokens have changed: what is not allowed any more ends here."""
        self.access = access
        if self.upgrade is not None:
            self.upgrade.recheck(access)
        elif self.upload is not None and not access.holds(self.upload.right):
            self._refuse(Unauthorized.status, access.ended())
        elif any(exchange.streams and not access.holds(exchange.right) for exchange in self.queue):
            self.abort()

    # -- answers

    def answered(self) -> None:
        """An exchange of the queue has got its answer: send what is due, several at once when they come together."""
        queue = self.queue
        if len(queue) > 1:
            if not self._flush_due and queue[0].answer is not None:
                self._flush_due = True
                self.server.loop.call_soon(self._flush)
        elif queue:
            self._flush()

    def _flush(self) -> None:
        self._flush_due = False
        queue = self.queue
        answers = []
        close = False
        while queue and not close:
            exchange = queue[0]
            if exchange.answer is None:
                break
            answers.append(exchange.answer)
            close = exchange.close
            queue.popleft()
        if self.ended:
            return
        if answers:
            self.send(answers[0] if len(answers) == 1 else b"".join(answers))
        if self.upgrade is not None and self.upgrade.switched and not queue:
            self.upgrade.take_over(self._held)
            return
        if close or (not queue and (self.eof or (self.server.draining and not self._receives()))):
            self._end()
        elif self._held:
            self.resume_soon()
        else:
            self.say_continue()
        if queue and queue[0].streams:
            queue[0].advance()

    def send(self, data: bytes) -> None:
        self._written += len(data)
        self.sent += len(data)
        self.write(data)

    # -- backpressure

    def hold(self) -> None:
        self.simple = False
        if not self._held and self.transport is not None and not self.ended:
            self._held = True
            self.transport.pause_reading()

    def _may_read(self) -> bool:
        return self.writable and len(self.queue) < self._pipeline and (self.upload is None or self.upload.has_room)

    def resume_soon(self) -> None:
        if self._held and self._may_read():
            self.server.loop.call_soon(self._resume)

    def _resume(self) -> None:
        if not self._held or not self._may_read() or self.ended:
            return
        self._held = False
        assert self.transport is not None
        self.transport.resume_reading()
        self._simplify()
        if not self.deaf:
            self.data_received(b"")

    def _simplify(self) -> None:
        self.simple = not (self._held or self.eof or self._unsent or self.parser.wants_continue)

    # -- the end

    def _end(self) -> None:
        """No more answers. Our side is closed; the client has a moment to read them and to close its own, because
        closing with bytes unread would make the kernel throw away what it has not fetched yet."""
        if self.ended or self.transport is None:
            return
        self.ended = self.deaf = True
        self._phase = "lingering"
        self._since = monotonic()
        self._forget_requests()
        if self.eof or not self.transport.can_write_eof():  # TLS ends both ways, and waits for the client's word
            self.transport.close()
            return
        self.transport.write_eof()
        if self._held:
            self._held = False
            self.transport.resume_reading()

    def abort(self) -> None:
        self.deaf = self.ended = True
        self._forget_requests()
        if self.transport is not None:
            self.transport.abort()

    def _forget_requests(self) -> None:
        while self.queue:
            self.queue.popleft().forget()

    def _receives(self) -> bool:
        return self.parser.in_head or self.parser.in_body

    def _count_receiving(self, size: int) -> None:
        self.server.receiving += size - self._receiving
        self._receiving = size

    def drain(self) -> None:
        """Finish what is under way, and a request that has begun to arrive; then close. An idle one closes now.

        One that has only just come may have its first request on the way: it is given a moment.
        """
        if self._receives() or (self._phase == "accepted" and monotonic() - self._since < FRESH_SECONDS):
            return
        self.deaf = True
        if not self.queue and not self.ended and self.transport is not None:
            self.ended = True
            self.transport.close()

    # -- deadlines

    def sweep(self, now: float) -> None:
        """Called once a second with the monotonic time."""
        transport = self.transport
        if transport is None:
            return
        http = self._http
        size = transport.get_write_buffer_size()
        if size:
            self._sweep_unsent(size, now)
            return
        if self._unsent:
            self._unsent = 0
            self._simplify()
        if self.queue and self.queue[0].streams:
            self.queue[0].sweep(now)
        if self._active and self._phase == "idle":
            self._since = now
        self._active = False
        waited = now - self._since
        if self._phase == "lingering":
            if waited > LINGER_SECONDS:
                self.abort()
        elif self._held or self.deaf:
            self._since = now
        elif self._phase in ("accepted", "head"):
            fresh = self._phase == "accepted" and not self.parser.in_head
            if waited > (FRESH_SECONDS if fresh and self.server.draining else http.head_timeout):
                if self._phase == "head" or self.parser.in_head:
                    self._late("The head of the request did not arrive in time.")
                else:
                    self.abort()
        elif self._phase == "body":
            if http.body_rate and waited > http.head_timeout + self.parser.body_received / http.body_rate:
                self._late("The body of the request arrived too slowly.")
        elif self.queue:
            self._since = now
        elif waited > http.keep_alive:
            self._end()

    def _late(self, detail: str) -> None:
        self._refuse(408, BadRequest(detail))

    def _sweep_unsent(self, size: int, now: float) -> None:
        """Bytes wait for a client that does not read: it may be slow, but not stand still."""
        if not self._unsent or size < self._unsent + self._written:
            self._since = now
        elif now - self._since > self._http.write_stall:
            self.abort()
            return
        self._unsent = size
        self._written = 0
        self.simple = False
