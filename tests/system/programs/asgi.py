"""A plain ASGI application, without any framework. What its lifespan did stands in the file that LIFESPAN names."""

from __future__ import annotations

import os
from typing import Any

import actord
from actord import StatefulActor

PIECE = bytes(range(256)) * 256


class Note(StatefulActor):
    async def write(self, text: str) -> None:
        await self.ctx.storage.put("text", text)

    async def read(self) -> str | None:
        text: str | None = await self.ctx.storage.get("text")
        return text


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    env = actord.env()
    path = scope["path"]
    if path == "/gone":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        assert (await receive())["type"] == "http.request"
        gone = await receive()
        await env.NOTE.id_from_name("gone").write(gone["type"])
        return
    if path == "/parts":
        more = True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                await env.NOTE.id_from_name("parts").write(event["type"])
                return
            more = event["more_body"]
            await env.NOTE.id_from_name("parts").write(f"{event['body'].decode()} {more}")
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"done"})
        return
    if path == "/big":
        await send({"type": "http.response.start", "status": 200})
        try:
            for _ in range(int(scope["query_string"])):
                await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        except OSError as error:
            await env.NOTE.id_from_name("big").write(type(error).__name__)
            raise
        await send({"type": "http.response.body"})
        return
    if path == "/late":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"ok"})
        await env.NOTE.id_from_name("late").write("written after the answer")
        return
    body, more = b"", True
    while more:
        event = await receive()
        body += event["body"]
        more = event["more_body"]
    text = f"{scope['method']} {path} {scope['state']} {len(body)}".encode()
    headers = [(b"content-type", b"text/plain"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    if "FAIL" in os.environ:
        await send({"type": "lifespan.startup.failed", "message": "the database is not there"})
        return
    scope["state"]["greeting"] = await actord.env().NOTE.id_from_name("greeting").read()
    tell("up")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    tell("down")
    await send({"type": "lifespan.shutdown.complete"})


def tell(what: str) -> None:
    with open(os.environ["LIFESPAN"], "a") as file:
        file.write(f"{what} {os.getpid()}\n")
