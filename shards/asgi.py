"""An ASGI 3 application as the front door: one task for each request, and for each socket (asgi_socket.py).

1. Messages in the order of the specification: anything else raises in ``send``, and nothing of it is sent.
2. A response that is complete with its first body message leaves whole; any other is a stream (shards/outflow.py).
3. When the client has gone, ``receive`` gives ``http.disconnect`` and ``send`` raises ``OSError`` (spec version 2.4);
   the application is not cancelled, so that what it does after its answer runs to its end.
4. An application that raises, returns or runs over its time before its response has begun is answered with a problem;
   after that its stream breaks off. The limit is for the time until the response begins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from actord.http import Request, check_status
from actord.measures import Requests
from actord.shards.asgi_messages import ClientGone, body_of, response_head
from actord.shards.door import more_time, problem_of
from actord.shards.inflow import BodyBroken
from actord.shards.lifespan import VERSIONS, Application, Lifespan, Message
from actord.shards.outbound import Visit, current_visit
from actord.shards.outflow import LengthError, Outflow
from actord.shards.problem import log_fault
from actord.shards.sockets import offered_subprotocols
from actord.shards.watched import watched
from actord.shards.wire import BODY_FOLLOWS, TIMING

if TYPE_CHECKING:
    from actord.shards.asgi_socket import AsgiSocket
    from actord.shards.intake import Connection
    from actord.shards.socket_events import Party, SocketEvents

log = logging.getLogger("actord.asgi")


class AsgiDoor:
    """``open``: requests and sockets whose application has not returned yet."""

    def __init__(
        self, app: Application, *, time_limit: float, root_path: str = "", server: tuple[str, int] | None = None
    ) -> None:
        self._app = app
        self._time_limit = time_limit
        self._root_path = root_path
        self._server = server
        self._lifespan = Lifespan(app)
        self._started = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: set[AsgiSocket] = set()
        self._draining = False
        self.open = 0
        self.requests = Requests()

    async def startup(self, limit: float) -> None:
        """Raises ``ProgramError``. Requests that come before wait."""
        await self._lifespan.startup(limit)
        self._started.set()

    async def shutdown(self, limit: float) -> None:
        await self._lifespan.shutdown(limit)

    def begin(self, sink: Connection, id_: int, request: Request, flags: int, deadline: int, queued: float) -> None:
        """Serve a request; what it answers goes to the sink."""
        cycle = _Cycle(sink, id_, request, flags, queued)
        sink.doors[id_] = cycle
        scope = self._scope(request, "http") | {"method": request.method}
        self._start(self._serve(cycle, request, scope, deadline))

    def open_socket(self, events: SocketEvents, sid: int, seq: int, request: Request, deadline: int) -> Party | None:
        """An upgrade: the application decides about it, and serves the socket. None: not here."""
        from actord.shards.asgi_socket import EXTENSIONS, AsgiSocket  # which needs this package's sockets

        if self._draining:
            events.map[sid] = seq - 1  # it has not begun: the front asks this worker's successor
            return None
        offered = offered_subprotocols(request)
        socket = AsgiSocket(events, sid, seq, offered)
        scope = self._scope(request, "websocket")
        scope |= {
            "scheme": "wss" if request.scheme == "https" else "ws",
            "subprotocols": list(offered),
            "extensions": {name: {} for name in EXTENSIONS},
        }
        self._sockets.add(socket)
        task = self._start(self._serve(socket, request, scope, deadline))
        task.add_done_callback(lambda _: self._sockets.discard(socket))
        return socket

    def drain(self) -> None:
        """This worker leaves: its sockets can't go with another one."""
        self._draining = True
        for socket in self._sockets:
            socket.restart()

    def _start(self, run: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(run)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, cycle: _Cycle | AsgiSocket, request: Request, scope: dict[str, Any], deadline: int) -> None:
        self.open += 1
        visit = cycle.visit = Visit(deadline, request)
        current_visit.set(visit)
        started = cycle.started = monotonic()
        limit = min(self._time_limit, deadline / 1000 - started)
        try:
            async with asyncio.timeout(limit) as cycle.timeout:
                request.on_progress(lambda: more_time(cycle.timeout, visit, limit))
                await self._started.wait()
                if self._lifespan.state is not None:
                    scope["state"] = self._lifespan.state.copy()
                await watched(self._run(scope, cycle), "the front door")
            error: BaseException | None = None
        except BaseException as raised:
            error = raised
        finally:
            self.open -= 1
        cycle.close(error, limit if cycle.timeout.expired() else None)
        if isinstance(cycle, _Cycle):
            self.requests.take(cycle.answered, monotonic() - cycle.queued)

    async def _run(self, scope: dict[str, Any], cycle: _Cycle | AsgiSocket) -> None:
        await self._app(scope, cycle.receive, cycle.send)

    def _scope(self, request: Request, kind: str) -> dict[str, Any]:
        root = self._root_path
        return {
            "type": kind,
            "asgi": VERSIONS,
            "http_version": "1.1",
            "scheme": request.scheme,
            "path": root + unquote(request.raw_path),
            "raw_path": (root + request.raw_path).encode("ascii"),
            "query_string": request.query_string.encode("ascii"),
            "root_path": root,
            "headers": [(n.encode("ascii"), v.encode("latin-1")) for n, v in request.headers.multi_items()],
            "client": None if request.client is None else (request.client, 0),
            "server": self._server,
            "extensions": {},
        }


class _Cycle:
    """One request: what its application receives and sends."""

    __slots__ = (
        "_body",
        "_complete",
        "_flags",
        "_gone",
        "_head",
        "_id",
        "_length",
        "_outflow",
        "_request",
        "_sink",
        "_status",
        "_taken",
        "answered",
        "done",
        "queued",
        "started",
        "timeout",
        "visit",
    )

    timeout: asyncio.Timeout
    started: float
    visit: Visit

    def __init__(self, sink: Connection, id_: int, request: Request, flags: int, queued: float) -> None:
        self._sink = sink
        self._id = id_
        self._request = request
        self._flags = flags
        self.queued = queued
        self.answered = 0  # with this status; 0: the client went away before
        self._body = request.stream() if flags & BODY_FOLLOWS else None
        self._taken = False  # the whole body was received
        self._gone = asyncio.Event()  # the client has, or the response is complete
        self._status = 0  # of the response, once it was started
        self._head = b""
        self._length: int | None = None
        self._outflow: Outflow | None = None
        self._complete = False  # it has sent all of it
        self.done = False  # the caller has got its last frame

    # -- the sink's side

    def cancel(self) -> None:
        """The client has gone, or the worker drains and does not wait any longer: the application is told."""
        if not self.done:
            if self._outflow is None:
                self._reply(503, b"", b"")
                self.answered = 0
            else:
                self._outflow.break_off()
            self._over()

    # -- the application's side

    async def receive(self) -> Message:
        if not self._taken and not self._gone.is_set():
            if self._body is None:
                self._taken = True
                return {"type": "http.request", "body": await self._request.body(), "more_body": False}
            try:
                part = await anext(self._body, None)
            except BodyBroken:
                part = b""
            if self._gone.is_set():
                return {"type": "http.disconnect"}
            self._taken = part is None
            return {"type": "http.request", "body": part or b"", "more_body": part is not None}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self._gone.is_set():
            if self._complete:
                raise RuntimeError(f"{kind!r} comes after a response that is complete")
            raise ClientGone("the client has gone")
        if not self._status:
            if kind != "http.response.start":
                raise RuntimeError(f"a response begins with 'http.response.start', not with {kind!r}")
            self._start(message)
            return
        if kind != "http.response.body":
            raise RuntimeError(f"'http.response.body' was expected, not {kind!r}")
        body = body_of(message)
        more = bool(message.get("more_body", False))
        if self._outflow is None:
            self.timeout.reschedule(None)
            self.visit.deadline = 0
            if not more:
                if self._length is not None and self._length != len(body) and self._status not in (204, 304):
                    raise LengthError(f"the body has {len(body)} bytes, its Content-Length says {self._length}")
                self._reply(self._status, body, self._timed(self._head))
                self._complete = True
                self._over()
                return
            head = self._timed(self._head)
            if self._length is not None:
                head += b"content-length: %d\r\n" % self._length
            self._outflow = Outflow(self._sink, self._id, self.cancel)
            self._outflow.begin(self._status, head, self._length)
            self.answered = self._status
        if body:
            await self._outflow.send(body)
            if self._gone.is_set():
                raise ClientGone("the client has gone")
        if not more:
            self._outflow.end()
            self._complete = True
            self._over()

    def _start(self, message: Message) -> None:
        status = message["status"]
        check_status(status)
        self._head, self._length = response_head(message.get("headers", ()))
        self._status = int(status)

    # -- the end

    def close(self, error: BaseException | None, over_limit: float | None) -> None:
        """The application has ended."""
        if self.done:
            if error is not None and not isinstance(error, ClientGone | asyncio.CancelledError):
                log_fault(log, "the application failed after its response", error)
            return
        if error is None:
            error = RuntimeError(
                "the application returned in the middle of its response"
                if self._status
                else "the application returned without a response"
            )
        if self._outflow is not None:
            log_fault(log, "the application broke its response off", error)
            self._outflow.break_off()
        else:
            status, body, head = problem_of(error, self.visit, over_limit)
            self._reply(status, body, self._timed(head))
        self._over()

    def _reply(self, status: int, body: bytes, head: bytes) -> None:
        self._sink.doors.pop(self._id, None)
        self._sink.put_reply(self._id, status, body, head)
        self.answered = status
        self._sink.flush()

    def _over(self) -> None:
        self.done = True
        self._gone.set()

    def _timed(self, head: bytes) -> bytes:
        if not self._flags & TIMING:
            return head
        queue, run = (self.started - self.queued) * 1e3, (monotonic() - self.started) * 1e3
        return head + b"Server-Timing: queue;dur=%.3f, run;dur=%.3f\r\n" % (queue, run)
