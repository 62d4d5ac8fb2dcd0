"""What both clients have in common: how they are set up, and what they send."""

from __future__ import annotations

import secrets
from collections.abc import Coroutine, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from actord.client_address import address, authorization
from actord.client_calls import (
    CALL_TYPE,
    REPEATABLE,
    Answer,
    LogicalCall,
    NoAnswer,
    read_fetch,
    read_response,
    read_result,
)
from actord.client_direct import MAP_PATH, Result, answer_of, too_late
from actord.client_stubs import Target
from actord.http import FRAMING_HEADERS, Headers, Request

if TYPE_CHECKING:
    from actord.actor import StatefulActor

TIMEOUT_SECONDS = 60.0
RETRIES = 8
CONNECTIONS = 100
MAP_SECONDS = 2.0


class ClientBase:
    """See ``client.Client`` and ``client.AsyncClient``."""

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        idempotent: bool = True,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        connections: int = CONNECTIONS,
        direct: bool = False,
    ) -> None:
        """``url``: ``http://HOST:PORT`` or ``unix:PATH``; by default ``ACTORD_URL``, or http://127.0.0.1:8000.

        ``timeout``: seconds that a call may take, all attempts together. ``retries``: how often it may be tried again.
        ``idempotent``: send a key with each call, so that one whose outcome is unknown can be tried again.
        ``token``: the access token; by default ``ACTORD_TOKEN``, if that is set and ``headers`` have no Authorization.
        ``headers``: sent with every request. ``connections``: how many there may be at a time.
        ``direct``: call methods at the workers themselves where the server allows it (``server.direct``) and runs on
        this machine as this user; whatever can't go there goes through the front. Results and errors are the same.
        Raises ``ValueError`` for what can't be one of these. Connections are made when they are needed.
        """
        self._address = address(url)
        self.url = self._address.url
        self._timeout = seconds_of(timeout)
        if retries < 0 or connections < 1:
            raise ValueError("retries must be 0 or more, connections 1 or more")
        self._retries = retries
        self._idempotent = idempotent
        self._headers = dict(Headers(headers).multi_items())  # checked
        self._headers |= authorization(token, self._headers)
        self._call_headers = {**self._headers, "Content-Type": CALL_TYPE}
        try:
            self._open(connections, direct)
        except ModuleNotFoundError as error:
            raise ImportError(f"the client needs {error.name}: pip install 'actord[client]'") from error

    def _open(self, connections: int, direct: bool) -> None:
        """Set the transport, and the way to workers. Libraries are imported here: a process loads what it uses."""
        raise NotImplementedError

    def _target(
        self,
        type_: str | type[StatefulActor],
        name: str,
        timeout: float | None,
        key: str | None,
        idempotent: bool | None,
    ) -> Target:
        return Target(
            type_,
            name,
            self._timeout if timeout is None else seconds_of(timeout),
            key,
            self._idempotent if idempotent is None else idempotent,
        )

    def _method_call(self, target: Target, method: str, key: str | None, body: bytes, timeout: float) -> LogicalCall:
        headers = self._call_headers
        if key is not None:
            headers = {**headers, "Idempotency-Key": key_line(key)}
        return LogicalCall(
            "POST",
            f"{target.path}/{quote(method, safe='')}",
            headers,
            body,
            read_result,
            repeatable=key is not None,
            timeout=timeout,
            retries=self._retries,
        )

    def _after_direct(
        self, target: Target, method: str, key: str | None, body: bytes, deadline: float, outcome: Result | NoAnswer
    ) -> LogicalCall:
        """What is left of a call whose first attempt at a worker brought no result. Raises what it has failed with."""
        left = deadline - monotonic()
        if isinstance(outcome, NoAnswer) and not outcome.sent:
            if left <= 0:
                raise too_late()
            return self._method_call(target, method, key, body, left)
        call = self._method_call(target, method, key, body, max(0.001, left))
        call.tries = 1
        if isinstance(outcome, NoAnswer):
            call.failed(outcome)
            call.wait = 0.0  # the front knows when the worker is back
        else:
            call.answered(answer_of(outcome))
        return call

    def _map_call(self) -> LogicalCall:
        """Asks for the map; it is answered by whatever comes."""
        return LogicalCall(
            "GET",
            MAP_PATH,
            self._headers,
            None,
            lambda answer: answer,
            repeatable=False,
            timeout=MAP_SECONDS,
            retries=0,
        )

    def _request_call(self, request: Request, body: bytes, target: Target | None, timeout: float) -> LogicalCall:
        if not request.url.startswith("/"):
            raise ValueError(f"the target of a request begins with /, not {request.url!r}")
        headers = {**self._headers}
        for name, value in request.headers.multi_items():
            if name.lower() not in FRAMING_HEADERS and name.lower() != "host":
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return LogicalCall(
            request.method,
            request.url if target is None else f"{target.path}/fetch{request.url}",
            headers,
            body or (b"" if request.method in ("POST", "PUT", "PATCH") else None),
            read_response if target is None else read_fetch,
            repeatable=request.method in REPEATABLE,
            timeout=timeout,
            retries=self._retries,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.url}>"


def _as_it_is(answer: Answer) -> Answer:
    return answer


def key_of(target: Target) -> str | None:
    """The key of one call, made here if the caller gave none."""
    return (target.key or secrets.token_hex(16)) if target.idempotent else None


def key_line(key: str) -> str:
    """A key as the header has it: in quotes where it would be read as something else without them."""
    if key[0] in ' "' or key[-1] == " ":
        return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return key


def as_request(request: Request | str) -> Request:
    return Request("GET", request) if isinstance(request, str) else request


def at_once(body: Coroutine[Any, Any, bytes]) -> bytes:
    """The body of a request that a program made itself: there is nothing to wait for."""
    try:
        body.send(None)
    except StopIteration as stop:
        whole: bytes = stop.value
        return whole
    body.close()
    raise TypeError("the body of the request is still being received: use AsyncClient, or pass on bytes")


def seconds_of(timeout: float) -> float:
    if not 0 < timeout < 1e9:
        raise ValueError(f"a timeout is a number of seconds above 0, not {timeout!r}")
    return float(timeout)
