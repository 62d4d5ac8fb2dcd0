"""The client: actors of a running server, called from any Python program.

    with Client() as client:
        client.actor("Account", "alice").debit(30)

    async with AsyncClient() as client:
        await client.actor(Account, "alice").debit(30)

It needs the extra ``actord[client]``, and loads nothing of the server. What a call promises: ``client_calls``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, overload

from actord import codec
from actord.client_base import ClientBase, as_request, at_once, key_of, seconds_of
from actord.client_calls import LogicalCall, NoAnswer
from actord.client_stubs import ActorStub, AsyncActorStub, Target
from actord.client_wire import REPLY_HEAD
from actord.errors import CodecError
from actord.http import Request, Response

if TYPE_CHECKING:
    from actord import client_aiohttp, client_direct_async, client_direct_threads, client_urllib3
    from actord.actor import StatefulActor
    from actord.client_direct import Result

__all__ = ["ActorStub", "AsyncActorStub", "AsyncClient", "Client"]

A = TypeVar("A", bound="StatefulActor")
P = ParamSpec("P")
R = TypeVar("R")


class Client(ClientBase):
    """The synchronous client. All threads of a process may share one.

    Calls raise what the method or the server raised, as its class, with ``applied`` and ``retryable``;
    ``ActorUnavailable`` when no answer came. To be closed, or used as a context manager.
    """

    _transport: client_urllib3.Transport
    _pool: client_direct_threads.Pool | None = None

    def _open(self, connections: int, direct: bool) -> None:
        from actord.client_urllib3 import Transport

        self._transport = Transport(self._address, connections)
        if direct:
            from actord.client_direct_threads import Pool

            self._pool = Pool(lambda: self._transport.send(self._map_call().attempt()), connections)

    def actor(
        self,
        type_: str | type[StatefulActor],
        name: str,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        idempotent: bool | None = None,
    ) -> ActorStub:
        """One instance, by its class or the name of its type: ``client.actor(Account, "alice").debit(30)``.

        ``timeout`` and ``idempotent`` are for its calls instead of the client's. With ``idempotency_key`` (1 to 255
        printable ASCII characters) a method that is called through this stub runs once for that key.
        Raises ``BadRequest`` for an illegal name or key. Type checkers know nothing of its methods: see ``call``.
        """
        return ActorStub(self, self._target(type_, name, timeout, idempotency_key, idempotent))

    @overload
    def call(
        self,
        cls: type[A],
        name: str,
        method: Callable[Concatenate[A, P], Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...
    @overload
    def call(
        self, cls: type[A], name: str, method: Callable[Concatenate[A, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    def call(self, cls: type[Any], name: str, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """The same as ``client.actor(cls, name).method(...)``, and checked by type checkers:
        ``client.call(Account, "alice", Account.debit, 30)``."""
        target = self._target(cls, name, None, None, None)
        target.check_method(method.__name__)
        return self._call(target, method.__name__, *args, **kwargs)

    def fetch(self, request: Request | str, *, timeout: float | None = None) -> Response:
        """Send a request to the program's front door; a str is the target of a GET, as in ``/path?query``.

        Returns the response, whatever its status. ``ActorUnavailable`` when no answer came.
        """
        seconds = self._timeout if timeout is None else seconds_of(timeout)
        return self._fetch(request, None, seconds)

    def close(self) -> None:
        """Close the connections. Calls after this are a ``RuntimeError``."""
        if self._pool is not None:
            self._pool.close()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _call(self, target: Target, method: str, /, *args: Any, **kwargs: Any) -> Any:
        body, key = codec.encode([list(args), kwargs]), key_of(target)
        if self._pool is None:
            return self._run(self._method_call(target, method, key, body, target.timeout))
        outcome: Result | NoAnswer | None
        deadline = monotonic() + target.timeout
        try:
            outcome = self._pool.call(target.type, target.name, method, key, deadline, body)
        except NoAnswer as failure:
            outcome = failure
        if outcome is None:
            return self._run(self._method_call(target, method, key, body, max(0.001, deadline - monotonic())))
        if not isinstance(outcome, NoAnswer) and outcome[0] < 400 and outcome[2] == REPLY_HEAD:
            with suppress(CodecError):
                return codec.decode(outcome[1])
        call = self._after_direct(target, method, key, body, deadline, outcome)
        if call.done:
            return call.value
        time.sleep(call.wait)
        return self._run(call)

    def _fetch_actor(self, target: Target, request: Request | str) -> Response:
        return self._fetch(request, target, target.timeout)

    def _fetch(self, request: Request | str, target: Target | None, seconds: float) -> Response:
        request = as_request(request)
        response: Response = self._run(self._request_call(request, at_once(request.body()), target, seconds))
        return response

    def _run(self, call: LogicalCall) -> Any:
        while True:
            try:
                answer = self._transport.send(call.attempt())
            except NoAnswer as failure:
                call.failed(failure)
            else:
                call.answered(answer)
                if call.done:
                    return call.value
            time.sleep(call.wait)


class AsyncClient(ClientBase):
    """The asynchronous client, for one event loop of asyncio.

    Calls raise what the method or the server raised, as its class, with ``applied`` and ``retryable``;
    ``ActorUnavailable`` when no answer came. To be closed, or used as a context manager. A call that is cancelled is
    not made if it has not begun; otherwise it goes on without anybody who waits for it.
    """

    _transport: client_aiohttp.Transport
    _links: client_direct_async.Links | None = None

    def _open(self, connections: int, direct: bool) -> None:
        from actord.client_aiohttp import Transport

        self._transport = Transport(self._address, connections)
        if direct:
            from actord.client_direct_async import Links

            self._links = Links(lambda: self._transport.send(self._map_call().attempt()))

    @overload
    def actor(
        self,
        type_: type[A],
        name: str,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        idempotent: bool | None = None,
    ) -> A: ...
    @overload
    def actor(
        self,
        type_: str,
        name: str,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        idempotent: bool | None = None,
    ) -> AsyncActorStub: ...
    def actor(
        self,
        type_: Any,
        name: str,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        idempotent: bool | None = None,
    ) -> Any:
        """One instance, by its class or the name of its type: ``await client.actor(Account, "alice").debit(30)``.

        ``timeout`` and ``idempotent`` are for its calls instead of the client's. With ``idempotency_key`` (1 to 255
        printable ASCII characters) a method that is called through this stub runs once for that key.
        Raises ``BadRequest`` for an illegal name or key. To type checkers a stub of a class is of that class; of it,
        the public methods, ``fetch`` and ``id`` are there, and every method is awaited.
        """
        return AsyncActorStub(self, self._target(type_, name, timeout, idempotency_key, idempotent))

    async def fetch(self, request: Request | str, *, timeout: float | None = None) -> Response:  # noqa: ASYNC109
        """Send a request to the program's front door; a str is the target of a GET, as in ``/path?query``.

        Returns the response, whatever its status. ``ActorUnavailable`` when no answer came.
        """
        seconds = self._timeout if timeout is None else seconds_of(timeout)
        return await self._fetch(request, None, seconds)

    async def close(self) -> None:
        """Close the connections. Calls after this are a ``RuntimeError``."""
        if self._links is not None:
            await self._links.close()
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, target: Target, method: str, /, *args: Any, **kwargs: Any) -> Any:
        body, key = codec.encode([list(args), kwargs]), key_of(target)
        if self._links is None:
            return await self._run(self._method_call(target, method, key, body, target.timeout))
        outcome: Result | NoAnswer
        deadline = monotonic() + target.timeout
        link = await self._links.find(target.type, target.name)
        if link is None or not link.takes(body):
            return await self._run(self._method_call(target, method, key, body, max(0.001, deadline - monotonic())))
        try:
            outcome = await link.call(target.type, target.name, method, key, deadline, body)
        except NoAnswer as failure:
            outcome = failure
        else:
            if outcome[0] < 400 and outcome[2] == REPLY_HEAD:
                with suppress(CodecError):
                    return codec.decode(outcome[1])
        call = self._after_direct(target, method, key, body, deadline, outcome)
        if call.done:
            return call.value
        await asyncio.sleep(call.wait)
        return await self._run(call)

    async def _fetch_actor(self, target: Target, request: Request | str) -> Response:
        return await self._fetch(request, target, target.timeout)

    async def _fetch(self, request: Request | str, target: Target | None, seconds: float) -> Response:
        request = as_request(request)
        response: Response = await self._run(self._request_call(request, await request.body(), target, seconds))
        return response

    async def _run(self, call: LogicalCall) -> Any:
        while True:
            try:
                answer = await self._transport.send(call.attempt())
            except NoAnswer as failure:
                call.failed(failure)
            else:
                call.answered(answer)
                if call.done:
                    return call.value
            await asyncio.sleep(call.wait)
