"""A request to the front door whose body is passed on as it comes.

1. The head goes to a worker as soon as it is complete; the body when the program begins to read it, and as fast as it
   reads: nothing is sent that was not granted, and reading from the client pauses while more than a piece waits here.
   ``100 Continue`` is sent when the program begins to read.
2. A body that came with its head, or that announces less than ``WHOLE_BYTES``, goes with the head, as one frame.
3. The limits of bodies hold on the way: ``http.upload_bytes`` (or ``http.body_bytes``) and ``http.body_rate``.
4. Whoever answers before the body has come ends the connection with the answer: what still comes is no request.
5. A client that ends in the middle of its body, or breaks a rule, takes its request back: the worker cancels it.
   A worker that dies: the request was granted room, so it had begun, and is not sent again.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from actord.errors import ActordError, BadRequest
from actord.limits import KIB, STREAM_FRAME_BYTES, STREAM_PIECE_BYTES
from actord.server.forwarded import described
from actord.server.heads import Head, Refused
from actord.server.problems import problem
from actord.server.routes import CALL, DOOR, route
from actord.server.streams import StreamableExchange
from actord.shards import wire

if TYPE_CHECKING:
    from actord.server.connection import Connection
    from actord.server.http import RequestParser

WHOLE_BYTES = 16 * KIB


class UploadExchange(StreamableExchange):
    """See the contract above. The body comes through ``take``."""

    __slots__ = ("_complete", "_parser", "_parts", "_patience", "_sent", "_size", "_window", "wants_body")

    def __init__(self, connection: Connection, parser: RequestParser, head: Head, head_only: bool) -> None:
        close = not head.keep_alive
        super().__init__(
            connection,
            close=close,
            head_only=head_only,
            keep_alive_10=head.http10 and not close,
            no_store=False,
            http10=head.http10,
        )
        self._parser = parser
        self._parts: deque[bytes] = deque()
        self._size = 0  # bytes that wait here
        self._window = 0
        self._patience = 0.0  # seconds; the deadline moves on with the body
        self._complete = False  # all of the body is here
        self._sent = False  # the worker has got its end
        self.wants_body = False

    def open(self, method: str, target: str, head: Head) -> None:
        """Give the head to a worker. Raises ``ActordError``."""
        connection = self.connection
        http = connection.server.settings.http
        self._patience = http.call_deadline if head.deadline is None else head.deadline
        fields = described(connection, "GET" if method == "HEAD" else method, target, head)
        flags = wire.BODY_FOLLOWS | (wire.TIMING if http.server_timing or _asks_timing(target) else 0)
        link = connection.server.router.door()
        self.id = link.submit(self, wire.DOOR, fields, flags, self._deadline(), b"")
        self.link = link

    def _deadline(self) -> int:
        return int((monotonic() + self._patience) * 1000)

    # -- the client's side

    @property
    def has_room(self) -> bool:
        return self._size < STREAM_PIECE_BYTES

    def take(self, part: bytes, last: bool) -> None:
        """A part of the body; ``last`` completes it."""
        connection = self.connection
        if part:
            self._parts.append(part)
            self._size += len(part)
        if last:
            self._complete = True
            connection.upload = None
            if self.close or connection.server.draining:
                connection.deaf = True
                self._parser.give_up()
        self._push()
        if not last and not self.has_room:
            connection.hold()

    def refuse(self, error: ActordError, status: int | None = None) -> None:
        """The body will never be complete."""
        if self.link is not None:
            self.link.cancel(self.id)
            self.link = None
        if self.streams:
            self.cut()
            return
        code, head, body = problem(error, status)
        self.close = True
        self.on_reply(code, body, head)

    def abandon(self) -> None:
        """The client has stopped sending in the middle of it."""
        self.connection.upload = None
        self.refuse(BadRequest("The body of the request ended early."))

    # -- the worker's side

    def on_room(self, size: int) -> None:
        """The program reads: so much more may be sent."""
        self._window += size
        self.wants_body = True
        self._push()
        self.connection.say_continue()
        self.connection.resume_soon()

    def _push(self) -> None:
        link = self.link
        if link is None or not self.wants_body or self._sent:
            return
        parts = self._parts
        while parts and self._window > 0:
            part = parts.popleft()
            self._size -= len(part)
            self._window -= len(part) + STREAM_FRAME_BYTES
            self._sent = self._complete and not parts
            link.send_body(self.id, part, self._sent)
        if self._complete and not parts and not self._sent:
            self._sent = True
            link.send_body(self.id, b"", True)
        if len(self.frame) > 2:  # it is not answered yet: each part of the body is a sign of life
            self.frame = (*self.frame[:-2], self._deadline(), self.frame[-1])

    def on_reply(self, status: int, body: bytes, head: bytes | None) -> None:
        self._end_body()
        super().on_reply(status, body, head)

    def finished(self) -> None:
        self._end_body()

    def _end_body(self) -> None:
        """The answer is there: nobody takes what is missing of the body."""
        if self.connection.upload is self:
            self.connection.upload = None
            self.close = True
            self.connection.stop_listening()
        self.wants_body = False


def begin(connection: Connection, parser: RequestParser, method: str, target: str, head: Head) -> None:
    """A body has begun that did not come with its head: pass it on as it comes, if it is the front door's.

    Raises ``Refused`` for one that is too large for where it goes, and for one that its token does not allow.
    """
    http = connection.server.settings.http
    right = None
    try:
        kind, type_, _, verb, _ = route(method, target)
        if connection.access is not None:
            front_door = connection.server.router.front_door
            right = connection.access.check(head, method, kind, type_, verb, front_door=front_door)
    except ActordError as error:
        if connection.access is not None:  # nobody's body is taken who has no token
            raise Refused(error.http_status, error.detail, error) from None
        kind = CALL  # refused when it is complete
    streams = kind == DOOR and not connection.monitor and target != "*" and not head.websocket and head.deadline_ok
    if not streams or not connection.server.router.front_door:
        if head.length > http.body_bytes:
            raise Refused(413, f"The body may have {http.body_bytes} bytes at most.")
        return
    if not head.chunked and not head.expect_continue and head.length <= min(WHOLE_BYTES, http.body_bytes):
        return
    exchange = UploadExchange(connection, parser, head, method == "HEAD")
    exchange.right = right
    connection.upload = exchange
    connection.queue.append(exchange)
    parser.stream(exchange.take, max(http.body_bytes, http.upload_bytes))
    try:
        exchange.open(method, target, head)
    except ActordError as error:
        exchange.refuse(error)


def _asks_timing(target: str) -> bool:
    return bool(route("GET", target)[4])
