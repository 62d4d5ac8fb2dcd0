"""``env``: bindings, namespaces and stubs, for actors and for the front door.

A stub costs nothing and touches nothing until a method of it is awaited. Several bindings may name one type: they
reach the same instances.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from actord.actor import type_name
from actord.errors import ActordError, BadRequest
from actord.http import Request, Response
from actord.shards.dispatch import check_name
from actord.shards.idempotency import check_key
from actord.shards.sends import Delay, SendStub

if TYPE_CHECKING:
    from actord.shards.outbound import Outbound
    from actord.shards.registry import ActorType, Program


class Environment:
    """``env``: the program's bindings as attributes, in upper snake case; implements ``actord.context.Env``."""

    __slots__ = ("_by_type", "_namespaces")

    def __init__(self, program: Program, router: Outbound) -> None:
        self._namespaces = {name: Namespace(type_, router) for name, type_ in program.bindings.items()}
        self._by_type = {name: Namespace(type_, router) for name, type_ in program.types.items()}

    def namespace(self, cls: Any) -> Any:
        """All the instances of a class of this program, typed by it. ``LookupError`` for another class."""
        found = self._by_type.get(type_name(cls)) if isinstance(cls, type) else None
        if found is None:
            known = ", ".join(sorted(self._by_type)) or "none"
            raise LookupError(f"{cls!r} is no actor type of this program. It has: {known}.")
        return found

    def get(self, cls: Any, name: str, *, idempotency_key: str | None = None) -> Any:
        """The instance of this name as a stub, typed by its class. ``BadRequest`` unless name and key are legal."""
        return self.namespace(cls).get(name, idempotency_key=idempotency_key)

    def send(self, cls: Any, name: str, *, delay: Delay = None) -> Any:
        """The same, whose methods queue a message instead: ``stub.send(delay=delay)``."""
        return self.namespace(cls).id_from_name(name).send(delay=delay)

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

    def __init__(self, type_: ActorType, router: Outbound) -> None:
        self._type = type_
        self._router = router

    def id_from_name(self, name: str) -> Stub:
        """The instance of this name, as a stub. ``BadRequest`` unless the name is legal."""
        check_name(name)
        return Stub(self._type, name, self._router)

    def get(self, name: str, *, idempotency_key: str | None = None) -> Stub:
        """The same; with an idempotency key like ``id_from_name(name).with_key(idempotency_key)``."""
        stub = self.id_from_name(name)
        return stub if idempotency_key is None else stub.with_key(idempotency_key)

    def new_unique_id(self) -> Stub:
        """An instance that nobody has named before: 128 random bits, in 32 hexadecimal digits."""
        return Stub(self._type, secrets.token_hex(16), self._router)

    def __repr__(self) -> str:
        return f"<namespace of {self._type.name}>"


class Stub:
    """One instance, seen from outside: its methods are awaitable here. ``id`` is its name."""

    __slots__ = ("_key", "_router", "_type", "id")

    def __init__(self, type_: ActorType, name: str, router: Outbound, key: str | None = None) -> None:
        self._type = type_
        self._router = router
        self._key = key
        self.id = name

    def with_key(self, key: str) -> Stub:
        """The same instance; a method called through the result takes effect once for this idempotency key.

        ``key``: 1 to 255 printable ASCII characters, else ``BadRequest``. Called again with the same key, method and
        arguments, also by another caller and after a crash, it returns the first call's result for 24 hours without
        running; with another method or other arguments it raises ``IdempotencyKeyReused``.
        """
        check_key(key)
        return Stub(self._type, self.id, self._router, key)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("__"):
            raise AttributeError(name)
        method = self._type.methods.get(name)
        if method is None:
            try:
                method = self._type.method(name)
            except ActordError as refusal:
                raise AttributeError(refusal.detail) from refusal
        router, type_, id_, key = self._router, self._type, self.id, self._key

        def call(*args: Any, **kwargs: Any) -> Awaitable[Any]:
            return router.call(type_, id_, method, args, kwargs, key)

        call.__name__, call.__doc__ = name, method.function.__doc__
        return call

    @property
    def send(self) -> SendStub:
        """``stub.send.method(...)`` queues a message in the turn's own commit; ``stub.send(delay=60)`` delays it."""
        return SendStub(self._type, self.id, self._router.outbox)

    def fetch(self, request: Request) -> Awaitable[Response]:
        """Pass a request on to the actor's own ``fetch``. An idempotency key is for methods: give it as a header."""
        if self._key is not None:
            raise BadRequest(
                "fetch takes no idempotency key: send it as a header of the request, which is the actor's."
            )
        return self._router.fetch(self._type, self.id, request)

    def __eq__(self, other: object) -> bool:
        if type(other) is not Stub:
            return NotImplemented
        return (self._type.name, self.id) == (other._type.name, other.id)

    def __hash__(self) -> int:
        return hash((self._type.name, self.id))

    def __dir__(self) -> list[str]:
        return sorted([*self._type.methods, "fetch", "id", "send", "with_key"])

    def __repr__(self) -> str:
        return f"<stub of {self._type.name}/{self.id}>"
