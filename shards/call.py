"""One dispatched entry: a call, a ``fetch``, an initialisation. It carries its own reply back through the gate."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Any

from actord import codec, json
from actord.errors import ActordError, CodecError
from actord.http import Response
from actord.shards.problem import MSGPACK_HEAD, problem_reply
from actord.shards.wire import MSGPACK, TIMING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actord.shards.activation import Activation
    from actord.shards.alarms import Handler
    from actord.shards.registry import Method
    from actord.shards.transactions import Transaction
    from actord.shards.waits import Origin, Wait
    from actord.storage.api import Batch
    from actord.streaming import StreamingResponse

NO_DEADLINE = 1 << 62
EFFECTS = 1 << 16  # a flag of our own beside those of the wire: the call has effects that leave with its reply
AT_THE_GATE = TIMING | EFFECTS
TRACED = 1 << 17  # another one: ``trace`` is set
UNTOUCHED: Any = object()  # what a turn's alarm is until the turn sets or removes it

# The turn that the running code belongs to. Storage and context refuse everybody else: a task that a turn left
# behind, a turn that ran over its time, code outside of any turn.
current_turn: ContextVar[Call | None] = ContextVar("current_turn", default=None)


@contextmanager
def as_turn(call: Call) -> Iterator[None]:
    """What is logged in here belongs to the turn."""
    token = current_turn.set(call)
    try:
        yield
    finally:
        current_turn.reset(token)


def body_of(response: Response) -> bytes:
    """The body to send; ``response.body`` may have been set to anything. ``TypeError`` for what is no body."""
    body: Any = response.body
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise TypeError(f"the body of a Response is bytes or str, not {type(body).__name__}")


class Sink:
    """Where replies go: a link's connection, or a future in this process."""

    __slots__ = ()

    outside = False  # calls come from clients, not from turns that run or from messages

    def put(self, call: Call) -> None:
        """Take the reply of a call. Only the output gate calls this."""

    def put_stream(self, call: Call, response: StreamingResponse) -> None:
        """Take a reply that is a stream: begin to send it."""

    def flush(self) -> None:
        """Send what was put."""


class Effect:
    """Something that a turn did which counts only if the turn commits: a send, an emitted event, a socket's frame.

    Made by ``Call.add``. ``join`` puts what has to be stored into the turn's batch; ``leave`` is called behind the
    output gate, when the turn's commit and all that it could have seen are durable, before the reply is put into its
    sink. An effect of a turn that fails is forgotten. Neither may raise.
    """

    __slots__ = ()
    is_write = True  # undone with the storage block that it was made in

    def join(self, call: Call, batch: Batch) -> None:
        """The turn has succeeded: add to its commit."""

    def leave(self, call: Call) -> None:
        """The commit is durable."""


class Once:
    """Makes a call take effect once: an idempotency key, a message of an outbox. Given to the dispatcher with it."""

    __slots__ = ()

    unsure = False  # an earlier run of this very request may have been applied, and that was not looked up yet

    def answered(self, call: Call) -> bool:
        """Asked as the turn begins. True: an earlier run stands, and ``call`` carries its reply. False: run it.

        May raise an ``ActordError``, which is the answer then. Called again when the turn has to begin again.
        """
        raise NotImplementedError

    def check(self, call: Call) -> None:
        """The method has returned and the reply is known: raise an ``ActordError`` if it can't be kept."""

    def join(self, call: Call, batch: Batch) -> None:
        """Note in the turn's own commit that it took effect. May not raise."""
        raise NotImplementedError


class Trace:
    """What tells the calls of one request from others: a W3C traceparent and an id, each "" where there is none."""

    __slots__ = ("id", "parent", "spans")

    def __init__(self, parent: str = "", id: str = "") -> None:
        self.parent = parent  # becomes this call's own once it has a span
        self.id = id
        self.spans: Any = None  # shards.tracing's, while it is recorded

    def named(self) -> dict[str, str]:
        """As a line of the log shows it; an id is made where there is none."""
        if not self.id:
            self.id = secrets.token_hex(8)
        return {"call": self.id, "traceparent": self.parent} if self.parent else {"call": self.id}

    def extras(self) -> dict[str, str]:
        """As the wire carries it, for the calls that this one makes."""
        found = {}
        if self.parent:
            found["trace"] = self.parent
        if self.id:
            found["rid"] = self.id
        return found


class Work:
    """What a turn runs: a method of the user's, or what stands in its place."""

    __slots__ = ("function", "label", "name", "timeout", "times")

    name: str
    label: bytes
    function: Any
    timeout: float | None
    times: Any  # ``Times``; None: its turns are not counted


class Lifecycle(Work):
    """Stands where a user's method would, when the runtime itself takes a turn: initialisation, deactivation."""

    __slots__ = ("run",)

    def __init__(self, name: str, timeout: float, run: Callable[[Call], Any]) -> None:
        self.times = None
        self.name = name
        self.label = name.encode()
        self.timeout = timeout
        self.run = run  # what it does with its turn: a coroutine, or the result


REFUSAL = Lifecycle("", 0.0, lambda turn: None)  # the method of a call that was refused before one was found


class Call:
    """``id`` and ``begun`` belong to the caller's link; ``deadline`` is in milliseconds of CLOCK_MONOTONIC."""

    __slots__ = (
        "aborted",
        "act",
        "alarm",
        "args",
        "begun",
        "block",
        "body",
        "cancelled",
        "cleared",
        "deadline",
        "effects",
        "ended",
        "flags",
        "head",
        "id",
        "kwargs",
        "limit",
        "method",
        "more",
        "once",
        "origin",
        "over",
        "queued",
        "reached",
        "sink",
        "started",
        "status",
        "task",
        "timer",
        "trace",
        "waits",
        "writes",
    )

    trace: Trace  # only with the flag TRACED

    def __init__(
        self,
        sink: Sink,
        id_: int,
        begun: Any,
        act: Activation,
        method: Method | Handler | Lifecycle,
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
        self.task: Any = None
        self.timer: Any = None
        self.writes: dict[str, bytes | None] | None = None
        self.cleared = False
        self.alarm = UNTOUCHED  # an Alarm, or None: removed
        self.block: Transaction | None = None  # the innermost open one
        self.more = False  # there is more than ``writes``: the activation knows what there is to join or undo
        self.effects: list[Effect] | None = None
        self.once: Once | None = None
        self.origin: Origin | None = None  # the actor that made the call
        self.waits: dict[Wait, None] | None = None  # the calls to other actors that it waits for
        self.reached = 0  # how many such calls may have applied something
        self.aborted = ""  # why ctx.abort was called, whatever the method made of it
        # the reply
        self.status = 200
        self.body = b""
        self.head: bytes | None = None

    def succeed(self, value: Any) -> None:
        """Set the reply from a method's result. ``CodecError`` when it can't be encoded."""
        if isinstance(value, Response):
            self.status = value.status
            self.body = body_of(value)
            self.head = value.head()
            if type(value) is not Response:
                self._stream(value)
        elif self.flags & MSGPACK:
            self.body = codec.encode(value)
            self.head = MSGPACK_HEAD
        else:
            self.body = json.dumps(value)

    def add(self, effect: Effect) -> None:
        """Have an effect join this turn's commit. The turn must be the one that runs."""
        if self.effects is None:
            self.effects = [effect]
            self.flags |= EFFECTS
            self.more = True
        else:
            self.effects.append(effect)

    def _stream(self, response: Response) -> None:
        from actord.shards.outflow import STREAMED, StreamedReply
        from actord.streaming import StreamingResponse

        if isinstance(response, StreamingResponse):
            if self.once is not None:
                raise CodecError("a streamed answer can't be kept for its idempotency key: answer with a Response.")
            self.body = STREAMED
            self.sink = StreamedReply(self.sink, response)

    def fail(self, error: ActordError) -> None:
        """Set the reply from an error."""
        self.effects = None
        self.status, self.body, self.head = problem_reply(error, msgpack=bool(self.flags & MSGPACK))
        if self.once is not None and self.once.unsure and error.applied == "no":
            self._fail_unsure(error)

    def _fail_unsure(self, error: ActordError) -> None:
        """The same error, which may be that of other calls too, without its claim that nothing was applied."""
        error.applied = "unknown"
        try:
            self.status, self.body, self.head = problem_reply(error, msgpack=bool(self.flags & MSGPACK))
        finally:
            error.applied = "no"

    def leave(self) -> None:
        """What happens as the reply passes the gate, for calls whose flags say that there is something."""
        effects = self.effects
        if effects is not None:
            self.effects = None
            for effect in effects:
                effect.leave(self)
        if self.flags & TIMING:
            self._time()

    def _time(self) -> None:
        """Add Server-Timing to the head."""
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
