"""The program of the system tests: one actor that does what it is told, and says what happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from actord import ActorError, Env, Request, Response, StatefulActor, timeout

NOTES = os.environ.get("ACTORD_TEST_NOTES", "")
LIVE: weakref.WeakValueDictionary[str, Probe] = weakref.WeakValueDictionary()


def note(*words: object) -> None:
    """One line in the file that the test reads; appending is atomic across processes."""
    if NOTES:
        fd = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, (" ".join(map(str, words)) + "\n").encode())
        os.close(fd)


def tell(fifo: str) -> None:
    """Let the test know that this line is reached."""
    fd = os.open(fifo, os.O_WRONLY)
    os.write(fd, b"x")
    os.close(fd)


@dataclass
class Point:
    x: int
    y: int = 0


class Probe(StatefulActor):
    """``values`` of its storage are whatever the tests put there."""

    def __init__(self) -> None:
        note("built", self.ctx.id, os.getpid())
        LIVE[self.ctx.id] = self

    # -- storage

    async def put(self, key: str, value: Any) -> None:
        await self.ctx.storage.put(key, value)

    async def get(self, key: str) -> Any:
        return await self.ctx.storage.get(key)

    async def delete(self, key: str) -> bool:
        return await self.ctx.storage.delete(key)

    async def delete_all(self) -> None:
        await self.ctx.storage.delete_all()

    async def keys(self, prefix: str = "", reverse: bool = False, limit: int = 1000) -> list[str]:
        return list(await self.ctx.storage.list(prefix=prefix, reverse=reverse, limit=limit))

    async def put_big(self, key: str, size: int) -> None:
        await self.ctx.storage.put(key, os.urandom(size))

    async def size(self, key: str) -> int:
        return len(await self.ctx.storage.get(key, b""))

    async def put_and_fail(self, key: str, value: Any) -> None:
        await self.ctx.storage.put(key, value)
        raise RuntimeError("after the write")

    async def add(self, amount: int = 1) -> int:
        total: int = await self.ctx.storage.get("sum", 0) + amount
        await self.ctx.storage.put("sum", total)
        return total

    async def slow_add(self, amount: int = 1) -> int:
        """A read-modify-write with awaits in the middle: lost updates if two of them ever overlap."""
        note("enter", self.ctx.id)
        total: int = await self.ctx.storage.get("sum", 0)
        for _ in range(3):
            await asyncio.sleep(0)
        await self.ctx.storage.put("sum", total + amount)
        note("leave", self.ctx.id)
        return total + amount

    # -- time

    @timeout(60)
    async def hold(self, fifo: str, seconds: float = 20) -> str:
        """Runs until it is killed, or for so long; writes first, so that there is something to lose."""
        await self.ctx.storage.put("held", True)
        tell(fifo)
        await asyncio.sleep(seconds)
        return "held"

    @timeout(60)
    async def wait_for(self, started: str, go: str) -> str:
        """Says that it runs, and ends when the test opens the other fifo."""
        tell(started)
        await asyncio.to_thread(Path(go).read_bytes)
        await self.ctx.storage.put("waited", True)
        return "waited"

    def die(self) -> None:
        """Ends the worker."""
        os._exit(9)

    def spin(self, fifo: str) -> None:
        """Never yields."""
        tell(fifo)
        while True:
            pass

    def crunch(self, fifo: str) -> None:
        """One call into C that never comes back to the interpreter, as long as anybody waits."""
        tell(fifo)
        sum(range(10**14))

    @timeout(0.2)
    async def too_long(self) -> None:
        await self.ctx.storage.put("too_long", True)
        await asyncio.sleep(30)

    @timeout(0.2)
    async def deaf(self, fifo: str) -> None:
        """Swallows its cancellation and writes on."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        try:
            await self.ctx.storage.put("late", True)
        except Exception as error:
            note("refused", type(error).__name__)
        tell(fifo)

    # -- errors

    async def fail(self, message: str) -> None:
        raise ValueError(message)

    async def refuse(self, status: int = 409) -> None:
        raise ActorError("insufficient", code="insufficient", status=status, data={"balance": 3, "of": ["a", None]})

    async def typed(self, count: int, kind: Literal["a", "b"] = "a", point: Point | None = None) -> list[Any]:
        return [count, kind, None if point is None else [point.x, point.y]]

    async def unsendable(self) -> object:
        return object()

    async def store_unsendable(self) -> None:
        await self.ctx.storage.put("x", {"items": [1, object()]})

    async def _secret(self) -> str:
        return "secret"

    async def echo(self, value: Any = None) -> Any:
        return value

    async def name(self) -> str:
        return self.ctx.id

    def pid(self) -> int:
        return os.getpid()

    def is_live(self, name: str) -> bool:
        """Whether the instance of that name is in this worker's memory."""
        return name in LIVE

    def live(self) -> int:
        return len(LIVE)


class Narrow(StatefulActor):
    rpc = ("open",)

    async def open(self) -> str:
        return "open"

    async def closed(self) -> str:
        return "closed"


class BadStart(StatefulActor):
    async def on_activate(self) -> None:
        raise RuntimeError("no start")

    async def anything(self) -> None:
        pass


async def fetch(request: Request, env: Env) -> Response:
    """GET /where/NAME: which process the front door ran in, and which the actor. GET /sum/NAME: adds one."""
    match request.path.strip("/").split("/"):
        case ["where", name]:
            return Response.json([os.getpid(), await env.PROBE.id_from_name(name).pid()])
        case ["sum", name]:
            return Response.json(await env.PROBE.id_from_name(name).add(1))
        case ["refuse", name]:
            await env.PROBE.id_from_name(name).refuse()
        case ["fail"]:
            raise ValueError("at the door")
    return Response.text("not found", status=404)
