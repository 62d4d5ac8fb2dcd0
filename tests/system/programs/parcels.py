"""The program of the client's tests: an actor that gives back what it gets, and errors that carry anything."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

from actord import ActorError, Env, Request, Response, StatefulActor, timeout


class Parcel(StatefulActor):
    """Its storage holds one value, and a count."""

    async def swap(self, value: Any) -> Any:
        """Store a value; returns the one before."""
        old = await self.ctx.storage.get("value")
        await self.ctx.storage.put("value", value)
        return old

    async def echo(self, *args: Any, **kwargs: Any) -> list[Any]:
        return [list(args), kwargs]

    async def add(self, amount: int = 1, *, note: str = "") -> int:
        count: int = await self.ctx.storage.get("count", 0) + amount
        await self.ctx.storage.put("count", count)
        return count

    async def once(self, mark: str) -> int:
        """Count how often this was done for a mark."""
        times: int = await self.ctx.storage.get(f"mark/{mark}", 0) + 1
        await self.ctx.storage.put(f"mark/{mark}", times)
        return times

    async def marks(self) -> dict[str, int]:
        found: dict[str, int] = await self.ctx.storage.list(prefix="mark/", limit=1000)
        return found

    @timeout(60)
    async def wait_for(self, started: str, go: str) -> str:
        """Says that it runs, and ends when the test opens the other fifo."""
        await asyncio.to_thread(Path(started).write_bytes, b"x")
        await asyncio.to_thread(Path(go).read_bytes)
        return "waited"

    async def refuse(self) -> None:
        raise ActorError("too heavy", code="weight", status=409, data={"limit": Decimal("1.50"), "of": (b"\x00", {1})})

    async def fail(self) -> None:
        raise KeyError("lost")

    async def abort(self) -> None:
        self.ctx.abort("by order")

    async def fetch(self, request: Request) -> Response:
        if request.path == "/teapot":
            return Response.text("short and stout", status=418)
        if request.path == "/refuse":
            await self.refuse()
        body = await request.body()
        return Response.json([request.method, request.url, request.headers.get("x-of"), body.decode()])


async def fetch(request: Request, env: Env) -> Response:
    return Response.json([request.method, request.url, (await request.body()).decode()], status=203)
