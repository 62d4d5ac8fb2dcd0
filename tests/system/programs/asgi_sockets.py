"""WebSockets of a Starlette application. How each socket ended is noted in an actor: Note, by the path."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import actord
from actord import StatefulActor
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


class Note(StatefulActor):
    async def add(self, text: str) -> int:
        lines = await self.lines()
        await self.ctx.storage.put("lines", [*lines, text])
        return len(lines) + 1

    async def lines(self) -> list[str]:
        lines: list[str] = await self.ctx.storage.get("lines", [])
        return lines


def note(name: str) -> Any:
    return actord.env().get(Note, name)


async def echo(ws: WebSocket) -> None:
    """Says what it hears. `close CODE REASON` closes."""
    offered = ws.scope["subprotocols"]
    await ws.accept(offered[-1] if offered else None, headers=[(b"x-from", ws.url.path.encode())])
    while (event := await ws.receive())["type"] == "websocket.receive":
        verb, _, rest = (event.get("text") or "").partition(" ")
        if verb == "close":
            code, _, reason = rest.partition(" ")
            await ws.close(int(code), reason)
        else:
            await ws.send({**event, "type": "websocket.send"})
    await note("echo").add(f"{event['code']} {event['reason']}")


async def keep(ws: WebSocket) -> None:
    """What it hears is on disk before it answers with its number. The pid comes first."""
    name = ws.path_params["name"]
    await note(f"{name} opened").add("")
    await ws.accept()
    await ws.send_text(str(os.getpid()))
    try:
        while True:
            number = await note(name).add(await ws.receive_text())
            await ws.send_json(number)
    except WebSocketDisconnect as gone:
        for other in range(8):  # in this worker and in others
            await note(f"{name} closed {other}").add(f"{gone.code} {gone.reason}")


async def wait(ws: WebSocket) -> None:
    """Never answers the handshake."""
    await note("wait").add("begun")
    await asyncio.Event().wait()


async def refuse(ws: WebSocket) -> None:
    await ws.close()


async def deny(ws: WebSocket) -> None:
    await ws.send_denial_response(PlainTextResponse("who are you?", 401, {"x-a": "1"}))


async def fail(ws: WebSocket) -> None:
    await ws.accept()
    raise RuntimeError("a bug")


async def flood(ws: WebSocket) -> None:
    """Sends without end."""
    await ws.accept()
    try:
        while True:
            await ws.send_bytes(bytes(65_536))
    except WebSocketDisconnect:
        await note("flood").add("gone")


async def deaf(ws: WebSocket) -> None:
    """Receives nothing, and finds out that the client has gone when it sends."""
    await ws.accept()
    try:
        while True:
            await ws.send_text("tick")
            await asyncio.sleep(0.01)
    except WebSocketDisconnect:
        await note("deaf").add("gone")


app = Starlette(
    routes=[
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/keep/{name}", keep),
        WebSocketRoute("/wait", wait),
        WebSocketRoute("/refuse", refuse),
        WebSocketRoute("/deny", deny),
        WebSocketRoute("/fail", fail),
        WebSocketRoute("/flood", flood),
        WebSocketRoute("/deaf", deaf),
    ]
)
