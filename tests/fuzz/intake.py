"""A whole worker's core that takes batches from a caller, or a direct client, who sends whatever it likes."""

from __future__ import annotations

import asyncio
import atexit
import logging
import mmap
import shutil
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from actord import Request, Response, StatefulActor, StreamingResponse, WebSocket
from actord.limits import BEGUN_BYTES
from actord.settings import Http
from actord.shards.direct import CLIENT, DirectDoor
from actord.shards.intake import Connection
from actord.shards.wire import (
    CALL,
    CALLX,
    CANCEL,
    DOOR,
    FETCH,
    HELLO,
    MSGPACK,
    PAIR,
    TIMING,
    VERSION,
    WS_CLOSED,
    WS_DOOR,
    WS_HELD,
    WS_MESSAGE,
    WS_OPEN,
    Frame,
    pack_batch,
)

from tests.support.harness import Core

LATE = 1 << 60
STEPS = 12


class Thing(StatefulActor):
    async def add(self, n: int = 1) -> int:
        total: int = await self.ctx.storage.get("n", 0) + n
        await self.ctx.storage.put("n", total)
        return total

    async def echo(self, value: Any = None) -> Any:
        return value

    async def web_socket(self, ws: WebSocket, request: Request) -> None:
        ws.send("hello")

    async def web_socket_message(self, ws: WebSocket, data: Any) -> None:
        ws.attachment = data
        self.ctx.broadcast(data)

    async def web_socket_close(self, ws: WebSocket, code: int, reason: str) -> None:
        self.ctx.broadcast(f"{code} {reason}", exclude=ws)

    async def fetch(self, request: Request) -> Response:
        return Response.text(f"{request.method} {request.path}")


async def door(request: Request, env: Any) -> Response:
    return StreamingResponse(chunks(), media_type="x/y") if request.path == "/s" else Response.text(request.path)


async def chunks() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield b"x" * 10_000


class Transport:
    """A caller's socket, as far as a connection uses it."""

    def __init__(self) -> None:
        self.closed = False

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class _World:
    def __init__(self, direct: bool) -> None:
        self.direct = direct
        self.loop = asyncio.new_event_loop()
        self.faults: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.count = 0
        self.loop.run_until_complete(self._make())

    async def _make(self) -> None:
        self.core = Core(Thing, front_door=door, mailbox=10)
        self.core.runner.on_bug = self.faults.append
        folder = tempfile.mkdtemp(prefix="actord-fuzz-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self.door = DirectDoor(self.core.dispatcher, Http(), runtime_dir=folder, index=0, epoch="e", ticket="t")

    def connect(self, transport: Transport) -> Connection:
        connection = self.door() if self.direct else Connection(self.core.dispatcher)
        connection.connection_made(transport)  # type: ignore[arg-type]
        if self.direct:
            connection.data_received(pack_batch([(HELLO, VERSION, CLIENT, "t")]))
        else:
            connection.begun = mmap.mmap(-1, BEGUN_BYTES)
        return connection

    async def take(self, data: bytes) -> None:
        transport = Transport()
        connection = self.connect(transport)
        connection.data_received(len(data).to_bytes(4, "little") + data)
        for _ in range(STEPS):
            await asyncio.sleep(0)
        if self.direct or not transport.closed:
            connection.connection_lost(None)
        assert (self.door.waiting, self.door.receiving, len(self.door.links)) == (0, 0, 0)
        self.count += 1
        answer = await self.core.call("canary", "add")
        assert answer.value == self.count, "another caller's actor has changed"
        assert not self.faults, self.faults


_worlds: dict[bool, _World] = {}  # by whether the caller is a direct client
_log = logging.getLogger("actord")


def intake(data: bytes, *, direct: bool = False) -> None:
    """Nothing escapes from the link, no turn breaks the runner, and the next caller is served as if nothing were."""
    if b"canary" in data:
        return  # a well-formed call to it may count
    if direct not in _worlds or _worlds[direct].count >= 20_000:  # a world keeps every actor that was ever named
        _worlds[direct] = _World(direct)
    world = _worlds[direct]
    level = _log.level
    _log.setLevel(logging.CRITICAL)  # what the worker says of thousands of bad frames is no news
    try:
        world.loop.run_until_complete(world.take(data))
    finally:
        _log.setLevel(level)


def direct(data: bytes) -> None:
    """The same from a client that has the ticket."""
    intake(data, direct=True)


_REQUEST = ["GET", "/a?b", [["host", "a"]], "127.0.0.1"]
_BATCHES: list[list[Frame]] = [
    [(CALL, 1, "Thing", "a", "add", 0, LATE, b'{"n":2}')],
    [(CALL, 2, "Thing", "a", "echo", MSGPACK, LATE, b"\x91\xc0"), (CANCEL, 2)],
    [(CALL, 3, "Thing", "b", "echo", MSGPACK | PAIR | TIMING, LATE, b"\x92\x91\x01\x80")],
    [(FETCH, 4, "Thing", "a", _REQUEST, None, 0, LATE, b""), (FETCH, 5, "Thing", "c", _REQUEST, None, TIMING, 0, b"x")],
    [(DOOR, 6, _REQUEST, None, 0, LATE, b"")],
    [
        (WS_OPEN, 1, 1, "u", "Thing", "a", _REQUEST, LATE),
        (WS_MESSAGE, 1, 2, "text"),
        (WS_MESSAGE, 1, 3, b"bytes"),
        (WS_CLOSED, 1, 4, 1000, ""),
    ],
    [(WS_HELD, [[2, "u", "Thing", "a", None, ["red"], None], [3, "v", "Gone", "a", "p", [], b"x"]])],
    [(WS_DOOR, 4, 5, "u", _REQUEST, LATE), (WS_CLOSED, 4, 6, 1006, "")],
    [(CALL, 7, "None", "a", "add", 0, LATE, b""), (CALL, 8, "Thing", "a", "_x", 0, LATE, b"")],
    [(CALL, 9, "Thing", "", "add", 0, -1, b""), (CALL, 9, "Thing", "a", "add", 0, 1, b"[1]")],
]
INTAKE_SEEDS = [pack_batch(batch)[4:] for batch in _BATCHES]
_DIRECT: list[list[Frame]] = [
    [(CALLX, 1, "Thing", "a", "add", {"key": "k"}, MSGPACK | PAIR, LATE, b"\x92\x91\x01\x80"), (CANCEL, 1)],
    [(CALL, 999, "Thing", "a", "echo", MSGPACK | PAIR, LATE, b"\x92\x91\x01\x80"), (CALL, 2, "", "", "", 0, 0, b"")],
]
DIRECT_SEEDS = INTAKE_SEEDS + [pack_batch(batch)[4:] for batch in _DIRECT]
