"""Direct calls of the asynchronous client: one connection to each worker, shared by all calls.

Calls of one iteration of the loop leave in one write, and the answers of one commit come in one read. The promises are
in ``client_direct``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import cast

from actord.client_calls import GRACE_SECONDS, Answer, NoAnswer
from actord.client_direct import (
    FRAME_BYTES,
    NoWay,
    Result,
    Said,
    SlotTable,
    Terms,
    call_frame,
    hello,
    not_taken,
    read_map,
    too_late,
    unreachable,
)
from actord.client_wire import (
    CANCEL,
    CLIENT,
    DRAINING,
    ELSEWHERE,
    REPLY,
    STOPPED,
    Frame,
    Garbled,
    Reader,
    pack_batch,
)
from actord.limits import DIRECT_CALLS
from actord.slots import slot_of

SWEEP_SECONDS = 0.25
LATE_SECONDS = 0.05  # after its deadline a call that has not begun never will
GREETING_SECONDS = 5.0  # a worker that is being replaced greets when its successor is there
AGAIN_SECONDS, AGAIN_SECONDS_MAX = 0.05, 5.0
FIRST_LOOK_SECONDS = 1.0  # the first calls wait for the map so long at most
LASTING_SECONDS = 30.0  # between two looks at a server that does not allow it


class WorkerLink(asyncio.Protocol):
    """One connection to one worker; it is not used again after its end."""

    def __init__(self, table: SlotTable, news: Callable[[], None]) -> None:
        """``news``: the link takes no more calls, or the map is out of date."""
        self._loop = asyncio.get_running_loop()
        self._table = table
        self._news = news
        self.ready = False
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self._terms: Terms
        self._transport: asyncio.Transport | None = None
        self._reader = Reader()
        self._free = list(range(DIRECT_CALLS))
        self._waiting: dict[int, tuple[asyncio.Future[Result], float]] = {}  # with the deadline
        self._abandoned: set[int] = set()  # nobody waits; the id comes back with the answer
        self._queue: deque[asyncio.Future[None]] = deque()  # calls that wait for an id
        self._out: list[Frame] = []
        self._out_bytes = 0
        self._sweeping = False
        self._doubtful = False  # the worker may go on with what it has

    # -- calls

    def takes(self, body: bytes) -> bool:
        return self.ready and len(body) <= self._terms.body_bytes

    async def call(self, type_: str, name: str, method: str, key: str | None, deadline: float, body: bytes) -> Result:
        """Raises ``NoAnswer``; ``ActorUnavailable`` at the deadline of a call that has not begun."""
        while not self._free:
            await self._room(deadline)
        if not self.ready:
            raise not_taken("the worker is being replaced")
        id_ = self._free.pop()
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiting[id_] = (future, deadline)
        self._send(call_frame(id_, type_, name, method, key, deadline, body), len(body))
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)
        try:
            return await future
        except asyncio.CancelledError:
            self._give_up(id_)
            raise

    async def _room(self, deadline: float) -> None:
        place: asyncio.Future[None] = self._loop.create_future()
        self._queue.append(place)
        try:
            async with asyncio.timeout(max(0.0, deadline - monotonic())):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self._wake()  # its room is another's
            if isinstance(error, TimeoutError):
                raise too_late() from None
            raise

    def _wake(self) -> None:
        while self._queue:
            place = self._queue.popleft()
            if not place.done():  # nor cancelled
                place.set_result(None)
                break

    def _send(self, frame: Frame, size: int) -> None:
        size += FRAME_BYTES
        if not self._out:
            self._loop.call_soon(self._flush)
        elif self._out_bytes + size > self._terms.batch_bytes:
            self._flush()
            self._loop.call_soon(self._flush)
        self._out.append(frame)
        self._out_bytes += size

    def _flush(self) -> None:
        out, self._out, self._out_bytes = self._out, [], 0
        if out and self._transport is not None:
            self._transport.write(pack_batch(out))

    def _give_up(self, id_: int) -> None:
        if self._waiting.pop(id_, None) is not None and self._transport is not None:
            self._abandoned.add(id_)
            if self.ready:
                self._send((CANCEL, id_), 0)

    def _release(self, id_: int) -> None:
        self._terms.begun[id_] = 0
        self._free.append(id_)
        if self._queue:
            self._wake()

    def _sweep(self) -> None:
        self._sweeping = bool(self._waiting)
        if not self._waiting:
            return
        now = monotonic()
        for id_, (future, deadline) in list(self._waiting.items()):
            begun = bool(self._terms.begun[id_])
            if now > deadline + (GRACE_SECONDS if begun else LATE_SECONDS):
                self._give_up(id_)
                if not future.done():
                    future.set_exception(NoAnswer("none came in time", sent=True) if begun else too_late())
        self._loop.call_later(SWEEP_SECONDS, self._sweep)

    # -- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        transport.set_write_buffer_limits(high=1 << 30)  # bounded by the number of calls
        transport.write(hello(self._table, CLIENT))

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
            if not self.ready and not self.greeted.done():
                self._greet(frames.pop(0)) if frames else None
            for frame in frames:
                kind, id_ = frame[0], frame[1] if len(frame) > 1 else -1
                if kind == REPLY:
                    _, _, status, body, head = frame
                    found = self._waiting.pop(id_, None)
                    if found is None:
                        self._abandoned.remove(id_)
                    elif not found[0].done():
                        found[0].set_result((status, body, head))
                    self._release(id_)
                else:
                    self._other(kind, id_, frame)
        except (Garbled, LookupError, TypeError, ValueError):
            self.close()

    def _greet(self, frame: Frame) -> None:
        try:
            self._terms = Terms(frame, self._table, monotonic())
        except NoWay as error:
            self.greeted.set_exception(error)
            self.close()
            return
        self.ready = True
        self.greeted.set_result(None)

    def _other(self, kind: int, id_: int, frame: Frame) -> None:
        if kind == DRAINING:
            self.ready = False  # nothing is written from now on: else an answer might be lost with the connection
            self._send((STOPPED,), 0)
            self._flush()
            self._news()
        elif kind == ELSEWHERE:
            found = self._waiting.pop(id_, None)
            if found is None:
                self._abandoned.remove(id_)
            elif not found[0].done():
                found[0].set_exception(not_taken("the call is for another worker"))
            self._release(id_)
            if self.ready:
                self._news()
        else:
            raise Garbled("a frame that nobody asked for")

    def connection_lost(self, exc: Exception | None) -> None:
        was_ready, self.ready = self.ready, False
        self._transport = None
        self._out = []
        if not self.greeted.done():
            self.greeted.set_exception(NoWay("the worker does not let us in"))
            self.greeted.exception()  # seen, if nobody waits any more
        for id_, (future, _) in self._waiting.items():
            if not future.done():
                sent = self._doubtful or bool(self._terms.begun[id_])
                future.set_exception(NoAnswer("the worker was lost", sent=sent))
        self._waiting.clear()
        self._free = [-1]  # whoever waits for one is told that the link is not ready
        for place in self._queue:
            if not place.done():
                place.set_result(None)
        if was_ready:
            self._news()

    def close(self) -> None:
        """Calls that are not answered are lost; whether they are made is unknown."""
        self._doubtful = True
        self.ready = False
        if self._transport is not None:
            self._transport.abort()


class Links:
    """The links to all workers, kept up by a task. ``fetch`` asks the front for the map."""

    def __init__(self, fetch: Callable[[], Awaitable[Answer]]) -> None:
        self._fetch = fetch
        self._said = Said()
        self._table: SlotTable | None = None
        self._links: list[WorkerLink | None] = []
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._looked = asyncio.Event()  # the first look is over
        self._news = asyncio.Event()

    async def find(self, type_: str, name: str) -> WorkerLink | None:
        """The link to the owner of a name, if there is one now. The first callers wait for the map."""
        if self._closed:
            return None
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep())
        if not self._looked.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LOOK_SECONDS):
                    await self._looked.wait()
            self._looked.set()
        if self._table is None:
            return None
        return self._links[self._table.owner[slot_of(type_, name)]]

    async def close(self) -> None:
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for link in self._links:
            if link is not None:
                link.close()

    async def _keep(self) -> None:
        """Look at the map, connect what is not connected, wait for news; later and later while it does not work."""
        delay = AGAIN_SECONDS
        while True:
            self._news.clear()
            try:
                await self._look()
                await self._connect()
            except NoWay as error:
                self._said.say(str(error))
                self._looked.set()
                await asyncio.sleep(LASTING_SECONDS if error.lasting else delay)
                delay = min(2 * delay, AGAIN_SECONDS_MAX)
                continue
            self._said.say("")
            self._looked.set()
            delay = AGAIN_SECONDS
            await self._news.wait()

    async def _look(self) -> None:
        """Ask for the map; links to the workers of an old one are given up."""
        try:
            table = read_map(await self._fetch())
        except NoAnswer as error:
            raise NoWay(error.reason) from None
        if self._table is None or table != self._table:
            for link in self._links:
                if link is not None:
                    link.ready = False  # what is under way is answered
            self._links = [None] * len(table.paths)
            self._table = table

    async def _connect(self) -> None:
        missing = [index for index, link in enumerate(self._links) if link is None or not link.ready]
        failures = [
            error
            for error in await asyncio.gather(*map(self._open, missing), return_exceptions=True)
            if isinstance(error, BaseException)
        ]
        for error in sorted(failures, key=lambda error: isinstance(error, NoWay)):
            raise error

    async def _open(self, index: int) -> None:
        table = self._table
        assert table is not None
        link = WorkerLink(table, self._news.set)
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                await asyncio.get_running_loop().create_unix_connection(lambda: link, table.paths[index])
                await link.greeted
        except OSError as error:  # TimeoutError is one
            link.close()
            raise unreachable(error) from None
        except BaseException:
            link.close()
            raise
        self._links[index] = link
