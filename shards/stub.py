"""``env`` for the front door: bindings, namespaces and stubs that call actors in this worker or in another one.

A stub costs nothing and touches nothing until a method of it is awaited. Values pass through the codec either way, so
neither side can change what the other holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Any

from actord import codec
from actord.errors import ActordError, ActorUnavailable, from_problem
from actord.http import Request, Response
from actord.shards.call import Call, Sink, current_turn
from actord.shards.dispatch import check_name
from actord.shards.link import Link, Waiter
from actord.shards.slots import slot_of
from actord.shards.wire import CALL, FETCH, MSGPACK, PAIR

if TYPE_CHECKING:
    from actord.shards.dispatch import Dispatcher
    from actord.shards.registry import ActorType, Method, Program


class Visit:
    """One request at the front door: until when its calls may take, and how many may have applied something."""

    __slots__ = ("calls", "deadline")

    def __init__(self, deadline: int) -> None:
        self.deadline = deadline  # milliseconds of CLOCK_MONOTONIC
        self.calls = 0


current_visit: ContextVar[Visit | None] = ContextVar("current_visit", default=None)


class Environment:
    """``env``: the program's bindings as attributes, in upper snake case."""

    __slots__ = ("_namespaces",)

    def __init__(self, program: Program, router: StubRouter) -> None:
        self._namespaces = {name: Namespace(type_, router) for name, type_ in program.bindings.items()}

    def __getattr__(self, binding: str) -> Namespace:
        found = self._namespaces.get(binding)
        if found is None:
            known = ", ".join(sorted(self._namespaces)) or "none"
            raise AttributeError(f"env has no binding {binding!r}. It has: {known}.")
        return found

    def __dir__(self) -> list[str]:
        return sorted(self._namespaces)


class Namespace:
    """All the instances of one actor type."""

    __slots__ = ("_router", "_type")

    def __init__(self, type_: ActorType, router: StubRouter) -> None:
        self._type = type_
        self._router = router

    def id_from_name(self, name: str) -> Stub:
        """The instance of this name, as a stub. ``BadRequest`` unless the name is legal."""
        check_name(name)
        return Stub(self._type, name, self._router)

    def __repr__(self) -> str:
        return f"<namespace of {self._type.name}>"


class Stub:
    """One instance, seen from outside: its methods are awaitable here."""

    __slots__ = ("_router", "_type", "id")

    def __init__(self, type_: ActorType, name: str, router: StubRouter) -> None:
        self._type = type_
        self._router = router
        self.id = name

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("__"):
            raise AttributeError(name)
        method = self._type.methods.get(name)
        if method is None:
            try:
                method = self._type.method(name)
            except ActordError as refusal:
                raise AttributeError(refusal.detail) from refusal
        router, type_, id_ = self._router, self._type, self.id

        def call(*args: Any, **kwargs: Any) -> Awaitable[Any]:
            return router.call(type_, id_, method, args, kwargs)

        return call

    def fetch(self, request: Request) -> Awaitable[Response]:
        """Pass a request on to the actor's own ``fetch``."""
        return self._router.fetch(self._type, self.id, request)

    def __dir__(self) -> list[str]:
        return sorted([*self._type.methods, "fetch", "id"])

    def __repr__(self) -> str:
        return f"<stub of {self._type.name}/{self.id}>"


class StubRouter:
    """Decides where a stub's call goes: to this worker's own dispatcher, or over a link to the name's owner."""

    def __init__(self, links: Callable[[int], Link], call_deadline: float) -> None:
        self._link_of = links  # by slot
        self._call_deadline = call_deadline
        self.dispatcher: Dispatcher | None = None  # set once, when the worker is composed

    async def call(
        self, type_: ActorType, name: str, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The method's result; its errors are raised as their classes."""
        visit = current_visit.get()
        deadline = self._deadline(visit)
        try:
            return await self._call(type_, name, method, args, kwargs, deadline)
        except ActordError as error:
            if visit is not None and error.applied == "no":
                visit.calls -= 1
            raise

    async def _call(
        self,
        type_: ActorType,
        name: str,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline: int,
    ) -> Any:
        dispatcher = self.dispatcher
        assert dispatcher is not None
        sent = codec.encode([list(args), kwargs])
        slot = slot_of(type_.name, name)
        if dispatcher.shard_of[slot] is not None:
            bound = method.binder.from_call(*codec.decode(sent))
            answer = await self._local(type_, name, method, bound, deadline)
        else:
            remote = _Remote()
            self._submit(remote, slot, CALL, type_.name, name, method.name, MSGPACK | PAIR, deadline, sent)
            answer = await remote.future
        status, body, _ = answer
        value = codec.decode(body)
        if status >= 400:
            raise from_problem(value)
        return value

    async def fetch(self, type_: ActorType, name: str, request: Request) -> Response:
        """The actor's own response; errors of the runtime are raised as their classes."""
        visit = current_visit.get()
        deadline = self._deadline(visit)
        try:
            return await self._fetch(type_, name, request, deadline)
        except ActordError as error:
            if visit is not None and error.applied == "no":
                visit.calls -= 1
            raise

    async def _fetch(self, type_: ActorType, name: str, request: Request, deadline: int) -> Response:
        dispatcher = self.dispatcher
        assert dispatcher is not None
        fields, body = request.to_wire(), await request.body()
        slot = slot_of(type_.name, name)
        if dispatcher.shard_of[slot] is not None:
            arguments = (Request.from_wire(fields, body),)
            status, body, head = await self._local(type_, name, type_.fetch, (arguments, {}), deadline)
        else:
            remote = _Remote()
            self._submit(remote, slot, FETCH, type_.name, name, fields, MSGPACK, deadline, body)
            status, body, head = await remote.future
        if head is not None and head.startswith(b"Content-Type: application/msgpack\r\n") and status >= 400:
            raise from_problem(codec.decode(body))
        return Response.from_wire(status, body, head)

    def _deadline(self, visit: Visit | None) -> int:
        turn = current_turn.get()
        if turn is not None:
            raise ActordError("Calls from one actor to another are not in this version; call from the front door.")
        if visit is None:
            return int((monotonic() + self._call_deadline) * 1000)
        visit.calls += 1
        return visit.deadline

    async def _local(
        self,
        type_: ActorType,
        name: str,
        method: Method,
        bound: tuple[tuple[Any, ...], dict[str, Any]],
        deadline: int,
    ) -> tuple[int, bytes, bytes | None]:
        assert self.dispatcher is not None
        sink = _Local()
        call = self.dispatcher.local(sink, type_.name, name, method, *bound, deadline, monotonic())
        try:
            return await sink.future
        except asyncio.CancelledError:
            call.cancelled = True
            raise

    def _submit(self, remote: _Remote, slot: int, kind: int, *fields: Any) -> None:
        link = self._link_of(slot)
        id_ = link.submit(remote, kind, *fields)
        remote.future.add_done_callback(lambda future: link.cancel(id_) if future.cancelled() else None)


class _Local(Sink):
    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[tuple[int, bytes, bytes | None]] = asyncio.get_running_loop().create_future()

    def put(self, call: Call) -> None:
        if not self.future.done():
            self.future.set_result((call.status, call.body, call.head))


class _Remote(Waiter):
    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[tuple[int, bytes, bytes | None]] = asyncio.get_running_loop().create_future()

    def on_reply(self, status: int, body: bytes, head: bytes | None) -> None:
        if not self.future.done():
            self.future.set_result((status, body, head))

    def on_lost(self, begun: bool) -> None:
        if not self.future.done():
            self.future.set_exception(lost(begun))


def lost(begun: bool) -> ActorUnavailable:
    """The error for a call whose worker went away."""
    if begun:
        return ActorUnavailable(
            "The worker went away while the call ran: whether its writes were kept is unknown.",
            applied="unknown",
            retry_after=1,
        )
    return ActorUnavailable("The worker is away, and did not come back in time.", retry_after=1)
