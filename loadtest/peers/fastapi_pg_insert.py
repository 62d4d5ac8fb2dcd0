"""One durable INSERT for each call: FastAPI, asyncpg, PostgreSQL; the reply follows the commit.

``DSN`` names the database, with a table ``entry (name text, id bigserial, amount bigint, PRIMARY KEY (name, id))``. Run
by uvicorn: two workers, each a pool of 16.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg  # type: ignore[import-untyped]
from fastapi import FastAPI
from pydantic import BaseModel

POOL = 16


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DSN"], min_size=POOL, max_size=POOL) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)


class Insert(BaseModel):
    amount: int


@app.post("/actors/Entries/{name}/insert")
async def insert(name: str, body: Insert) -> dict[str, object]:
    statement = "INSERT INTO entry (name, amount) VALUES ($1, $2) RETURNING id"
    return {"id": await app.state.pool.fetchval(statement, name, body.amount)}
