"""What an actor sees of its runtime: ``self.ctx``, ``self.ctx.storage`` and ``self.env``, as types.

The runtime's own classes implement these; a test of an actor may bring its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
When = datetime | timedelta | int | float


class Storage(Protocol):
    """The durable keys and values of one instance.

    Keys are ``str`` of 1 to 2,048 bytes of UTF-8, ordered by their bytes; ``__actord_`` is reserved. Values are what
    the codec carries (None, bool, int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset, datetime, date,
    time, timedelta, Decimal, UUID), at most 2 MiB encoded; ``CodecError`` otherwise, at the write.
    Writes are seen by the reads of the same turn at once, and commit together when the turn returns; a turn that
    raises leaves none of them. Used after its turn is over, every method raises ``TurnEnded``.
    """

    async def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or ``default``. The value is the caller's own copy."""
        ...

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of those keys that exist, in the order asked for."""
        ...

    async def put(self, key: str, value: Any) -> None: ...

    async def put_many(self, values: Mapping[str, Any]) -> None:
        """All of them or, if one can't be encoded, none."""
        ...

    async def delete(self, key: str) -> bool:
        """True when the key was there."""
        ...

    async def delete_many(self, keys: Iterable[str]) -> int:
        """How many of the keys were there."""
        ...

    async def delete_all(self) -> None:
        """Delete every key. The alarm stays: ``delete_alarm`` is for that."""
        ...

    async def list(
        self,
        *,
        prefix: str = "",
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        limit: int = 128,
    ) -> dict[str, Any]:
        """Keys and values in key order, from ``start`` (inclusive) or ``start_after`` up to ``end`` (exclusive).

        ``limit`` is 1 to 1,000; more is a ``ValueError``. The bounds stay on the key order when ``reverse``.
        """
        ...

    def set_alarm(self, when: When) -> Awaitable[None]:
        """Have ``async def alarm(self, info)`` run at ``when``, in the place of an alarm that was set before.

        ``when``: an aware datetime, a timedelta from now, or seconds since the epoch. It is kept in whole milliseconds,
        rounded up; a past time fires at once. Part of the turn's commit, and seen by its ``get_alarm``; takes effect
        whether it is awaited or not. ``AlarmTimeError`` for anything else (naive datetimes, milliseconds, nan);
        ``AlarmHandlerMissing`` when the class has no ``alarm``.
        """
        ...

    async def get_alarm(self) -> datetime | None:
        """When the alarm fires next (aware, UTC), or None. While ``alarm`` runs, None unless it was set anew."""
        ...

    def delete_alarm(self) -> Awaitable[None]:
        """Remove the alarm, if there is one; also one that has failed for good. Like ``set_alarm`` otherwise."""
        ...


class Context(Protocol):
    """``self.ctx``: who this instance is, and what the runtime does for it."""

    @property
    def id(self) -> str:
        """The name of the instance."""
        ...

    @property
    def type(self) -> str: ...

    @property
    def storage(self) -> Storage: ...

    @property
    def env(self) -> Env: ...

    @property
    def fence(self) -> tuple[int, int, int]:
        """(slot, epoch, commit_seq): grows with every commit of the shard; for systems that refuse stale writers."""
        ...

    def set_alarm(self, when: When) -> Awaitable[None]:
        """The same as ``storage.set_alarm``."""
        ...

    def block_concurrency_while(self, fn: Callable[[], Awaitable[Any]]) -> None:
        """From the constructor: run ``fn`` before the first turn. It may take 30 s."""
        ...

    def abort(self, reason: str = "") -> None:
        """Drop this instance and fail the running turn: nothing of it is kept, the next call builds a fresh one."""
        ...


class Env(Protocol):
    """Bindings of the program by upper-snake name: ``env.ACCOUNT.id_from_name("alice").debit(5)``."""

    def __getattr__(self, binding: str) -> Any: ...
