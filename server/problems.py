"""Errors of the front itself as problem documents, and the framing of every answer.

The worker has built body and status of its answers; here they get Date, Content-Length and what protects browsers.
"""

from __future__ import annotations

import math
from email.utils import formatdate
from http import HTTPStatus
from time import time

import orjson
from actord.errors import ActordError, Unauthorized

_STATUS = {status.value: b"%d %s" % (status.value, status.phrase.encode()) for status in HTTPStatus}
_TITLES = {status.value: status.phrase for status in HTTPStatus}

NOSNIFF = b"X-Content-Type-Options: nosniff\r\n"
NO_STORE = b"Cache-Control: no-store\r\n"
CLOSE = b"Connection: close\r\n"
KEEP_ALIVE = b"Connection: keep-alive\r\n"
JSON_HEAD = b"Content-Type: application/json\r\n"
PROBLEM_HEAD = b"Content-Type: application/problem+json\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Framer:
    """Frames answers. ``tick`` renews the date and has to be called about once a second."""

    __slots__ = ("_ready_made", "date", "plain")

    def __init__(self) -> None:
        self.plain: dict[int, bytes] = {}
        self._ready_made: dict[ActordError, bytes] = {}
        self.tick()

    def tick(self) -> None:
        self.date = b"Date: " + formatdate(time(), usegmt=True).encode() + b"\r\n"
        self.plain.clear()
        self._ready_made.clear()

    def plain_prefix(self, status: int) -> bytes:
        """Everything before the length of a JSON answer of an actor, kept in ``plain`` until the next tick."""
        kind = b"application/problem+json" if status >= 400 else b"application/json"
        prefix = b"".join(
            (
                self._status_line(status),
                self.date,
                b"Content-Type: ",
                kind,
                b"\r\n",
                NOSNIFF,
                NO_STORE,
                b"Content-Length: ",
            )
        )
        self.plain[status] = prefix
        return prefix

    def shed(self, error: ActordError) -> bytes:
        """The whole answer to a call that a front refuses for its worker, kept until the next tick."""
        answer = self._ready_made.get(error)
        if answer is None:
            status, head, body = problem(error)
            answer = self._ready_made[error] = self.frame(status, head, body, no_store=True)
        return answer

    def frame(
        self,
        status: int,
        head: bytes | None,
        body: bytes,
        *,
        no_store: bool = False,
        without_body: bool = False,
        connection: bytes = b"",
    ) -> bytes:
        """A whole answer. ``head``: header lines, or None for JSON. ``without_body``: the answer to a HEAD."""
        if head is None:
            head = PROBLEM_HEAD if status >= 400 else JSON_HEAD
            no_store = True
        parts = [self.stream_head(status, head, no_store=no_store, framing=connection)[:-2]]
        if status == 204 or status == 304:
            without_body = True
        else:
            parts.append(b"Content-Length: %d\r\n" % len(body))
        parts.append(b"\r\n")
        if not without_body:
            parts.append(body)
        return b"".join(parts)

    def stream_head(self, status: int, head: bytes, *, no_store: bool, framing: bytes) -> bytes:
        """A whole head. ``framing``: the lines that say how the message and the connection end."""
        names = b"\r\n" + head.lower()
        parts = [self._status_line(status), self.date, head]
        if b"\r\nx-content-type-options:" not in names:
            parts.append(NOSNIFF)
        if no_store and b"\r\ncache-control:" not in names:
            parts.append(NO_STORE)
        parts.append(framing)
        parts.append(b"\r\n")
        return b"".join(parts)

    def _status_line(self, status: int) -> bytes:
        return b"HTTP/1.1 " + (_STATUS.get(status) or b"%d " % status) + b"\r\n"


def problem(error: ActordError, status: int | None = None) -> tuple[int, bytes, bytes]:
    """Status, head and body of an error. ``status`` overrides that of the error's class."""
    document = error.to_problem()
    if status is not None and status != document["status"]:
        document["status"] = status
        document["title"] = _TITLES.get(status, document["title"])
    head = PROBLEM_HEAD + NO_STORE
    if error.retry_after is not None:
        head += b"Retry-After: %d\r\n" % max(1, math.ceil(error.retry_after))
    if isinstance(error, Unauthorized):
        head += b"WWW-Authenticate: %b\r\n" % error.challenge.encode()
    return document["status"], head, orjson.dumps(document)
