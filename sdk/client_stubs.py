"""What ``client.actor(...)`` hands out: one instance, seen from outside the server. It costs nothing and sends nothing
until a method is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from actord.actor import StatefulActor, called_by_runtime, public_functions, type_name
from actord.errors import BadRequest
from actord.http import Request, Response
from actord.limits import KEY_CHARS, NAME_BYTES

if TYPE_CHECKING:
    from actord.client import AsyncClient, Client


class Target:
    """Which instance, and how it is called."""

    __slots__ = ("cls", "idempotent", "key", "name", "path", "timeout", "type")

    def __init__(
        self, type_: str | type[StatefulActor], name: str, timeout: float, key: str | None, idempotent: bool
    ) -> None:
        self.cls: type[StatefulActor] | None = None
        if isinstance(type_, str):
            self.type = check_segment(type_, "An actor type")
        elif isinstance(type_, type) and issubclass(type_, StatefulActor):
            self.cls = type_
            self.type = type_name(type_)
        else:
            raise TypeError(f"{type_!r} is neither the name of an actor type nor a subclass of StatefulActor")
        self.name = check_segment(name, "An actor's name")
        self.path = f"/actors/{quote(self.type, safe='')}/{quote(name, safe='')}"
        if key is not None and not _is_key(key):
            raise BadRequest(f"An idempotency key has 1 to {KEY_CHARS} printable ASCII characters.")
        self.timeout = timeout
        self.key = key
        self.idempotent = idempotent or key is not None

    def check_method(self, name: str) -> None:
        """Raise ``AttributeError`` for what can't be a method for callers."""
        if name.startswith("_"):
            raise AttributeError(name)  # also what copy, pickle and their like look for
        if called_by_runtime(name):
            raise AttributeError(f"{self.type}.{name} is called by the runtime, not from outside")
        if self.cls is not None and name not in self.methods():
            known = ", ".join(self.methods()) or "none"
            raise AttributeError(f"{self.type} has no method {name!r} for callers. It has: {known}.")

    def with_key(self, key: str) -> Target:
        """The same under an idempotency key."""
        return Target(self.cls or self.type, self.name, self.timeout, key, True)

    def methods(self) -> list[str]:
        """The methods of a class that callers may call; nothing is known of a type's name."""
        if self.cls is None:
            return []
        found = public_functions(self.cls)
        return sorted(found if self.cls.rpc is None else set(found) & set(self.cls.rpc))


def _is_key(key: str) -> bool:
    return 1 <= len(key) <= KEY_CHARS and key.isascii() and key.isprintable()


def check_segment(text: str, what: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} is a str, not {type(text).__name__}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadRequest(f"{what} must be valid Unicode.") from None
    if not 1 <= size <= NAME_BYTES or "\0" in text:
        raise BadRequest(f"{what} has 1 to {NAME_BYTES} bytes of UTF-8 without NUL; this one has {size}.")
    return text


class _Stub:
    __slots__ = ("_client", "_target")

    def __init__(self, client: Any, target: Target) -> None:
        self._client = client
        self._target = target

    @property
    def id(self) -> str:
        """The name of the instance."""
        return self._target.name

    def __dir__(self) -> list[str]:
        return [*self._target.methods(), "fetch", "id", "with_key"]

    def __repr__(self) -> str:
        return f"<{self._target.type}/{self._target.name} at {self._client.url}>"


class ActorStub(_Stub):
    """One instance. Its methods are called as those of the class, and return their results."""

    __slots__ = ()
    _client: Client

    def with_key(self, key: str) -> ActorStub:
        """The same instance; a method called through the result runs once for this key (see ``Client.actor``)."""
        return ActorStub(self._client, self._target.with_key(key))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        self._target.check_method(name)
        return partial(self._client._call, self._target, name)

    def fetch(self, request: Request | str) -> Response:
        """Send a request to the actor's own ``fetch``; a str is the target of a GET, as in ``/path?query``.

        Returns the actor's response, whatever its status. Errors of the runtime are raised as their classes.
        """
        return self._client._fetch_actor(self._target, request)


class AsyncActorStub(_Stub):
    """One instance. Its methods are awaited."""

    __slots__ = ()
    _client: AsyncClient

    def with_key(self, key: str) -> AsyncActorStub:
        """The same instance; a method called through the result runs once for this key (see ``Client.actor``)."""
        return AsyncActorStub(self._client, self._target.with_key(key))

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        self._target.check_method(name)
        return partial(self._client._call, self._target, name)

    async def fetch(self, request: Request | str) -> Response:
        """Send a request to the actor's own ``fetch``; a str is the target of a GET, as in ``/path?query``.

        Returns the actor's response, whatever its status. Errors of the runtime are raised as their classes.
        """
        return await self._client._fetch_actor(self._target, request)
