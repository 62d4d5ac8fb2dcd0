"""A bank account that can't be overdrawn, and a small HTTP API in front of it.

Serve it with

    actord serve examples/account.py
"""

from __future__ import annotations

from actord import ActorError, Env, Request, Response, StatefulActor


class Account(StatefulActor):
    """One account. Its name is the account's id."""

    async def balance(self) -> int | float:
        """The money in the account."""
        balance: int | float = await self.ctx.storage.get("balance", 0)
        return balance

    async def deposit(self, amount: int | float) -> int | float:
        """Add money; returns the new balance."""
        if amount < 0:
            raise ActorError("an amount is not negative", code="negative_amount")
        balance = await self.balance() + amount
        await self.ctx.storage.put("balance", balance)
        return balance

    async def debit(self, amount: int | float) -> dict[str, bool | int | float]:
        """Take money out if there is enough of it. No lock, no transaction, no race."""
        if amount < 0:
            raise ActorError("an amount is not negative", code="negative_amount")
        balance = await self.balance()
        if balance < amount:
            return {"ok": False, "balance": balance}
        await self.ctx.storage.put("balance", balance - amount)
        return {"ok": True, "balance": balance - amount}


async def fetch(request: Request, env: Env) -> Response:
    """The front door: plain HTTP routes over the actor.

    POST /accounts/alice/deposit {"amount": 100}
    POST /accounts/alice/debit {"amount": 30}
    GET /accounts/alice/balance
    GET /health/liveness
    GET /health/readiness
    """
    match request.method, request.path.strip("/").split("/"):
        case "GET", ["health", "liveness" | "readiness"]:
            return Response.text("ok")
        case "GET", ["accounts", account, "balance"]:
            balance = await env.get(Account, account).balance()
            return Response.json({"account": account, "balance": balance})
        case "POST", ["accounts", account, "deposit" | "debit" as action]:
            amount = await amount_of(request)
            if amount is None:
                return Response.json({"error": "amount (number) required"}, status=400)
            actor = env.get(Account, account)
            if action == "deposit":
                return Response.json({"account": account, "balance": await actor.deposit(amount)})
            return Response.json({"account": account, **await actor.debit(amount)})
    return Response.text("not found", status=404)


async def amount_of(request: Request) -> int | float | None:
    """The amount in the request's body, or None when there is no number."""
    try:
        body = await request.json()
    except ValueError:
        return None
    amount = body.get("amount") if isinstance(body, dict) else None
    return amount if isinstance(amount, int | float) and not isinstance(amount, bool) else None
