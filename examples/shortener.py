"""A URL shortener: FastAPI in front, one actor for each short link, which counts how often it was followed.

Serve it with

    actord serve examples/shortener.py

and open http://127.0.0.1:8000/docs. It needs `pip install fastapi`.
"""

from __future__ import annotations

import secrets
from typing import TypedDict

import actord
from actord import ActorError, Response, StatefulActor
from actord.errors import ActordError
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, HttpUrl


class Counted(TypedDict):
    url: str
    followed: int


class Link(StatefulActor):
    """One short link; its name is its code."""

    async def point_to(self, url: str) -> bool:
        """Point it to a URL, once and for all. False when the code is taken."""
        if await self.ctx.storage.get("url") is not None:
            return False
        await self.ctx.storage.put_many({"url": url, "followed": 0})
        return True

    async def follow(self) -> str:
        """Its URL. The visit is on disk before anybody is sent there. 404 `unknown`."""
        counted = await self.counted()
        await self.ctx.storage.put("followed", counted["followed"] + 1)
        return counted["url"]

    async def counted(self) -> Counted:
        """Its URL, and how often it was followed. 404 `unknown`."""
        url = await self.ctx.storage.get("url")
        if url is None:
            raise ActorError("there is no such link", code="unknown", status=404)
        return Counted(url=url, followed=await self.ctx.storage.get("followed"))


class NewLink(BaseModel):
    url: HttpUrl


class Made(BaseModel):
    code: str
    url: str


class Count(BaseModel):
    url: str
    followed: int


app = FastAPI(title="Short links", version="1.0")


@app.exception_handler(ActordError)
async def refused(request: Request, error: ActordError) -> Response:
    return Response.problem(error)


@app.post("/links", status_code=201)
async def shorten(new: NewLink) -> Made:
    url = str(new.url)
    while True:
        code = new_code()
        if await actord.env().get(Link, code).point_to(url):
            return Made(code=code, url=url)


def new_code() -> str:
    """Seven characters: 2**40 codes, so that one that is taken is rare, and guessing takes long."""
    return secrets.token_urlsafe(5)


@app.get("/links/{code}")
async def count(code: str) -> Count:
    return Count.model_validate(await actord.env().get(Link, code).counted())


@app.get("/{code}", status_code=307, response_class=RedirectResponse)
async def follow(code: str) -> str:
    return await actord.env().get(Link, code).follow()
