"""Every error that crosses a boundary of actord, each with its HTTP status and the truth about its writes.

Two families, told apart on purpose:

* ``ActordError`` and its subclasses are expected outcomes. They travel whole over every hop (actor, worker, front,
  client) as an RFC 9457 problem document and say whether the writes of the turn were applied.
* ``InvariantViolated`` is a bug of ours. It is never answered to a caller as an ordinary outcome; it ends the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

Applied = Literal["no", "yes", "unknown"]

PROBLEM_TYPE_PREFIX = "urn:actord:error:"


class InvariantViolated(AssertionError):
    """A promise that the code makes to itself does not hold. Nothing after it can be trusted."""


class ActordError(Exception):
    """Base of all expected errors.

    ``detail``: one sentence for a human, saying what to do where that is known.
    ``applied``: did the writes of the turn commit? ``"no"`` is only ever said when it is certain.
    ``retry_after``: seconds after which trying again makes sense, or None.
    ``retryable``: whether the same call may be sent again without change.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False
    reported = False  # whoever failed with it has logged it already

    def __init__(self, detail: str = "", *, applied: Applied = "no", retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.applied: Applied = applied
        self.retry_after = retry_after

    @property
    def http_status(self) -> int:
        return self.status

    def to_problem(self) -> dict[str, Any]:
        """The RFC 9457 members of this error; values are plain JSON except a user's ``data``."""
        name = type(self).__name__
        problem: dict[str, Any] = {
            "type": PROBLEM_TYPE_PREFIX + name,
            "title": self.title,
            "status": self.http_status,
            "detail": self.detail,
            "name": name,
            "retryable": self.retryable,
            "applied": self.applied,
        }
        if self.retry_after is not None:
            problem["retry_after"] = self.retry_after
        problem.update(self._extra())
        return problem

    def _extra(self) -> Mapping[str, Any]:
        return {}

    @classmethod
    def _restore(cls, problem: Mapping[str, Any]) -> ActordError:
        return cls(
            str(problem.get("detail", "")),
            applied=_applied(problem),
            retry_after=problem.get("retry_after"),
        )


class ActorError(ActordError):
    """The error a user raises from a method to answer something other than success.

    ``code``: a word for programs. ``status``: the HTTP status, 400 to 599. ``data``: any value the codec carries
    (over HTTP with JSON: any JSON value). It is a normal outcome and is not logged as a fault.
    """

    title = "The actor refused"

    def __init__(
        self,
        detail: str = "",
        *,
        code: str = "error",
        status: int = 400,
        data: Any = None,
        applied: Applied = "no",
        retry_after: float | None = None,
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"ActorError status must be 400 to 599, not {status}")
        super().__init__(detail, applied=applied, retry_after=retry_after)
        self.code = code
        self.data = data
        self._status = status

    @property
    def http_status(self) -> int:
        return self._status

    def _extra(self) -> Mapping[str, Any]:
        extra: dict[str, Any] = {"code": self.code}
        if self.data is not None:
            extra["data"] = self.data
        return extra

    @classmethod
    def _restore(cls, problem: Mapping[str, Any]) -> ActordError:
        return cls(
            str(problem.get("detail", "")),
            code=str(problem.get("code", "error")),
            status=int(problem.get("status", 400)),
            data=problem.get("data"),
            applied=_applied(problem),
            retry_after=problem.get("retry_after"),
        )


class ActorMethodError(ActordError):
    """A method raised. ``error_type`` is the exception's class name; its message is in ``detail``."""

    title = "The method raised an exception"

    def __init__(
        self, detail: str = "", *, error_type: str = "", applied: Applied = "no", retry_after: float | None = None
    ) -> None:
        super().__init__(detail, applied=applied, retry_after=retry_after)
        self.error_type = error_type

    def _extra(self) -> Mapping[str, Any]:
        return {"error_type": self.error_type}

    @classmethod
    def _restore(cls, problem: Mapping[str, Any]) -> ActordError:
        return cls(
            str(problem.get("detail", "")),
            error_type=str(problem.get("error_type", "")),
            applied=_applied(problem),
            retry_after=problem.get("retry_after"),
        )


class BadRequest(ActordError, ValueError):
    """The request can't be read: bad JSON, bad percent-encoding, an illegal name."""

    status = 400
    title = "Bad request"


class ActorArgumentError(ActordError):
    """The arguments do not fit the method's signature; the detail names the parameter."""

    status = 400
    title = "The arguments do not fit the method"


class CodecError(ActordError, ValueError):
    """A value can't be stored or sent. The detail names the path of the culprit, as in ``$.items[3].owner``."""

    status = 400
    title = "The value can't be encoded or decoded"


class Unauthorized(ActordError):
    """The request has no token, or one that is not known (any more). ``challenge``: for the header WWW-Authenticate."""

    status = 401
    title = "No or bad token"
    challenge = 'Bearer realm="actord"'


class Forbidden(ActordError):
    """The token has no scope for this request; or a page of another origin asked for a socket."""

    status = 403
    title = "Not allowed"


class ActorPrivateMethodError(ActordError):
    """The method exists for the instance alone: its name begins with ``_`` or belongs to the base class."""

    status = 403
    title = "The method is private"


class NotFound(ActordError):
    status = 404
    title = "Not found"


class ActorUnknownTypeError(ActordError):
    status = 404
    title = "Unknown actor type"


class ActorUnknownMethodError(ActordError):
    status = 404
    title = "Unknown method"


class MethodNotAllowed(ActordError):
    status = 405
    title = "Method not allowed"


class PayloadTooLarge(ActordError):
    status = 413
    title = "The body is too large"


class UnsupportedMediaType(ActordError):
    status = 415
    title = "Unsupported media type"


class IdempotencyKeyReused(ActordError):
    """The idempotency key stands for another request of this actor: another method, arguments or body format.

    Nothing ran. Send the call under a key of its own, or exactly the request that the key was first used for.
    """

    status = 422
    title = "The idempotency key was used for another request"


class ActorUnavailable(ActordError):
    """The worker that owns the name is down, starting or draining."""

    status = 503
    title = "The actor is not available right now"
    retryable = True


class ActorOverloaded(ActordError):
    """A queue is full; nothing was begun."""

    status = 503
    title = "Too many calls are waiting"
    retryable = True


class ActorVersionError(ActordError):
    """The actor's data are of a version that this program can't read: a later one, or one without its upgrade."""

    status = 500
    title = "The program does not fit the actor's data"


class ActorMethodTimeoutError(ActordError):
    """The turn ran over its time limit; it was cancelled and its writes were discarded."""

    status = 504
    title = "The method ran over its time limit"


class ActorFetchTimeoutError(ActordError):
    status = 504
    title = "fetch ran over its time limit"


class BlockConcurrencyTimeoutError(ActordError):
    """Initialisation ran over its time limit; the activation was discarded."""

    status = 504
    title = "Initialisation ran over its time limit"
    retryable = True


class ActorOutputGateError(ActordError):
    """The result existed, but its writes could not be made durable.

    Status 507 and ``applied: no`` when the disk is full (the batch was rolled back, for certain); status 500 and
    ``applied: unknown`` after an I/O error.
    """

    title = "The writes could not be made durable"

    def __init__(
        self,
        detail: str = "",
        *,
        disk_full: bool = False,
        applied: Applied = "no",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail, applied=applied, retry_after=retry_after)
        self.disk_full = disk_full

    @property
    def http_status(self) -> int:
        return 507 if self.disk_full else 500

    def _extra(self) -> Mapping[str, Any]:
        return {"disk_full": self.disk_full}

    @classmethod
    def _restore(cls, problem: Mapping[str, Any]) -> ActordError:
        return cls(
            str(problem.get("detail", "")),
            disk_full=bool(problem.get("disk_full")),
            applied=_applied(problem),
            retry_after=problem.get("retry_after"),
        )


class ActorDeadlockError(ActordError):
    """A call between actors would have closed a circle of actors that wait for each other; it was not made."""

    status = 508
    title = "The calls form a cycle"


class TurnEnded(ActordError):
    """A turn that is over (timed out, answered, or its instance dropped) touched its context or storage."""

    title = "The turn is over"


class AlarmTimeError(ActordError, ValueError):
    """What ``set_alarm`` was given is no time: naive, in milliseconds, not finite, another type. Nothing changed."""

    status = 400
    title = "The time of an alarm can't be that"


class AlarmHandlerMissing(ActordError):
    """``set_alarm`` in a class without ``async def alarm(self, info)``. Nothing changed."""

    title = "The class has no alarm handler"


class AlarmNotFound(ActordError):
    """The actor has no alarm, or none of the wanted kind."""

    status = 404
    title = "There is no such alarm"


class SendError(ActordError):
    """``send`` was refused: outside of a turn, no delay that can be, or more than a turn may send. Nothing changed."""

    title = "The message can't be sent"


class MessageNotFound(ActordError):
    """No message of that number is kept, or none of the wanted kind."""

    status = 404
    title = "There is no such message"


class InstanceAborted(ActordError):
    """The instance was dropped while the call ran or waited (``ctx.abort``); nothing of the turn was kept."""

    status = 503
    title = "The instance was dropped"
    retryable = True


class SqlError(ActordError):
    """A statement of ``storage.sql`` failed. ``detail`` is SQLite's message, ``statement`` the text that was run.

    The statement left nothing behind; a turn that catches this goes on and commits the rest.
    """

    title = "The SQL statement failed"

    def __init__(
        self, detail: str = "", *, statement: str = "", applied: Applied = "no", retry_after: float | None = None
    ) -> None:
        super().__init__(detail, applied=applied, retry_after=retry_after)
        self.statement = statement  # for the actor's own code: it does not leave with the problem document


class SqlConstraintError(SqlError):
    """UNIQUE, NOT NULL, CHECK, a foreign key, or a column's type in a STRICT table."""

    title = "An SQL constraint was violated"


class SqlParameterError(SqlError):
    """A binding can't be stored: another type than None, bool, int, float, str or bytes; an int beyond 64 bits; NaN;
    or the number of bindings is not that of the statement's parameters."""

    title = "An SQL parameter can't be bound"


class SqlParameterTooLargeError(SqlParameterError):
    """A bound str or bytes has more than 2 MiB. Raised before the statement runs."""

    title = "An SQL parameter is too large"


class SqlNotAllowedError(SqlError):
    """The statement is refused: ATTACH, load_extension, a PRAGMA that is not on the list, and their like."""

    title = "The SQL statement is not allowed"


class SqlTransactionControlError(SqlNotAllowedError):
    """BEGIN, COMMIT, ROLLBACK, SAVEPOINT or RELEASE: the turn is the transaction. Use ``transaction_sync``."""

    title = "SQL transactions are made by the runtime"


class SqlAsyncTransactionError(SqlError):
    """``transaction_sync`` was given a coroutine function, or its function returned something to await."""

    title = "transaction_sync takes a plain function"


class SqlNotOneRowError(SqlError):
    """``one()`` found no row, or more than one."""

    title = "The SQL query did not return exactly one row"


class SqlTooLargeError(SqlError):
    """A limit of size: 1 GiB for a database, 256 MiB for what one turn changes or one statement needs in memory."""

    title = "The SQL database or transaction is too large"


class StorageError(ActordError):
    """Base of the errors of the store. At a commit they reach a caller as ``ActorOutputGateError``."""

    title = "Storage error"


class StoreFull(StorageError):
    """No room on the disk. The batch was rolled back: it is certain that nothing of it was applied."""

    status = 507
    title = "The disk is full"


class StoreBroken(StorageError):
    """An I/O error: the outcome of the commit is unknown and nothing more may be served from this store."""

    title = "The store failed"


class StoreCorrupt(StorageError):
    """A checksum, a commit number or an identity does not match what was written.

    The one error of the store that a caller sees as itself, when a read meets what is damaged.
    """

    title = "The data is damaged"


class DataDirError(StorageError):
    """The data directory can't be used; the detail says why and what to do."""

    title = "The data directory can't be used"


class DataDirLocked(DataDirError):
    """Another server has the data directory open."""

    title = "The data directory is in use"


def _applied(problem: Mapping[str, Any]) -> Applied:
    value = problem.get("applied")
    return value if value in ("no", "yes", "unknown") else "unknown"


def _subclasses(cls: type[ActordError]) -> list[type[ActordError]]:
    found = [cls]
    for sub in cls.__subclasses__():
        found += _subclasses(sub)
    return found


_BY_NAME = {cls.__name__: cls for cls in _subclasses(ActordError)}


def from_problem(problem: Mapping[str, Any]) -> ActordError:
    """The error that ``to_problem`` described; a user's subclass comes back as ``ActorError``, others as their base."""
    unknown = ActorError if "code" in problem else ActordError
    return _BY_NAME.get(str(problem.get("name")), unknown)._restore(problem)
