"""One request and its answer, as the link and the connection see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actord.errors import ActordError, ActorUnavailable
from actord.server.problems import CLOSE, KEEP_ALIVE, problem
from actord.shards.link import Link, Waiter

if TYPE_CHECKING:
    from actord.server.access import Right
    from actord.server.connection import Connection


class Exchange(Waiter):
    """A request under way. ``answer`` is None until it is known; answers leave in the order of the requests."""

    streams = False  # a stream that has begun and not ended
    wants_body = False  # the program reads a body that has not come yet

    __slots__ = ("answer", "close", "connection", "head_only", "id", "keep_alive_10", "link", "no_store", "right")

    def __init__(
        self,
        connection: Connection,
        *,
        close: bool = False,
        head_only: bool = False,
        keep_alive_10: bool = False,
        no_store: bool = True,
    ) -> None:
        self.connection = connection
        self.answer: bytes | None = None
        self.link: Link | None = None  # set while a worker has the call
        self.id = 0
        self.close = close  # the connection ends with this answer
        self.head_only = head_only
        self.keep_alive_10 = keep_alive_10
        self.no_store = no_store
        self.right: Right | None = None  # by which it was allowed, while tokens are asked for

    def advance(self) -> None:
        """Of a stream: write what may be written now."""

    def sweep(self, now: float) -> None:
        """Of a stream, once a second: give it up if nobody should wait for it."""

    def on_reply(self, status: int, body: bytes, head: bytes | None) -> None:
        self.link = None
        connection = self.connection
        if connection.server.draining and (not connection.queue or connection.queue[-1] is self):
            self.close = True
        self.answer = connection.server.framer.frame(
            status,
            head,
            body,
            no_store=self.no_store,
            without_body=self.head_only,
            connection=CLOSE if self.close else KEEP_ALIVE if self.keep_alive_10 else b"",
        )
        connection.answered()

    def forget(self) -> None:
        """The connection has gone: a call that has not begun is not made."""
        if self.link is not None and self.answer is None:
            self.link.cancel(self.id)

    def on_lost(self, begun: bool) -> None:
        error = (
            ActorUnavailable("The worker was lost while the call ran.", applied="unknown")
            if begun
            else ActorUnavailable("The worker could not take the call in time.", retry_after=1)
        )
        status, head, body = problem(error)
        self.on_reply(status, body, head)


class PlainExchange(Exchange):
    """A call over HTTP/1.1 on a connection that is kept: the hot path."""

    __slots__ = ()

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.answer = None
        self.close = False
        self.head_only = False
        self.keep_alive_10 = False
        self.no_store = True

    def on_reply(self, status: int, body: bytes, head: bytes | None) -> None:
        connection = self.connection
        prefix = connection.plain.get(status)
        if head is not None or prefix is None:
            self._on_other_reply(status, body, head)
            return
        answer = b"%b%d\r\n\r\n%b" % (prefix, len(body), body)
        if connection.simple:
            queue = connection.queue
            if len(queue) == 1:
                queue.clear()
                connection.sent += len(answer)
                connection.write(answer)
                return
        self.link = None
        self.answer = answer
        connection.answered()

    def _on_other_reply(self, status: int, body: bytes, head: bytes | None) -> None:
        server = self.connection.server
        if head is None and not server.draining:
            server.framer.plain_prefix(status)
            self.on_reply(status, body, head)
        else:
            super().on_reply(status, body, head)


def shed(connection: Connection, error: ActordError) -> bool:
    """Refuse a plain call at once, as its worker asked for: often, and always in the same words.

    False, and nothing is written, where an answer has to wait for others, or the connection ends with it.
    """
    if not connection.simple or connection.queue or connection.deaf:
        return False
    server = connection.server
    server.refused[type(error).__name__] += 1
    connection.send(server.framer.shed(error))
    return True
