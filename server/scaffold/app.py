"""The program: a counter for each name, and a small HTTP API in front of it."""

from __future__ import annotations

from actord import Env, Request, Response, StatefulActor


class Counter(StatefulActor):
    """A number that nobody can lose: it is on disk before anyone is told."""

    async def value(self) -> int:
        """The number."""
        value: int = await self.ctx.storage.get("value", 0)
        return value

    async def add(self, amount: int = 1) -> int:
        """Add to the number; returns the new one. Calls of one counter run one at a time: no lock is needed."""
        value = await self.value() + amount
        await self.ctx.storage.put("value", value)
        return value


async def fetch(request: Request, env: Env) -> Response:
    """The front door: it answers every path that is not actord's own.

    GET /count/alice
    """
    match request.method, request.path.strip("/").split("/"):
        case "GET", ["count", name]:
            return Response.json({"name": name, "value": await env.get(Counter, name).value()})
    return Response.text("not found", status=404)
