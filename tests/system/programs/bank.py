"""The main program of several: it has the actors."""

from __future__ import annotations

from actord import Env, Request, Response, StatefulActor


class Account(StatefulActor):
    async def deposit(self, amount: int) -> int:
        total: int = await self.ctx.storage.get("n", 0) + amount
        await self.ctx.storage.put("n", total)
        return total

    async def fetch(self, request: Request) -> Response:
        return Response.json({"account": self.ctx.id})


async def fetch(request: Request, env: Env) -> Response:
    """GET /deposit/alice"""
    name = request.path.rpartition("/")[2]
    via = env.SAVINGS if request.path.startswith("/savings/") else env.ACCOUNT
    if "fetch" in request.path:
        return await via.id_from_name(name).fetch(Request())
    return Response.json(await via.id_from_name(name).deposit(1))
