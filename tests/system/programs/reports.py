"""A second program: an ASGI application that uses the first one's actors and has one of its own."""

from __future__ import annotations

import json
from typing import Any

import actord
from actord import StatefulActor


class Visits(StatefulActor):
    async def count(self) -> int:
        total: int = await self.ctx.storage.get("n", 0) + 1
        await self.ctx.storage.put("n", total)
        return total


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    env = actord.env()
    found = {
        "deposit": await env.BANK_ACCOUNT.id_from_name("alice").deposit(10),
        "visits": await env.VISITS.id_from_name("all").count(),
        "root_path": scope["root_path"],
        "path": scope["path"],
    }
    body = json.dumps(found).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
