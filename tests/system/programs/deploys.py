"""The program of the reloads: everything that happens leaves a mark at each actor that it reaches.

Calls go from names with a smaller letter to those with a greater one, so that there are no cycles.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from actord import AlarmInfo, Request, Response, StatefulActor, StreamingResponse, WebSocket

VERSION = 1


class Account(StatefulActor):
    async def add(self, mark: str) -> list[Any]:
        """How often this mark is here now, and which program says so."""
        times = await self.ctx.storage.get(f"m/{mark}", 0) + 1
        await self.ctx.storage.put(f"m/{mark}", times)
        return [times, VERSION]

    async def pay(self, mark: str, *to: str) -> list[Any]:
        """The same along a chain of actors."""
        if to:
            await self.env.ACCOUNT.id_from_name(to[0]).pay(mark, *to[1:])
        return await self.add(mark)

    async def post(self, mark: str, to: str) -> list[Any]:
        """The same, by a message."""
        self.env.send(Account, to).add(mark)
        return await self.add(mark)

    async def slow(self, mark: str, seconds: float) -> list[Any]:
        await asyncio.sleep(seconds)
        return await self.add(mark)

    async def relay(self, mark: str, to: str, seconds: float) -> list[Any]:
        return await self.env.ACCOUNT.id_from_name(to).slow(mark, seconds)

    async def ring(self, mark: str, seconds: float) -> None:
        await self.ctx.storage.put("ring", mark)
        await self.ctx.set_alarm(seconds)

    async def alarm(self, info: AlarmInfo) -> None:
        await self.add(await self.ctx.storage.get("ring"))

    async def marks(self) -> dict[str, int]:
        found: dict[str, int] = {}
        after = "m/"
        while page := await self.ctx.storage.list(prefix="m/", start_after=after, limit=1000):
            found |= {key[2:]: times for key, times in page.items()}
            after = max(page)
        return found

    async def tell(self) -> int:
        count: int = await self.ctx.storage.get("told", 0) + 1
        await self.ctx.storage.put("told", count)
        self.ctx.emit("told", count)
        return count

    async def version(self) -> int:
        return VERSION

    async def web_socket(self, ws: WebSocket, request: Request) -> None:
        ws.attachment = {"user": request.query.get("user"), "seen": 0}
        ws.tags = ["guest"]

    async def web_socket_message(self, ws: WebSocket, data: str) -> None:
        ws.attachment = {**ws.attachment, "seen": ws.attachment["seen"] + 1}
        times, version = await self.add(data)
        self.ctx.broadcast(f"{data} {times} {ws.attachment['seen']} {version}", tag="guest")


async def drip(until: Path) -> AsyncIterator[bytes]:
    yield b"begun "
    while not until.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.01)
    yield b"ended"


async def fetch(request: Request, env: Any) -> Response:
    """POST /pay/{from}/{to}?mark= and GET /drip?until={file}"""
    if request.path == "/drip":
        return StreamingResponse(drip(Path(request.query["until"])))
    _, _, sender, to = request.path.split("/")
    return Response.json(await env.ACCOUNT.id_from_name(sender).pay(request.query["mark"], to))
