"""Webhooks that come twice, or ten times, take effect once; and are acknowledged before their work is done.

    actord serve examples/webhooks.py
    curl -X POST localhost:8000/hooks/shop -d '{"id": "evt-1", "customer": "alice", "amount": 30}'
    curl -X POST localhost:8000/hooks/shop -d '{"id": "evt-1", "customer": "alice", "amount": 30}'
    actord call Customer/alice paid

Whoever sends webhooks repeats them until they are acknowledged. `Hooks` remembers which have come, in the same commit
in which it passes them on by a message: an acknowledged one is never lost, a repeated one is never passed on again.
"""

from typing import Any

from actord import Env, Request, Response, StatefulActor

REMEMBERED_SECONDS = 7 * 86_400  # senders have given up by then


class Hooks(StatefulActor):
    """One for each sender."""

    async def accept(self, id: str, customer: str, amount: int) -> bool:
        """False when this one has come before."""
        if await self.ctx.storage.get(f"seen/{id}"):
            return False
        await self.ctx.storage.put(f"seen/{id}", True)
        await self.env.send(Customer, customer).pay(amount)
        await self.env.send(Hooks, self.ctx.id, delay=REMEMBERED_SECONDS).forget(id)
        return True

    async def forget(self, id: str) -> None:
        await self.ctx.storage.delete(f"seen/{id}")


class Customer(StatefulActor):
    async def pay(self, amount: int) -> None:
        await self.ctx.storage.put("paid", await self.paid() + amount)

    async def paid(self) -> int:
        found: int = await self.ctx.storage.get("paid", 0)
        return found


async def fetch(request: Request, env: Env) -> Response:
    """POST /hooks/{source} {"id": "...", "customer": "...", "amount": 0}"""
    kind, _, source = request.path.strip("/").partition("/")
    if kind != "hooks" or not source or request.method != "POST":
        return Response.text("not found", status=404)
    event: Any = await request.json()
    fresh = await env.get(Hooks, source).accept(event["id"], event["customer"], event["amount"])
    return Response.json({"accepted": fresh})
