"""What an actor sees of its runtime: ``self.ctx``, ``self.ctx.storage`` and ``self.env``, as types.

The runtime's own classes implement these; a test of an actor may bring its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from actord.actor import StatefulActor

if TYPE_CHECKING:
    from actord.websocket import WebSocket

T = TypeVar("T")
A = TypeVar("A", bound="StatefulActor")
A_co = TypeVar("A_co", bound="StatefulActor", covariant=True)
When = datetime | timedelta | int | float


class SqlCursor(Protocol):
    """The rows of one query, read once: by iterating, by ``to_list``, ``one`` or ``raw``. It ends with its turn.

    A row is a dict by column name, in the order of the columns; of two columns with one name the last counts (use
    ``raw``, or name them with AS). Values are int (64 bits, exact), float, str, bytes or None.
    """

    @property
    def column_names(self) -> tuple[str, ...]: ...

    rows_written: int
    """Rows that the statement inserted, changed or deleted, those of triggers and foreign keys included."""

    def __iter__(self) -> Iterator[dict[str, Any]]: ...

    def __next__(self) -> dict[str, Any]: ...

    def to_list(self) -> list[dict[str, Any]]:
        """The rows that were not read yet."""
        ...

    def one(self) -> dict[str, Any]:
        """The only row; ``SqlNotOneRowError`` when there is none, or another one."""
        ...

    def raw(self) -> Iterator[tuple[Any, ...]]:
        """The rows as tuples."""
        ...


class Sql(Protocol):
    """The private SQLite database of one instance: at most 1 GiB, foreign keys on, with FTS5, R*Tree and JSON.

    The turn is the transaction: what its statements changed commits together with its keys and its alarm when it
    returns, and is undone when it raises. All methods are synchronous. ``SqlError`` and its subclasses say what
    failed; a statement that fails leaves nothing behind, and the turn may go on.
    """

    def exec(self, query: str, /, *bindings: Any) -> SqlCursor:
        """Run one or several statements. Bindings (None, bool, int, float, str, bytes) go to the last one, by position.

        Several statements take effect together or not at all. Raises ``SqlParameterTooLargeError`` for a value over
        2 MiB, ``SqlTransactionControlError`` for BEGIN and its like, ``SqlNotAllowedError`` for ATTACH, temporary
        tables and most PRAGMAs, ``SqlConstraintError``, and ``SqlError`` for everything else.
        """
        ...

    def transaction_sync(self, fn: Callable[[], T]) -> T:
        """Run ``fn``, a plain function, and return its result; when it raises, undo the SQL of ``fn`` alone. Nests."""
        ...

    @property
    def database_size(self) -> int:
        """Bytes, as this turn sees it; 0 when nothing was ever written."""
        ...


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
        """Delete every key and every SQL table; the alarm stays."""
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

    @property
    def sql(self) -> Sql:
        """The instance's SQLite database."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """``async with storage.transaction():`` undoes exactly the block's writes when it raises, and the exception
        goes on: keys, SQL and alarm. Blocks nest. While one is open, other tasks of the turn may not use storage
        (``RuntimeError``).
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


class Transaction(Storage, Protocol):
    """What ``async with storage.transaction() as txn`` hands out: the same storage, and a way to give up."""

    def rollback(self) -> None:
        """Undo what the block did so far; leave the block after that. ``RuntimeError`` when an inner one is open."""
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

    def emit(self, kind: str, data: Any = None) -> None:
        """Emit an event, for whoever reads ``GET /actors/{type}/{name}/events``.

        It is part of the turn's commit, where it gets the actor's next number, and reaches readers when that is
        durable; a turn or a storage block that fails takes its events along. ``kind`` is a word of 1 to 64 of
        ``A-Z a-z 0-9 _ . : -``, else ``ValueError``; ``data`` is what JSON carries, at most 64 KiB of it, else
        ``CodecError``. The newest ones are kept for a while: ``events_kept`` and ``events_age`` of the class.
        """
        ...

    def count(self, tag: str | None = None) -> int:
        """How many open sockets this instance has, or how many with that tag. Closed in this turn: not counted."""
        ...

    def sockets(self, tag: str | None = None) -> list[WebSocket]:
        """Its open sockets, in the order in which they came; with ``tag`` those that have it."""
        ...

    def broadcast(
        self, data: str | bytes, *, tag: str | None = None, exclude: WebSocket | Iterable[WebSocket] | None = None
    ) -> int:
        """Send a message to all open sockets, or to those with ``tag``; returns how many that are.

        ``exclude``: a socket or several that are left out. Like ``WebSocket.send`` otherwise; it may be awaited.
        """
        ...

    def block_concurrency_while(self, fn: Callable[[], Awaitable[Any]]) -> None:
        """From the constructor: run ``fn`` before the first turn. It may take 30 s."""
        ...

    def abort(self, reason: str = "") -> None:
        """Drop this instance and fail the running turn: nothing of it is kept, the next call builds a fresh one."""
        ...


class Namespace(Protocol[A_co]):
    """All the instances of one actor type. What it hands out are stubs, at once and for nothing: no instance is made,
    no message sent, until a method of one is awaited.

    To type checkers a stub of ``Account`` is an ``Account``, so that arguments, results and names are checked. Of it,
    the public methods, ``fetch`` and ``id`` are there (:func:`stub_id` reads it with its type). Every method is
    awaited, also one that is a plain ``def``, which type checkers refuse: make it ``async def`` to call it so.
    """

    def id_from_name(self, name: str) -> A_co:
        """The instance of this name. ``BadRequest`` unless it is 1 to 512 bytes of UTF-8 without NUL."""
        ...

    def get(self, name: str, *, idempotency_key: str | None = None) -> A_co:
        """The same. With ``idempotency_key`` a method called through this stub runs once for that key."""
        ...

    def new_unique_id(self) -> A_co:
        """An instance with a new name, 128 random bits that nobody guesses."""
        ...


class Env(Protocol):
    """The actors that this program reaches: ``await env.get(Account, "alice").debit(5)``.

    ``get``, ``send`` and ``namespace`` take the class, and are checked by mypy and pyright. The binding of a type, its
    name in upper snake case, is the same namespace without types: ``env.ACCOUNT.id_from_name("alice").debit(5)``.
    A class that the program has no binding for is a ``LookupError``.
    """

    def get(self, cls: type[A], name: str, *, idempotency_key: str | None = None) -> A:
        """A stub of the instance ``name`` of ``cls``. Its methods are called when they are awaited.

        ``name``: 1 to 512 bytes of UTF-8 without NUL, else ``BadRequest``. With ``idempotency_key`` a method that is
        called through this stub runs once for that key; a repetition is given the stored result.
        """
        ...

    def send(self, cls: type[A], name: str, *, delay: timedelta | int | float | None = None) -> A:
        """A stub whose methods queue a message instead: ``await env.send(Account, "bob").deposit(5)``.

        Only in a turn. The message is part of the turn's commit: it leaves if the turn commits, at least ``delay``
        (seconds, or a timedelta) later, and takes effect exactly once, in order for each pair of instances. The
        await returns None at once, whatever type the method has.
        """
        ...

    def namespace(self, cls: type[A]) -> Namespace[A]:
        """All the instances of ``cls``."""
        ...

    def __getattr__(self, binding: str) -> Any: ...


def stub_id(stub: StatefulActor) -> str:
    """The name of the instance that a stub stands for: ``stub.id``, for type checkers."""
    name: str = getattr(stub, "id")  # noqa: B009  (a stub has it, and its type says it is the actor's class)
    return name


_env: Env | None = None


def env() -> Env:
    """The ``env`` of this worker process, for code that is not handed one: an ASGI application, a helper of it.

    ``RuntimeError`` outside of a worker, and while the program is still being imported.
    """
    if _env is None:
        raise RuntimeError("There is no env here: actord.env() works in a worker, once the program is imported.")
    return _env


def set_env(env: Env | None) -> None:
    """What ``env()`` returns from now on. The worker calls it once; a test of a front door may bring its own."""
    global _env
    _env = env
