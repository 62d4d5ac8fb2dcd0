"""The user's stateless entry: ``async def fetch(request, env) -> Response``, run in a worker, one task a request."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from actord.errors import ActordError, ActorFetchTimeoutError
from actord.http import Request, Response
from actord.measures import Requests
from actord.shards.call import body_of
from actord.shards.outbound import Visit, current_visit
from actord.shards.outflow import Outflow
from actord.shards.problem import PROBLEM_HEAD, log_fault, method_error, problem_reply
from actord.shards.watched import watched
from actord.shards.wire import TIMING
from actord.streaming import StreamingResponse

if TYPE_CHECKING:
    from actord.shards.intake import Connection
    from actord.shards.registry import FrontDoor as Handler
    from actord.shards.socket_events import Party, SocketEvents

log = logging.getLogger("actord.door")


class FrontDoor:
    """Nothing waits for a commit here: what an actor answered has passed its own output gate already."""

    def __init__(self, handler: Handler, env: Any, *, time_limit: float) -> None:
        self._handler = handler
        self.env = env
        self.time_limit = time_limit
        self.open = 0
        self.requests = Requests()

    def begin(self, sink: Connection, id_: int, request: Request, flags: int, deadline: int, queued: float) -> None:
        """Serve a request, in a task of its own; what it answers goes to the sink."""
        task = asyncio.get_running_loop().create_task(self._serve(sink, id_, request, flags, deadline, queued))
        sink.doors[id_] = task
        task.add_done_callback(lambda task: self._end(sink, id_, task))

    async def _serve(
        self, sink: Connection, id_: int, request: Request, flags: int, deadline: int, queued: float
    ) -> None:
        """Run the handler and reply. Cancelled when the client goes away."""
        self.open += 1
        status = 0
        try:
            visit = Visit(deadline, request)
            current_visit.set(visit)
            started = monotonic()
            limit = min(self.time_limit, deadline / 1000 - started)
            scope = asyncio.timeout(limit)
            try:
                response: Response | None = None
                request.on_progress(lambda: more_time(scope, visit, limit))
                async with scope:
                    response = await watched(self._handler(request, self.env), "the front door")
                if not isinstance(response, Response):
                    raise TypeError(f"fetch must return a Response, not {type(response).__name__}")
                status, body, head = response.status, body_of(response), response.head()
            except BaseException as error:
                response = None
                task = asyncio.current_task()
                if type(error) is asyncio.CancelledError and task is not None and task.cancelling():
                    return  # nobody reads an answer; ``_end`` gives the caller's id back
                status, body, head = problem_of(error, visit, limit if scope.expired() else None)
            if flags & TIMING:
                head += b"Server-Timing: queue;dur=%.3f, run;dur=%.3f\r\n" % (
                    (started - queued) * 1e3,
                    (monotonic() - started) * 1e3,
                )
            request.on_progress(lambda: None)
            if isinstance(response, StreamingResponse):
                await _stream(sink, id_, response, head, visit)
                return
            del sink.doors[id_]
            sink.put_reply(id_, status, body, head)
            sink.flush()
        finally:
            self.open -= 1
            self.requests.take(status, monotonic() - queued)

    def open_socket(self, events: SocketEvents, sid: int, seq: int, request: Request, deadline: int) -> Party:
        """An upgrade on a path of the front door. Answered by WS_REFUSE or WS_FORWARD, and WS_DONE."""
        from actord.shards.door_socket import DoorSocket  # which needs this module

        return DoorSocket(self, self._handler, events, sid, seq, request, deadline)

    @staticmethod
    def _end(sink: Connection, id_: int, task: asyncio.Task[None]) -> None:
        """The request's task is over. If it did not answer (cancelled, maybe before its first step), answer now."""
        if sink.doors.get(id_) is task:
            del sink.doors[id_]
            sink.put_reply(id_, 503, b"", b"")
            sink.flush()


def more_time(scope: asyncio.Timeout, visit: Visit, limit: float) -> None:
    """A part of the request's body was read: the limit is for the time without one."""
    visit.deadline = int((monotonic() + limit) * 1000)
    if scope.when() is not None:
        scope.reschedule(asyncio.get_running_loop().time() + limit)


async def _stream(sink: Connection, id_: int, response: StreamingResponse, head: bytes, visit: Visit) -> None:
    """The answer is a stream. It has no deadline; each call to an actor in it has one of its own."""
    visit.deadline = 0
    task = asyncio.current_task()
    assert task is not None
    outflow = Outflow(sink, id_, task.cancel)
    outflow.begin(response.status, head, response.length)
    await outflow.pump(response, "the front door")


def problem_of(error: BaseException, visit: Visit, over_limit: float | None) -> tuple[int, bytes, bytes]:
    """An error that the handler let through, with the truth about the calls it had made."""
    kind = type(error)  # isinstance would ask the error itself
    if over_limit is not None and issubclass(kind, TimeoutError):
        problem: ActordError = ActorFetchTimeoutError(f"The front door ran for more than {over_limit:g} s.")
    elif issubclass(kind, ActordError):
        problem = cast(ActordError, error)
    else:
        problem = method_error(error, "The front door")
        log_fault(log, "the front door failed", error)
    problem.applied = "unknown" if visit.reached else "no"
    status, body, head = problem_reply(problem, msgpack=False)
    return status, body, head or PROBLEM_HEAD
