"""Streamed answers, from the front door and from actors; what became of each iterator is kept in a ``Witness``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from actord import Env, Request, Response, StatefulActor, StreamingResponse, TurnEnded

PIECE = bytes(range(256)) * 256


class Witness(StatefulActor):
    """What was seen, in the order in which it was told."""

    async def tell(self, what: str) -> None:
        seen = await self.seen()
        await self.ctx.storage.put("seen", [*seen, what])

    async def seen(self) -> list[str]:
        seen: list[str] = await self.ctx.storage.get("seen", [])
        return seen


class Feed(StatefulActor):
    async def add(self, n: int) -> int:
        total: int = await self.ctx.storage.get("n", 0) + n
        await self.ctx.storage.put("n", total)
        return total

    async def fetch(self, request: Request) -> Response:
        total = await self.add(1)
        if request.path == "/big":
            return StreamingResponse(pieces(int(request.query["count"]), request, self.env), media_type="x/y")
        if request.path == "/storage":
            return StreamingResponse(self._touch_storage())
        if request.path == "/witnessed":
            return StreamingResponse(pieces(1 << 30, request, self.env))
        return StreamingResponse(self._count_to(total), media_type="text/plain", headers={"X-Total": str(total)})

    async def _count_to(self, total: int) -> AsyncIterator[str]:
        for n in range(1, total + 1):
            yield f"{n}\n"
            await asyncio.sleep(0)
        yield f"and {await self.env.FEED.id_from_name(self.ctx.id).add(100)}\n"

    async def _touch_storage(self) -> AsyncIterator[str]:
        try:
            await self.ctx.storage.put("n", -1)
        except TurnEnded:
            yield "TurnEnded"


async def pieces(count: int, request: Request, env: Env) -> AsyncIterator[bytes]:
    witness = request.query.get("witness")
    try:
        for _ in range(count):
            yield PIECE
    finally:
        if witness:
            await env.WITNESS.id_from_name(witness).tell("closed")


async def ticks(request: Request, env: Env) -> AsyncIterator[str]:
    """One event; then nothing, until somebody gives up."""
    name = request.query.get("witness", "")
    try:
        yield "data: first\n\n"
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await env.WITNESS.id_from_name(name).tell("cancelled")
        raise


async def failing() -> AsyncIterator[bytes]:
    yield b"some"
    raise ValueError("no more")


async def none() -> AsyncIterator[bytes]:
    return
    yield b""


async def odd(item: Any) -> AsyncIterator[Any]:
    yield item


async def fetch(request: Request, env: Env) -> Response:
    path = request.path
    if path.startswith("/upload"):
        return await _upload(request, env)
    if path == "/echo":
        return StreamingResponse(_echo(request))
    if path == "/big":
        return StreamingResponse(pieces(int(request.query["count"]), request, env))
    if path == "/sized":
        size = len(PIECE) * 3 + int(request.query.get("off", "0"))
        return StreamingResponse(pieces(3, request, env), length=size, media_type="x/y")
    if path == "/events":
        return StreamingResponse(ticks(request, env), media_type="text/event-stream")
    if path == "/waits":
        return StreamingResponse(ticks(request, env))
    if path == "/fails":
        return StreamingResponse(failing())
    if path == "/none":
        return StreamingResponse(none(), status=int(request.query.get("status", "200")))
    if path == "/odd":
        return StreamingResponse(odd({"a": "str"}))
    if path == "/text":
        return StreamingResponse(odd("grüß"), media_type="text/plain", headers={"Cache-Control": "no-cache"})
    if path.startswith("/via/"):
        _, _, name, rest = path.split("/", 3)
        inner = Request("GET", f"/{rest}?{request.query_string}")
        return await env.FEED.id_from_name(name).fetch(inner)
    return Response.text("whole")


async def _upload(request: Request, env: Env) -> Response:
    """Counts what it reads. ``/upload/late`` begins to read when it is told to, ``/upload/no`` never does."""
    if request.path == "/upload/no":
        return Response.text("no", status=403)
    if request.path == "/upload/whole":
        return Response.text(str(len(await request.body())))
    size = 0
    witness = request.query.get("witness")
    try:
        async for part in request.stream():
            size += len(part)
            if witness and size == len(part):
                await env.WITNESS.id_from_name(witness).tell("reads")
    except BaseException as error:
        if witness:
            await env.WITNESS.id_from_name(witness).tell(type(error).__name__)
        raise
    return Response.text(str(size))


async def _echo(request: Request) -> AsyncIterator[bytes]:
    async for part in request.stream():
        yield part
