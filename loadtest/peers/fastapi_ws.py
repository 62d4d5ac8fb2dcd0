"""Rooms as a Python team writes them: FastAPI and WebSockets, the members and the number in memory. Nothing survives.

The path is that of an actord socket, so that the client sends both the same bytes. Run by one uvicorn worker: a room
lives in one process.
"""

from __future__ import annotations

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


class Room:
    def __init__(self) -> None:
        self.members: set[WebSocket] = set()
        self.seq = 0


rooms: dict[str, Room] = {}


@app.get("/ready")
async def ready() -> str:
    return "yes"


@app.websocket("/actors/Room/{name}")
async def room(name: str, socket: WebSocket) -> None:
    here = rooms.setdefault(name, Room())
    await socket.accept()
    here.members.add(socket)
    try:
        while True:
            text = await socket.receive_text()
            here.seq += 1
            message = f"{here.seq:09d} {text}"
            for member in list(here.members):
                await member.send_text(message)
    except WebSocketDisconnect:
        here.members.discard(socket)
