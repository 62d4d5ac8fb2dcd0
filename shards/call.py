"""One dispatched entry: a call, a ``fetch``, an initialisation. It carries its own reply back through the gate."""

from __future__ import annotations

from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Any

from actord import codec, json
from actord.errors import ActordError
from actord.http import Response
from actord.shards.wire import MSGPACK, TIMING

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from actord.shards.activation import Activation
    from actord.shards.registry import Method

NO_DEADLINE = 1 << 62
MSGPACK_HEAD = b"Content-Type: application/msgpack\r\n"
_PROBLEM_HEAD = b"Content-Type: application/problem+json\r\n"

# The turn that the running code belongs to. Storage and context refuse everybody else: a task that a turn left
# behind, a turn that ran over its time, code outside of any turn.
current_turn: ContextVar[Call | None] = ContextVar("current_turn", default=None)


class Sink:
    """Where replies go: a link's connection, or a future in this process."""

    __slots__ = ()

    def put(self, call: Call) -> None:
        """Take the reply of a call. Only the output gate calls this."""

    def flush(self) -> None:
        """Send what was put."""


class Lifecycle:
    """Stands where a user's method would, when the runtime itself takes a turn: initialisation, deactivation."""

    __slots__ = ("name", "timeout")

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout


class Call:
    """``id`` and ``begun`` belong to the caller's link; ``deadline`` is in milliseconds of CLOCK_MONOTONIC."""

    __slots__ = (
        "aborted",
        "act",
        "args",
        "begun",
        "body",
        "cancelled",
        "cleared",
        "coroutine",
        "deadline",
        "ended",
        "flags",
        "head",
        "id",
        "kwargs",
        "limit",
        "method",
        "more",
        "over",
        "queued",
        "sink",
        "started",
        "status",
        "task",
        "timer",
        "writes",
    )

    def __init__(
        self,
        sink: Sink,
        id_: int,
        begun: Any,
        act: Activation,
        method: Method | Lifecycle,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        flags: int,
        deadline: int,
        queued: float,
    ) -> None:
        self.sink = sink
        self.id = id_
        self.begun = begun
        self.act = act
        self.method: Any = method  # or a Lifecycle, where the runtime itself takes a turn
        self.args = args
        self.kwargs = kwargs
        self.flags = flags
        self.deadline = deadline
        self.queued = queued
        self.cancelled = False
        # the turn
        self.started = 0.0
        self.ended = 0.0
        self.limit = 0.0
        self.over = False  # answered, or fenced off: nothing it does from now on has an effect
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        self.task: Any = None
        self.timer: Any = None
        self.writes: dict[str, bytes | None] | None = None
        self.cleared = False
        self.more = False  # it also touched SQL or the alarm: the activation knows what there is to join or undo
        self.aborted = ""  # why ctx.abort was called, whatever the method made of it
        # the reply
        self.status = 200
        self.body = b""
        self.head: bytes | None = None

    def succeed(self, value: Any) -> None:
        """Set the reply from a method's result. ``CodecError`` when it can't be encoded."""
        if isinstance(value, Response):
            self.status = value.status
            self.body = value.body
            self.head = value.head()
        elif self.flags & MSGPACK:
            self.body = codec.encode(value)
            self.head = MSGPACK_HEAD
        else:
            self.body = json.dumps(value)

    def fail(self, error: ActordError) -> None:
        """Set the reply from an error."""
        problem = error.to_problem()
        self.status = error.http_status
        if self.flags & MSGPACK:
            self.head = MSGPACK_HEAD
            self.body = codec.encode(problem)
        else:
            self.head = None
            try:
                self.body = json.dumps(problem)
            except ActordError:  # a user's data that JSON can't carry
                problem["data"] = repr(problem["data"])
                self.body = json.dumps(problem)
        if error.retry_after is not None:
            self.head = (self.head or _PROBLEM_HEAD) + b"Retry-After: %d\r\n" % max(1, round(error.retry_after))

    def time(self) -> None:
        """Add Server-Timing to the head, as the reply leaves."""
        if not self.flags & TIMING:
            return
        now = monotonic()
        started = self.started or now
        ended = self.ended or started
        if self.head is None:
            kind = b"application/json" if self.status < 400 else b"application/problem+json"
            self.head = b"Content-Type: " + kind + b"\r\n"
        self.head += b"Server-Timing: queue;dur=%.3f, run;dur=%.3f, commit;dur=%.3f\r\n" % (
            (started - self.queued) * 1e3,
            (ended - started) * 1e3,
            (now - ended) * 1e3,
        )
