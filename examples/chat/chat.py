"""Chat rooms: who is there, what was said before you came, and no message lost or shown twice.

Serve it with

    actord serve examples/chat/chat.py
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
from actord import Env, Request, Response, StatefulActor, WebSocket

PAGE = Path(__file__).with_name("page.html").read_text()


class Said(msgspec.Struct):
    """One message of a page. Its ``id`` is the page's own: sent again after a lost connection, it counts once."""

    id: Annotated[str, msgspec.Meta(min_length=8, max_length=64)]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]


class Room(StatefulActor):
    """One room. The newest messages are kept; who is there is what its open sockets say."""

    kept: ClassVar[int] = 200

    async def web_socket(self, ws: WebSocket, request: Request) -> None:
        name = " ".join(request.query.get("name", "").split())[:30]
        ws.attachment = {"name": name or "guest"}
        newest = await self.ctx.storage.list(prefix="message/", reverse=True, limit=self.kept)
        ws.send(_json({"messages": list(newest.values())[::-1]}))
        self._tell_who()

    async def web_socket_message(self, ws: WebSocket, data: str | bytes) -> None:
        try:
            said = msgspec.json.decode(data, type=Said)
        except msgspec.DecodeError as error:
            ws.close(4000, str(error)[:100])
            return
        storage = self.ctx.storage
        known = await storage.get(f"id/{said.id}")
        if known is not None:  # it came before; only its sender does not know yet
            ws.send(_json({"messages": [await storage.get(known)]}))
            return
        number = await storage.get("count", 0) + 1
        message = {"id": said.id, "number": number, "name": ws.attachment["name"], "text": said.text, "at": time.time()}
        key = f"message/{number:012}"
        await storage.put_many({"count": number, key: message, f"id/{said.id}": key})
        old = await storage.get(f"message/{number - self.kept:012}")
        if old is not None:
            await storage.delete_many([f"message/{old['number']:012}", f"id/{old['id']}"])
        self.ctx.broadcast(_json({"messages": [message]}))

    async def web_socket_close(self, ws: WebSocket, code: int, reason: str) -> None:
        self._tell_who(without=ws)

    def _tell_who(self, without: WebSocket | None = None) -> None:
        there = [ws.attachment["name"] for ws in self.ctx.sockets() if without is None or ws.id != without.id]
        self.ctx.broadcast(_json({"people": sorted(there, key=str.casefold)}))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


async def fetch(request: Request, env: Env) -> Response:
    """The page, which opens a socket to the room by itself.

    GET /
    """
    if request.method == "GET" and request.path == "/":
        return Response(PAGE, media_type="text/html")
    return Response.text("not found", status=404)
