"""An upgrade at the front door: its handler answers it as any request, or leaves the socket to an actor."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from actord.errors import ActordError, ActorUnavailable
from actord.http import Request, Response
from actord.shards.call import body_of
from actord.shards.door import problem_of
from actord.shards.forwarded import Forwarded
from actord.shards.outbound import Visit, current_visit
from actord.shards.socket_events import Party
from actord.shards.watched import watched
from actord.shards.wire import WS_FORWARD, WS_REFUSE
from actord.streaming import StreamingResponse

if TYPE_CHECKING:
    from actord.shards.door import FrontDoor
    from actord.shards.socket_events import SocketEvents


class DoorSocket(Party):
    """One upgrade, from its request to the handler's answer: the socket is never this worker's."""

    __slots__ = ("_door", "_events", "_seq", "_sid", "_task")

    def __init__(
        self, door: FrontDoor, handler: Any, events: SocketEvents, sid: int, seq: int, request: Request, deadline: int
    ) -> None:
        self._door = door
        self._events = events
        self._sid = sid
        self._seq = seq
        self._task = asyncio.get_running_loop().create_task(self._serve(handler, request, deadline))
        self._task.add_done_callback(self._end)

    async def _serve(self, handler: Any, request: Request, deadline: int) -> None:
        door, connection, sid = self._door, self._events.connection, self._sid
        door.open += 1
        visit = Visit(deadline, request)
        visit.upgrade = True
        current_visit.set(visit)
        limit = min(door.time_limit, deadline / 1000 - monotonic())
        scope = asyncio.timeout(limit)
        try:
            async with scope:
                response = await watched(handler(request, door.env), "the front door")
            if isinstance(response, Forwarded):
                fields = response.request.to_wire()
                connection.put_socket((WS_FORWARD, sid, response.type, response.name, fields, response.lines()), 0)
                return
            if not isinstance(response, Response):
                raise TypeError(f"fetch must return a Response, not {type(response).__name__}")
            if isinstance(response, StreamingResponse):
                raise ActordError("The answer to an upgrade can't be a stream.")
            status, body, head = response.status, body_of(response), response.head()
        except BaseException as error:
            task = asyncio.current_task()
            if type(error) is asyncio.CancelledError and task is not None and task.cancelling():
                raise
            status, body, head = problem_of(error, visit, limit if scope.expired() else None)
        finally:
            door.open -= 1
        connection.put_socket((WS_REFUSE, sid, status, body, head), 0)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._events.parties.pop(self._sid, None)
        if task.cancelled():
            self._events.refuse(self._sid, self._seq, ActorUnavailable("The opening was given up."))
        else:
            self._events.done(self._sid, self._seq)

    def message(self, seq: int, data: str | bytes) -> None:
        self._events.done(self._sid, seq)

    def closed(self, seq: int, code: int, reason: str) -> None:
        """The client went away. The opening is answered before this is done."""
        self._task.add_done_callback(lambda _: self._events.done(self._sid, seq))
        self._task.cancel()

    def lost(self) -> None:
        self._task.cancel()
