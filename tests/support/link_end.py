"""A caller's end of a link to an in-process core, through the worker's real intake: frames in, frames out."""

from __future__ import annotations

import asyncio
import mmap
from typing import Any

from actord.limits import LINK_CALLS
from actord.shards.intake import Connection
from actord.shards.wire import DOOR, FETCH, BatchReader, Frame, pack_batch

from tests.support.harness import Core
from tests.support.virtual_time import steps


class LinkEnd:
    """``frames``: all that the worker sent. Stands where the connection's transport would."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.frames: list[Frame] = []
        self.aborted = False
        self._reader = BatchReader()
        self.connection = Connection(core.dispatcher)
        self.connection.connection_made(self)  # type: ignore[arg-type]
        self.connection.begun = mmap.mmap(-1, LINK_CALLS)

    # the transport

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.frames += self._reader.feed(data)

    def abort(self) -> None:
        self.aborted = True

    # the caller

    def say(self, *frames: Frame) -> None:
        self.connection.data_received(pack_batch(list(frames)))

    async def tell(self, *frames: Frame) -> None:
        self.say(*frames)
        await steps()

    def request(self, url: str = "/", method: str = "GET") -> list[Any]:
        return [method, url, [], "127.0.0.1"]

    def deadline(self) -> int:
        return int((asyncio.get_running_loop().time() + 60) * 1000)

    async def door(self, id_: int, url: str = "/") -> None:
        await self.tell((DOOR, id_, self.request(url), 0, self.deadline(), b""))

    async def fetch(self, id_: int, name: str, url: str = "/", flags: int = 0) -> None:
        frame = (FETCH, id_, self.core.default_type, name, self.request(url), None, flags, self.deadline(), b"")
        await self.tell(frame)

    def kinds(self, id_: int) -> list[int]:
        return [frame[0] for frame in self.frames if frame[1] == id_]

    def of(self, id_: int) -> list[Frame]:
        return [frame for frame in self.frames if frame[1] == id_]
