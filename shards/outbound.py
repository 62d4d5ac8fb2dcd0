"""Calls from here to actors: from a turn of another actor, from the front door. One way in, whoever owns the target.

1. Values pass the codec also between actors of one worker, so neither side can change what the other holds.
2. A call never takes longer than its caller still waits: its deadline is the end of the caller's turn, or of the
   request at the front door. A caller that stops waiting takes back what has not begun.
3. Only a turn that runs may call; what it left behind gets ``TurnEnded``.
4. A caller that fails after a call of its own may have applied something does not claim that nothing was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Any

from actord import codec
from actord.errors import ActordError, ActorUnavailable, TurnEnded, from_problem
from actord.http import Request, Response
from actord.shards.call import TRACED, Call, Sink, Trace, current_turn
from actord.shards.forwarded import Forwarded, is_upgrade
from actord.shards.inflow import Chunks, Inflow
from actord.shards.link import Link, Waiter
from actord.shards.slots import slot_of
from actord.shards.waits import Reply, Wait, waits_of
from actord.shards.wire import CALLX, END, FETCH, MORE, MSGPACK, PAIR
from actord.streaming import StreamingResponse
from actord.tracecontext import request_id, traceparent

if TYPE_CHECKING:
    from actord.shards.dispatch import Dispatcher
    from actord.shards.outbox import Outbox
    from actord.shards.registry import ActorType, Method


class Visit:
    """One request at the front door: until when its calls may take, and how many may have applied something."""

    __slots__ = ("deadline", "reached", "trace", "upgrade")

    def __init__(self, deadline: int, request: Request | None = None) -> None:
        self.deadline = deadline  # milliseconds of CLOCK_MONOTONIC; 0: each call has its own
        self.reached = 0
        self.upgrade = False  # the request asks for a socket
        self.trace = None if request is None else trace_of(request)


def trace_of(request: Request) -> Trace | None:
    """What a request to the front door brings along; its front passes on headers as they are."""
    headers = request.headers
    if "traceparent" not in headers and "x-request-id" not in headers:
        return None
    trace = Trace(traceparent(headers.get("traceparent", "")), request_id(headers.get("x-request-id", "")))
    return trace if trace.parent or trace.id else None


current_visit: ContextVar[Visit | None] = ContextVar("current_visit", default=None)


class Outbound:
    """Decides where a call goes: to this worker's own dispatcher, or over a link to the name's owner."""

    def __init__(self, links: Callable[[int], Link], call_deadline: float) -> None:
        self._link_of = links  # by slot
        self._call_deadline = call_deadline
        self.dispatcher: Dispatcher | None = None  # set once, when the worker is composed
        self.outbox: Outbox  # the same
        self.parent: Callable[[], str] | None = None  # the traceparent of what is recorded now, while traces are on

    async def call(
        self,
        type_: ActorType,
        name: str,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        key: str | None = None,
    ) -> Any:
        """The method's result; its errors are raised as their classes. ``key`` is an idempotency key."""
        dispatcher = self.dispatcher
        assert dispatcher is not None
        sent = codec.encode([list(args), kwargs])
        wait = Wait((type_.name, name))
        party, deadline, extras = self._party(wait)
        if key is not None:
            extras["key"] = key
        try:
            slot = slot_of(type_.name, name)
            if dispatcher.shard_of[slot] is not None:
                bound = method.binder.from_call(*codec.decode(sent))
                call = dispatcher.local(_Local(wait), type_.name, name, method, *bound, sent, extras, deadline)
                status, body, _ = await _local(wait, call)
            else:
                link = self._link_of(slot)
                id_ = link.submit(
                    _Remote(wait), CALLX, type_.name, name, method.name, extras, MSGPACK | PAIR, deadline, sent
                )
                status, body, _ = await _remote(wait, link, id_)
            value = codec.decode(body)
            if status >= 400:
                raise _reported(value)
            return value
        except ActordError as error:
            if error.applied == "no":
                party.reached -= 1
            raise
        finally:
            _forget(party, wait)

    async def fetch(self, type_: ActorType, name: str, request: Request) -> Response:
        """The actor's own response; errors of the runtime are raised as their classes.

        An upgrade that the front door passes on is answered at once: the socket is opened when it returns that.
        """
        visit = current_visit.get()
        if visit is not None and visit.upgrade and current_turn.get() is None and is_upgrade(request):
            return Forwarded(type_.name, name, request)
        dispatcher = self.dispatcher
        assert dispatcher is not None
        fields, body = request.to_wire(), await request.body()
        wait = Wait((type_.name, name))
        party, deadline, extras = self._party(wait)
        try:
            slot = slot_of(type_.name, name)
            if dispatcher.shard_of[slot] is not None:
                args = (Request.from_wire(fields, body),)
                call = dispatcher.local(_Local(wait), type_.name, name, type_.fetch, args, {}, body, extras, deadline)
                status, answer, head = await _local(wait, call)
            else:
                link = self._link_of(slot)
                remote = _Remote(wait)
                id_ = link.submit(remote, FETCH, type_.name, name, fields, extras, MSGPACK, deadline, body)
                remote.begin = lambda chunks: Inflow(
                    chunks, lambda size: link.grant(id_, size), lambda: link.cancel(id_)
                )
                status, answer, head = await _remote(wait, link, id_)
            if not isinstance(answer, bytes):
                assert head is not None
                return StreamingResponse.passed_on(answer, status, head)
            if status >= 400 and head is not None and head.startswith(b"Content-Type: application/msgpack\r\n"):
                raise _reported(codec.decode(answer))
            return Response.from_wire(status, answer, head)
        except ActordError as error:
            if error.applied == "no":
                party.reached -= 1
            raise
        finally:
            _forget(party, wait)

    def _party(self, wait: Wait) -> tuple[Call | Visit, int, dict[str, Any]]:
        """Who calls, until when they wait, and what the target's worker has to know of them."""
        turn = current_turn.get()
        if turn is not None:
            if turn.over:
                raise TurnEnded("A call can be made only by the turn that runs: not by a task that outlives it.")
            waits_of(turn, wait)
            turn.reached += 1
            act = turn.act
            extras: dict[str, Any] = {"from": [act.host.type.name, act.name, wait.born]}
            if turn.flags & TRACED:
                extras |= turn.trace.extras()
            self._below(extras)
            return turn, int((turn.started + turn.limit) * 1000), extras
        visit = current_visit.get() or Visit(int((monotonic() + self._call_deadline) * 1000))
        visit.reached += 1
        extras = {} if visit.trace is None else dict(visit.trace.extras())
        self._below(extras)
        return visit, visit.deadline or int((monotonic() + self._call_deadline) * 1000), extras

    def _below(self, extras: dict[str, Any]) -> None:
        """A span that is open where the call is made is its parent."""
        if self.parent is not None:
            parent = self.parent()
            if parent:
                extras["trace"] = parent


async def _local(wait: Wait, call: Call) -> Reply:
    try:
        return await wait.future
    except asyncio.CancelledError:
        call.cancelled = True
        raise


async def _remote(wait: Wait, link: Link, id_: int) -> Reply:
    try:
        return await wait.future
    except asyncio.CancelledError:
        link.cancel(id_)
        raise


def _reported(problem: dict[str, Any]) -> ActordError:
    """What an actor answered, as an error here; a fault is in its worker's log, and has no place in every caller's."""
    error = from_problem(problem)
    error.reported = True
    return error


def _forget(party: Call | Visit, wait: Wait) -> None:
    if type(party) is Call and party.waits is not None:
        party.waits.pop(wait, None)


class _Local(Sink):
    __slots__ = ("_wait",)

    def __init__(self, wait: Wait) -> None:
        self._wait = wait

    def put(self, call: Call) -> None:
        if not self._wait.future.done():
            self._wait.future.set_result((call.status, call.body, call.head))

    def put_stream(self, call: Call, response: StreamingResponse) -> None:
        if not self._wait.future.done():
            self._wait.future.set_result((call.status, response.body_iterator, call.head))


class _Remote(Waiter):
    __slots__ = ("_chunks", "_wait", "begin")

    begin: Callable[[Chunks], Inflow]  # how to read an answer that is a stream

    def __init__(self, wait: Wait) -> None:
        self._wait = wait
        self._chunks: Chunks | None = None

    def on_reply(self, status: int, body: bytes, head: bytes | None) -> None:
        if not self._wait.future.done():
            self._wait.future.set_result((status, body, head))

    def on_head(self, status: int, head: bytes) -> None:
        self._chunks = chunks = Chunks()
        stream = self.begin(chunks)
        if not self._wait.future.done():
            self._wait.future.set_result((status, stream, head))

    def on_data(self, data: bytes, state: int) -> None:
        assert self._chunks is not None
        self._chunks.feed(data)
        if state != MORE:
            self._chunks.end(None if state == END else _broken_off())

    def on_lost(self, begun: bool) -> None:
        if self._chunks is not None:
            self._chunks.end(_broken_off())
            return
        if not self._wait.future.done():
            self._wait.future.set_exception(lost(begun))


def _broken_off() -> ActorUnavailable:
    return ActorUnavailable("The streamed answer broke off.", applied="unknown")


def lost(begun: bool) -> ActorUnavailable:
    """The error for a call whose worker went away."""
    if begun:
        return ActorUnavailable(
            "The worker went away while the call ran: whether its writes were kept is unknown.",
            applied="unknown",
            retry_after=1,
        )
    return ActorUnavailable("The worker is away, and did not come back in time.", retry_after=1)
