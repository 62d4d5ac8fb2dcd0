"""What a locust user needs to speak to actors: calls, sockets, and statistics that stay readable.

Promises:
1. Statistics are grouped by type and method (``Account.debit``), failures by status and error (``503
   ActorOverloaded``). No name of an actor is ever in them, so a run over a million names makes a table of a few lines.
2. A call is a failure unless it was answered with a status below 400, or with an ``ActorError`` whose code the scenario
   expects: a cart that is full is a normal outcome of a shop.
3. Nothing is tried again: what locust counts is what the server was asked.

    from actord.loadtest.swarm.actors import ActorUser
    from locust import task

    class Customer(ActorUser):
        @task
        def buy(self):
            self.actor("Cart", "ann", expect=("too_many",)).call("add", item="book")
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import quote

import gevent
from locust import FastHttpUser
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

JSON = {"Content-Type": "application/json"}


class Reply(NamedTuple):
    """The answer to a call.

    ``status`` is 0 when there was none. ``value``: the method's result, or None. ``code``: that of an ``ActorError``.
    ``applied``: whether the call's writes were kept: ``yes``, ``no`` or ``unknown``.
    """

    status: int
    value: Any = None
    code: str = ""
    applied: str = "unknown"

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 400


class ActorUser(FastHttpUser):
    """A user with connections of its own. Subclass it, and give it tasks."""

    abstract = True

    def actor(
        self, type_: str, name: str, *, expect: Collection[str] = (), timeout: float | None = None, keyed: bool = False
    ) -> Actor:
        """The actor of a type and name. Costs nothing.

        ``expect``: codes of ``ActorError`` that are no failures. ``timeout``: the deadline of its calls, in seconds.
        ``keyed``: each call has an idempotency key of its own.
        """
        return Actor(self, type_, name, expect, timeout, keyed)

    def wait_time(self) -> float:
        """Seconds between two tasks: ``--think``. Override it as in any other locust user."""
        return float(getattr(self.environment.parsed_options, "think", 0.0))

    @contextmanager
    def timed(self, kind: str, name: str) -> Iterator[None]:
        """Count what is done within as one request of that kind and name. An exception fails it, and goes on."""
        began, clock = time.time(), time.perf_counter()
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
            raise
        finally:
            self.environment.events.request.fire(
                request_type=kind,
                name=name,
                response_time=(time.perf_counter() - clock) * 1000,
                response_length=0,
                exception=failure,
                context={},
                start_time=began,
            )


class Actor:
    """One actor, as a user calls it."""

    __slots__ = ("_expect", "_keyed", "_path", "_timeout", "_type", "_user")

    def __init__(
        self, user: ActorUser, type_: str, name: str, expect: Collection[str], timeout: float | None, keyed: bool
    ) -> None:
        self._user = user
        self._type = type_
        self._path = f"/actors/{quote(type_, safe='')}/{quote(name, safe='')}"
        self._expect = expect
        self._timeout = timeout
        self._keyed = keyed

    def call(self, method: str, *args: Any, **kwargs: Any) -> Reply:
        """Call a method with arguments of JSON, by position or by name. Raises TypeError when both are given."""
        if args and kwargs:
            raise TypeError("a call over JSON has arguments by position or by name, not both")
        headers = dict(JSON)
        if self._timeout is not None:
            headers["Actord-Timeout"] = str(self._timeout)
        if self._keyed:
            headers["Idempotency-Key"] = secrets.token_hex(16)
        body = json.dumps(list(args) or kwargs)
        where, label = f"{self._path}/{method}", f"{self._type}.{method}"
        with self._user.client.request(
            "POST", where, name=label, data=body, headers=headers, catch_response=True
        ) as response:
            if response.status_code == 0:
                response.failure(f"no answer: {type(response.error).__name__}")
                return Reply(0)
            reply = read(response.status_code, response.content or b"")
            if reply.ok or (reply.code and reply.code in self._expect):
                response.success()
            else:
                response.failure(f"{reply.status} {reply.code or reply.value}")
            return reply

    def socket(self, on_message: Callable[[str | bytes], None], *, query: str = "") -> ActorSocket:
        """Open a socket to the actor; ``on_message`` is told each message, in a greenlet of its own.

        Counted as ``WS Type.connect``. Raises ConnectionError when it fails.
        """
        host = str(self._user.host).replace("http", "ws", 1)
        with self._user.timed("WS", f"{self._type}.connect"):
            try:
                connection = connect(f"{host}{self._path}{query}", max_queue=None, ping_interval=None)
            except Exception as error:  # its words have the address, and with it the actor's name
                raise ConnectionError(type(error).__name__) from None
        return ActorSocket(connection, on_message)


class ActorSocket:
    """An open socket. ``closed`` tells why it has ended, and is empty while it is open."""

    def __init__(self, connection: ClientConnection, on_message: Callable[[str | bytes], None]) -> None:
        self._connection = connection
        self._on_message = on_message
        self.closed = ""
        self._reader = gevent.spawn(self._read)

    def send(self, message: str | bytes) -> None:
        """Send a message. Raises ``ConnectionClosed`` when the socket has ended."""
        self._connection.send(message)

    def close(self) -> None:
        self._connection.close()
        self._reader.join(timeout=5)

    def _read(self) -> None:
        with suppress(ConnectionClosed):
            for message in self._connection:
                self._on_message(message)
        self.closed = f"{self._connection.close_code} {self._connection.close_reason or ''}".strip()


def read(status: int, body: bytes) -> Reply:
    """An answer as it came. What a problem document says about ``applied`` is taken over; nothing said is unknown."""
    try:
        value = json.loads(body) if body else None
    except ValueError:
        value = None
    if status < 400:
        return Reply(status, value, applied="yes")
    problem = value if isinstance(value, dict) else {}
    code = problem.get("code") or problem.get("name") or ""
    return Reply(status, code=str(code), applied=str(problem.get("applied", "unknown")))
