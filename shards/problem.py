"""An error as a reply. Building one never raises, whatever a user's class or its attributes are."""

from __future__ import annotations

import logging
from contextlib import suppress
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

from actord import codec, json
from actord.errors import (
    ActordError,
    ActorError,
    ActorFetchTimeoutError,
    ActorMethodError,
    ActorMethodTimeoutError,
    CodecError,
    InstanceAborted,
    StoreCorrupt,
)

if TYPE_CHECKING:
    from actord.shards.call import Call

MSGPACK_HEAD = b"Content-Type: application/msgpack\r\n"
PROBLEM_HEAD = b"Content-Type: application/problem+json\r\n"


def problem_reply(error: ActordError, *, msgpack: bool) -> tuple[int, bytes, bytes | None]:
    """Status, body and head. The head is None for a JSON problem that needs no other line."""
    try:
        return _build(error, msgpack)
    except BaseException:
        kind = type(error).__name__
        shown = ActorMethodError(f"{kind}, an error that can't be described", error_type=kind)
        applied: Any = getattr(error, "applied", "")
        shown.applied = applied if applied in ("no", "yes") else "unknown"
        return _build(shown, msgpack)


def method_error(error: BaseException, label: str) -> ActorMethodError:
    """What the caller is told of an exception of user code."""
    name = type(error).__name__
    try:
        message = str(error)
    except BaseException:
        message = "(its message can't be shown)"
    return ActorMethodError(f"{label} raised {name}: {message}", error_type=name)


def timeout_error(call: Call, detail: str) -> ActordError:
    """What the caller is told when a turn ran over its limit."""
    kind = ActorFetchTimeoutError if call.method is call.act.host.type.fetch else ActorMethodTimeoutError
    return kind(detail, applied="unknown" if call.reached else "no")


def log_failure(log: logging.Logger, message: str, failure: ActordError, error: BaseException) -> None:
    """Log why a turn failed, unless that is what its method wanted, or was told before."""
    if isinstance(failure, ActorError | InstanceAborted) or failure.reported:
        return
    told = error if issubclass(type(error), StoreCorrupt) else failure
    log_fault(log, f"{message}: {getattr(told, 'detail', '')}", error)


def log_fault(log: logging.Logger, message: str, error: BaseException) -> None:
    """Log an exception of user code with its traceback, if that can be shown: it may run code of its class."""
    try:
        log.error("%s", message, exc_info=error)
    except BaseException:
        log.error("%s (it can't be shown)", message)


def _build(error: ActordError, msgpack: bool) -> tuple[int, bytes, bytes | None]:
    status = error.http_status
    if type(status) is not int or not 400 <= status <= 599:
        raise ValueError(f"{status!r} is no status of an error")
    problem = error.to_problem()
    if type(problem["detail"]) is not str:
        problem["detail"] = _shown(problem["detail"])
    wait = problem.get("retry_after")
    if wait is not None and not (type(wait) in (int, float) and isfinite(wait)):
        del problem["retry_after"]
        wait = None
    encode = codec.encode if msgpack else json.dumps
    try:
        body = encode(problem)
    except ActordError:
        body = encode({name: _carried(value, encode) for name, value in problem.items()})
    head = MSGPACK_HEAD if msgpack else None
    if wait is not None:
        head = (head or PROBLEM_HEAD) + b"Retry-After: %d\r\n" % max(1, round(wait))
    return status, body, head


def _carried(value: Any, encode: Any) -> Any:
    try:
        encode(value)
    except ActordError:
        return _shown(value)
    return value


def _shown(value: Any) -> str:
    text = value if type(value) is str else repr(value)
    return text.encode("utf-8", "backslashreplace").decode()


def as_error(error: BaseException, label: str) -> ActordError:
    """What the caller is told; whatever the method raised, nothing of its turn was applied."""
    if issubclass(type(error), StoreCorrupt):  # its own detail is for the log: it names files
        return StoreCorrupt("Something that this instance has stored is damaged. The server's log says what.")
    if issubclass(type(error), ActordError):
        known = cast(ActordError, error)  # isinstance would ask the error itself, which may be anything
        with suppress(Exception):
            known.applied = "no"
            return known
    return method_error(error, label)


def result_error(label: str, error: BaseException) -> BaseException:
    """The same for an error of encoding what the method returned."""
    if isinstance(error, CodecError):
        return ActorMethodError(f"{label} returned what can't be sent: {error.detail}", error_type="CodecError")
    return error
