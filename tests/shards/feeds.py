"""Actors that emit, and readers of what they emit through the worker's real intake."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from actord import StatefulActor
from actord.shards.wire import DATA, EVENTS, FETCH, REPLY

from tests.support.harness import Core
from tests.support.link_end import LinkEnd


class Feed(StatefulActor):
    events_kept = 5
    events_age = 100.0
    idle_after = 1.0

    async def say(self, *words: Any) -> None:
        for word in words:
            self.ctx.emit("word", word)

    async def say_and_fail(self, word: str) -> None:
        self.ctx.emit("word", word)
        raise ValueError(word)

    async def say_kind(self, kind: Any, data: Any = None) -> None:
        self.ctx.emit(kind, data)

    async def say_in_a_block(self, kept: str, undone: str) -> None:
        self.ctx.emit("word", kept)
        try:
            async with self.ctx.storage.transaction():
                self.ctx.emit("word", undone)
                raise KeyError
        except KeyError:
            pass
        self.ctx.emit("word", kept + "!")

    async def say_late(self) -> None:
        async def late() -> None:
            await asyncio.sleep(1)
            try:
                self.ctx.emit("word", "late")
            except Exception as error:
                told.append(type(error).__name__)

        asyncio.get_running_loop().create_task(late())

    async def write(self) -> None:
        await self.ctx.storage.put("key", 1)

    async def clear(self) -> None:
        await self.ctx.storage.delete_all()


told: list[str] = []


class Waking(StatefulActor):
    async def on_activate(self) -> None:
        self.ctx.emit("woke")

    async def ping(self) -> None: ...


class Private(StatefulActor):
    events_public = False


class Stream:
    """One reader, through the worker's real intake."""

    def __init__(self, link: LinkEnd, id_: int) -> None:
        self.link = link
        self.id = id_

    @property
    def text(self) -> str:
        return b"".join(f[2] for f in self.link.of(self.id) if f[0] == DATA).decode()

    @property
    def events(self) -> list[tuple[int, str, Any]]:
        found = re.findall(r"id: (\d+)\nevent: (\S+)\ndata: (.*)\n\n", self.text)
        return [(int(number), kind, json.loads(data)) for number, kind, data in found]

    @property
    def words(self) -> list[Any]:
        return [data for _, _, data in self.events]

    @property
    def state(self) -> int | None:
        last = self.link.of(self.id)[-1]
        return last[3] if last[0] == DATA else None

    @property
    def refusal(self) -> tuple[int, str]:
        (frame,) = self.link.of(self.id)
        assert frame[0] == REPLY
        return frame[2], json.loads(frame[3])["name"]


class Readers:
    def __init__(self, core: Core) -> None:
        self.core = core
        self.link = LinkEnd(core)
        self._id = 100

    async def open(self, name: str = "a", query: str = "", *, seen: Any = None, type_: str = "") -> Stream:
        self._id += 1
        headers = [] if seen is None else [["last-event-id", str(seen)]]
        request = ["GET", "/events" + query, headers, "127.0.0.1"]
        type_ = type_ or self.core.default_type
        frame = (FETCH, self._id, type_, name, request, None, EVENTS, self.link.deadline(), b"")
        await self.link.tell(frame)
        return Stream(self.link, self._id)


def started(store: Any) -> Core:
    return Core(Feed, Waking, Private, store=store)
