"""The user's stateless entry: ``async def fetch(request, env) -> Response``, run in a worker, one task a request."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any

from actord import json
from actord.errors import ActordError, ActorFetchTimeoutError, ActorMethodError, Applied
from actord.http import Request, Response
from actord.shards.stub import Visit, current_visit
from actord.shards.wire import TIMING

if TYPE_CHECKING:
    from actord.shards.intake import Connection
    from actord.shards.registry import FrontDoor as Handler

log = logging.getLogger("actord.door")

_PROBLEM = b"Content-Type: application/problem+json\r\n"


class FrontDoor:
    """Nothing waits for a commit here: what an actor answered has passed its own output gate already."""

    def __init__(self, handler: Handler, env: Any, *, time_limit: float) -> None:
        self._handler = handler
        self._env = env
        self._time_limit = time_limit
        self.open = 0

    async def serve(
        self, sink: Connection, id_: int, request: Request, flags: int, deadline: int, queued: float
    ) -> None:
        """Run the handler and reply. Cancelled when the client goes away."""
        self.open += 1
        try:
            visit = Visit(deadline)
            current_visit.set(visit)
            started = monotonic()
            limit = min(self._time_limit, deadline / 1000 - started)
            try:
                async with asyncio.timeout(limit):
                    response = await self._handler(request, self._env)
                if not isinstance(response, Response):
                    raise TypeError(f"fetch must return a Response, not {type(response).__name__}")
                status, body, head = response.status, response.body, response.head()
            except asyncio.CancelledError:
                status, body, head = 503, b"", b""  # nobody reads it; the caller's id has to come back
            except BaseException as error:
                status, body, head = _problem(error, visit, limit)
            if flags & TIMING:
                head += b"Server-Timing: queue;dur=%.3f, run;dur=%.3f\r\n" % (
                    (started - queued) * 1e3,
                    (monotonic() - started) * 1e3,
                )
            sink.put_reply(id_, status, body, head)
            sink.flush()
        finally:
            self.open -= 1
            sink.doors.pop(id_, None)


def _problem(error: BaseException, visit: Visit, limit: float) -> tuple[int, bytes, bytes]:
    """An error that the handler let through, with the truth about the calls it had made."""
    if isinstance(error, TimeoutError) and not isinstance(error, ActordError):
        problem: ActordError = ActorFetchTimeoutError(f"The front door ran for more than {limit:g} s.")
        applied: Applied = "no" if visit.calls == 0 else "unknown"
    elif isinstance(error, ActordError):
        problem = error
        applied = error.applied if visit.calls <= 1 else "unknown"
    else:
        log.error("the front door failed", exc_info=error)
        name = type(error).__name__
        problem = ActorMethodError(f"The front door raised {name}: {error}", error_type=name)
        applied = "no" if visit.calls == 0 else "unknown"
    problem.applied = applied
    head = _PROBLEM
    if problem.retry_after is not None:
        head += b"Retry-After: %d\r\n" % max(1, round(problem.retry_after))
    return problem.http_status, json.dumps(problem.to_problem()), head
