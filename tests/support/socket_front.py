"""A front for the core of a worker in this process: socket events go in as frames, and what comes back is collected."""

from __future__ import annotations

import asyncio
import mmap
from typing import Any

from actord.limits import BEGUN_BYTES
from actord.shards import wire
from actord.shards.intake import Connection

from tests.support.harness import Core
from tests.support.virtual_time import steps

HEADERS = [["upgrade", "websocket"], ["sec-websocket-protocol", "chat.v1, chat.v2"]]
NAMES = {
    wire.WS_ACCEPT: "accept",
    wire.WS_REFUSE: "refuse",
    wire.WS_SEND: "send",
    wire.WS_BROADCAST: "broadcast",
    wire.WS_CLOSE: "close",
    wire.WS_STATE: "state",
    wire.WS_DONE: "done",
    wire.WS_FORWARD: "forward",
    wire.READY: "ready",
}


class Transport(asyncio.Transport):
    def __init__(self, front: Front) -> None:
        self._front = front

    def write(self, data: Any) -> None:
        self._front.batches.append([[NAMES[frame[0]], *frame[1:]] for frame in wire.BatchReader().feed(bytes(data))])

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def abort(self) -> None:
        self._front.aborted = True


class Front:
    """``batches`` are the writes of the worker, each a list of frames whose kind is a word."""

    def __init__(self, core: Core) -> None:
        self.batches: list[list[list[Any]]] = []
        self.aborted = False
        self.begun = mmap.mmap(-1, BEGUN_BYTES)
        self._seq = 0
        self.connection = Connection(core.dispatcher)
        self.connection.connection_made(Transport(self))
        self.connection.begun = self.begun
        core.dispatcher.connections.add(self.connection)

    def feed(self, *frames: wire.Frame) -> None:
        self.connection.data_received(wire.pack_batch(list(frames)))

    def event(self, kind: int, sid: int, *fields: Any) -> int:
        self._seq += 1
        self.feed((kind, sid, self._seq, *fields))
        return self._seq

    def open(self, sid: int, name: str = "a", type_: str = "Room", *, deadline: int = 1 << 60) -> int:
        request = ["GET", f"/actors/{type_}/{name}", HEADERS, "127.0.0.1"]
        return self.event(wire.WS_OPEN, sid, f"uid{sid}", type_, name, request, deadline)

    def message(self, sid: int, data: str | bytes) -> int:
        return self.event(wire.WS_MESSAGE, sid, data)

    def closed(self, sid: int, code: int = 1000, reason: str = "") -> int:
        return self.event(wire.WS_CLOSED, sid, code, reason)

    def hold(self, *sockets: list[Any]) -> None:
        self.feed((wire.WS_HELD, list(sockets)))

    async def frames(self) -> list[list[Any]]:
        """What has come since the last look, when everything that can happen has happened."""
        await steps()
        await steps()
        found = [frame for batch in self.batches for frame in batch]
        self.batches.clear()
        return found

    async def said(self) -> list[Any]:
        """The same, without WS_DONE: texts of messages alone, other frames whole."""
        return [
            frame[-1] if frame[0] in ("send", "broadcast") else tuple(frame)
            for frame in await self.frames()
            if frame[0] != "done"
        ]
