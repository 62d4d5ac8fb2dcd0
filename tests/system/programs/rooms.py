"""Rooms whose messages have a durable number: what the tests of sockets audit."""

from __future__ import annotations

import logging

from actord import Request, Response, StatefulActor, WebSocket

log = logging.getLogger("rooms")


class Room(StatefulActor):
    async def on_activate(self) -> None:
        self.seq: int = await self.ctx.storage.get("seq", 0)

    async def on_deactivate(self) -> None:
        log.warning("evicted %s with %d sockets", self.ctx.id, self.ctx.count())

    async def web_socket(self, ws: WebSocket, request: Request) -> None:
        ws.attachment = request.headers.get("x-user") or request.query.get("user", "nobody")

    async def web_socket_message(self, ws: WebSocket, data: str) -> None:
        if data == "count":
            ws.send(f"{self.ctx.count()} {sorted(socket.attachment for socket in self.ctx.sockets())}")
            return
        self.seq += 1
        await self.ctx.storage.put("seq", self.seq)
        await self.ctx.storage.put(f"m{self.seq:06}", f"{ws.attachment} {data}")
        self.ctx.broadcast(f"{self.seq} {ws.attachment} {data}")

    async def web_socket_close(self, ws: WebSocket, code: int, reason: str) -> None:
        await self.ctx.storage.put(f"closed {ws.id}", f"{ws.attachment} {code}")

    async def history(self, after: int = 0) -> list[str]:
        page = await self.ctx.storage.list(prefix="m", start_after=f"m{after:06}", limit=1000)
        return list(page.values())

    async def closed(self) -> list[str]:
        return sorted((await self.ctx.storage.list(prefix="closed ", limit=1000)).values())

    async def count(self) -> int:
        return self.ctx.count()

    async def say(self, text: str) -> int:
        return self.ctx.broadcast(text)


async def fetch(request: Request, env: object) -> Response:
    """GET /chat/{room}"""
    if not request.path.startswith("/chat/"):
        return Response.text("not here", status=404)
    if request.query.get("token") != "secret":
        return Response.text("who are you?", status=401)
    request.headers["x-user"] = "ann"
    response: Response = await env.ROOM.id_from_name(request.path[6:]).fetch(request)  # type: ignore[attr-defined]
    response.headers["set-cookie"] = "seen=1"
    return response
