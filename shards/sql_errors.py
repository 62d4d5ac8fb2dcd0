"""From what SQLite and apsw raise to the errors that an actor sees, and the check of what it binds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apsw
from actord.errors import (
    ActordError,
    ActorMethodTimeoutError,
    SqlConstraintError,
    SqlError,
    SqlParameterError,
    SqlParameterTooLargeError,
    SqlTooLargeError,
)
from actord.limits import SQL_DATABASE_BYTES, SQL_TURN_BYTES, SQL_VALUE_BYTES

if TYPE_CHECKING:
    from actord.shards.sql_database import Database

_NUMBERS = frozenset({int, bool, type(None)})  # apsw refuses an int beyond 64 bits


def check_bindings(bindings: tuple[Any, ...], query: str) -> None:
    """``SqlParameterTooLargeError`` or ``SqlParameterError``, before anything runs."""
    for number, value in enumerate(bindings, 1):
        kind = type(value)
        if kind in _NUMBERS:
            continue
        if kind is str or isinstance(value, str):
            size = len(value)
            if size > SQL_VALUE_BYTES // 4:
                size = len(value.encode(errors="surrogatepass"))
        elif isinstance(value, float):
            if value != value:
                raise SqlParameterError(f"Parameter {number} is NaN, which SQLite can't store.", statement=query)
            continue
        elif isinstance(value, bytes | bytearray):
            size = len(value)
        elif isinstance(value, memoryview):
            size = value.nbytes
        elif isinstance(value, int):
            continue
        else:
            raise SqlParameterError(
                f"Parameter {number} is of type {kind.__name__}; None, bool, int, float, str and bytes can be bound.",
                statement=query,
            )
        if size > SQL_VALUE_BYTES:
            raise SqlParameterTooLargeError(
                f"Parameter {number} has {size} bytes; the limit is {SQL_VALUE_BYTES}.", statement=query
            )


def translated(error: BaseException, query: str, db: Database, why: str) -> BaseException:
    """The error to raise. ``why``: "time" or "memory" when the statement was interrupted for it."""
    failure, db.file.failure = db.file.failure, None
    if failure is not None:
        if isinstance(failure, SqlError):
            failure.statement = query
        return failure
    denied, db.denied = db.denied, None
    if isinstance(error, ActordError) or not isinstance(error, Exception):
        return error
    text = str(error)
    if denied is not None:
        kind, text = denied
        return kind(f"{text[0].upper()}{text[1:]}.", statement=query)
    if isinstance(error, apsw.InterruptError):
        if why == "time":
            return ActorMethodTimeoutError("A query ran until the turn's time was over; its writes were discarded.")
        return SqlTooLargeError(f"A statement needed more than {SQL_TURN_BYTES >> 20} MiB of memory.", statement=query)
    if isinstance(error, apsw.ConstraintError):
        return SqlConstraintError(text, statement=query)
    if isinstance(error, apsw.FullError):
        return SqlTooLargeError(f"A database has at most {SQL_DATABASE_BYTES >> 20} MiB.", statement=query)
    if isinstance(error, apsw.TooBigError):
        return SqlTooLargeError(text, statement=query)
    if isinstance(error, apsw.BindingsError | OverflowError | TypeError | UnicodeEncodeError):
        return SqlParameterError(text, statement=query)
    if isinstance(error, UnicodeDecodeError):
        return SqlError("A text value is not valid UTF-8; read it with CAST(… AS BLOB).", statement=query)
    if isinstance(error, apsw.Error | ValueError):
        return SqlError(text, statement=query)
    return error
