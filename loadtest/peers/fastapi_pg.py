"""What a Python team writes instead: FastAPI, asyncpg, and a debit that locks its row with SELECT … FOR UPDATE.

``DEBIT=update`` is the tuned form: one statement, one round trip, its own transaction.

The path is that of an actord call, so that wrk sends every system the same bytes. ``DSN`` names the database, with a
table ``account (name text PRIMARY KEY, balance bigint)``. Run by uvicorn: two workers, each a pool of 16.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg  # type: ignore[import-untyped]
from fastapi import FastAPI
from pydantic import BaseModel

POOL = 16
UPDATE = "UPDATE account SET balance = balance - $2 WHERE name = $1 AND balance >= $2 RETURNING balance"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DSN"], min_size=POOL, max_size=POOL) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)


class Debit(BaseModel):
    amount: int


async def lock(name: str, body: Debit) -> dict[str, object]:
    """Check, then write, in one transaction; the reply follows the commit."""
    async with app.state.pool.acquire() as connection, connection.transaction():
        balance = await connection.fetchval("SELECT balance FROM account WHERE name = $1 FOR UPDATE", name)
        if balance is None or balance < body.amount:
            return {"ok": False, "balance": balance or 0}
        balance -= body.amount
        await connection.execute("UPDATE account SET balance = $2 WHERE name = $1", name, balance)
    return {"ok": True, "balance": balance}


async def update(name: str, body: Debit) -> dict[str, object]:
    async with app.state.pool.acquire() as connection:
        balance = await connection.fetchval(UPDATE, name, body.amount)
    return {"ok": balance is not None, "balance": balance or 0}


app.post("/actors/Account/{name}/debit")(update if os.environ.get("DEBIT") == "update" else lock)
