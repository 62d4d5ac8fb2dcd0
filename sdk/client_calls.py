"""One logical call of the client, without I/O: what to send, what an answer means, whether and when to try again.

Promises:

1. Each attempt of a call sends the same bytes with the same key, and no other call sends a key that was made here.
2. What may have been applied is sent again only under its key. Without one it is sent again only when it is certain
   that nothing was applied: no connection was made, or the server said so.
3. Of an error ``applied`` is "no" only when that holds for all attempts together.
4. No attempt begins after the deadline, and no wait goes beyond it.

A server that is killed answers nothing: the attempt ends as ``NoAnswer``, and the next ones go to its successor until
the deadline. There the key decides what is done: the stored reply, or the call, once.
"""

from __future__ import annotations

import logging
import random
import socket
import struct
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, NamedTuple

from actord import codec
from actord.errors import ActordError, ActorUnavailable, from_problem
from actord.http import Headers, Response

CALL_TYPE = "application/vnd.actord.call"
PROBLEM_TYPE = "application/problem+json"
REPLY_TYPE = "application/msgpack"
REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})  # RFC 9110: idempotent

# The first wait before another attempt, and the longest one; they double in between, and each is shortened by up to
# a half, so that many clients do not come back at once.
BACKOFF_SECONDS = 0.1
BACKOFF_SECONDS_MAX = 2.0
# The server ends a call at its deadline and says what became of it. So long its answer may take to arrive.
GRACE_SECONDS = 1.0

# Closing a connection resets it. A plain close looks to the server like the end of what the client sends, and it would
# go on with a call that nobody waits for.
ABANDON = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

_log = logging.getLogger("actord.client")


class Answer(NamedTuple):
    """What came back. ``headers`` compares names without regard to case; ``pairs`` gives all of them, in order."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    pairs: Callable[[], list[tuple[str, str]]]


class NoAnswer(Exception):
    """An attempt without an answer. ``sent``: whether any of it may have reached the server."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


class Attempt(NamedTuple):
    """What to send, and for how many seconds the answer is waited for."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None
    seconds: float


class LogicalCall:
    """The attempts of one call. The driver sends ``attempt()`` and hands over what came back, to ``answered`` or to
    ``failed``; both raise when the call has failed for good. After that ``done`` tells whether ``value`` is there; if
    not, the driver waits ``wait`` seconds and begins again."""

    __slots__ = (
        "_body",
        "_deadline",
        "_headers",
        "_method",
        "_read",
        "_repeatable",
        "_target",
        "_timeout",
        "_tries_left",
        "_unknown",
        "done",
        "tries",
        "value",
        "wait",
    )

    def __init__(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | None,
        read: Callable[[Answer], Any],
        *,
        repeatable: bool,
        timeout: float,
        retries: int,
    ) -> None:
        """``repeatable``: sent twice it takes effect once, since it has a key or its verb says so."""
        self._method = method
        self._target = target
        self._headers = headers
        self._body = body
        self._read = read
        self._repeatable = repeatable
        self._timeout = timeout
        self._deadline = monotonic() + timeout
        self._tries_left = retries
        self._unknown = False  # an attempt may have been applied, as far as we know
        self.tries = 0
        self.done = False
        self.value: Any = None
        self.wait = 0.0

    def attempt(self) -> Attempt:
        """The next attempt."""
        left = self._timeout if not self.tries else max(0.001, self._deadline - monotonic())
        self.tries += 1
        # The first one says the time-out as it was given: the server remembers a header that it has read before.
        headers = {**self._headers, "Actord-Timeout": f"{left:.3f}"}
        return Attempt(self._method, self._target, headers, self._body, left)

    def answered(self, answer: Answer) -> None:
        try:
            self.value = self._read(answer)
        except ActordError as error:
            self._again_or_raise(error)
        else:
            self.done = True

    def failed(self, failure: NoAnswer) -> None:
        if failure.sent:
            error = ActorUnavailable(f"No answer came: {failure.reason}.", applied="unknown")
        else:
            error = ActorUnavailable(f"The server can't be reached: {failure.reason}.")
        self._again_or_raise(error)

    def _again_or_raise(self, error: ActordError) -> None:
        certain = error.applied == "no"
        if not certain:
            self._unknown = True
        if error.retryable and error.http_status == 503 and (certain or self._repeatable) and self._tries_left > 0:
            backoff = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS * 2 ** min(self.tries - 1, 16))
            wait = (error.retry_after or 0.0) + backoff * random.uniform(0.5, 1.0)
            if monotonic() + wait < self._deadline:
                self._tries_left -= 1
                self.wait = wait
                _log.debug("%s %s: again in %.3f s: %s", self._method, self._target, wait, error.detail)
                return
        if self._unknown and error.applied == "no" and error.http_status == 503:
            error.applied = "unknown"  # an earlier attempt may have been; other answers are those to the key
        raise error


# -- what an answer means


def read_result(answer: Answer) -> Any:
    """The result of a method. Its errors, and those of the server, are raised as their classes."""
    if answer.headers.get("Content-Type") == REPLY_TYPE:
        try:
            value = codec.decode(answer.body)
        except ActordError as error:
            applied = "yes" if answer.status < 400 else "unknown"
            raise ActordError(f"The answer can't be read: {error.detail}", applied=applied) from None  # type: ignore[arg-type]
        if answer.status < 400:
            return value
        if isinstance(value, dict):
            raise from_problem(value)
    raise problem_of(answer) or _foreign(answer)


def read_fetch(answer: Answer) -> Response:
    """The response of an actor's own ``fetch``, whatever its status. Errors of the runtime are raised."""
    if answer.status >= 400:
        error = problem_of(answer)
        if error is not None:
            raise error
    return read_response(answer)


def read_response(answer: Answer) -> Response:
    """The answer as it is."""
    response = Response(answer.body, answer.status)
    response.headers = Headers.received(answer.pairs())
    return response


def problem_of(answer: Answer) -> ActordError | None:
    """The error that the server describes in its problem document, or None when this is no such document."""
    from actord.errors import PROBLEM_TYPE_PREFIX
    from actord.json import loads

    if not answer.headers.get("Content-Type", "").startswith(PROBLEM_TYPE):
        return None
    try:
        problem = loads(answer.body)
        if str(problem["type"]).startswith(PROBLEM_TYPE_PREFIX):
            return from_problem(problem)
    except (ActordError, LookupError, TypeError, ValueError):
        pass
    return None


def _foreign(answer: Answer) -> ActordError:
    """The error for an answer that is not the server's: something between here and there answered."""
    text = answer.body[:200].decode(errors="replace").strip()
    detail = f"The answer has status {answer.status} and is not one of actord's" + (f": {text}" if text else ".")
    if answer.status in (502, 503, 504):
        after = answer.headers.get("Retry-After", "")
        return ActorUnavailable(detail, applied="unknown", retry_after=int(after) if after.isdecimal() else None)
    return ActordError(detail, applied="unknown")
