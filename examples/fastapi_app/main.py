"""An auction house: FastAPI in front, one actor for each auction behind it.

Serve it with

    actord serve examples/fastapi_app/main.py

and open http://127.0.0.1:8000/docs. It needs `pip install fastapi`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import Annotated

import actord
from actord import Response
from actord.errors import ActordError
from auctions import Auction
from fastapi import Depends, FastAPI, Request, WebSocket, WebSocketException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, ValidationError

app = FastAPI(title="Auctions", version="1.0")


class NewAuction(BaseModel):
    title: str = Field(min_length=1, max_length=200)
    minimum: int = Field(gt=0, description="in cents")


class Bid(BaseModel):
    bidder: str = Field(min_length=1, max_length=40)
    amount: int = Field(gt=0, description="in cents")


class Standing(BaseModel):
    title: str
    minimum: int
    highest: int | None
    bidder: str | None
    bids: int
    open: bool


def auction(auction_id: str) -> Auction:
    """The actor that the path names: a stub, which costs nothing."""
    return actord.env().get(Auction, auction_id)


AnAuction = Annotated[Auction, Depends(auction)]


@app.exception_handler(ActordError)
async def refused(request: Request, error: ActordError) -> Response:
    """What an actor refuses keeps its status, its code and its data."""
    return Response.problem(error)


@app.post("/auctions/{auction_id}", status_code=201)
async def start(auction: AnAuction, new: NewAuction) -> Standing:
    return Standing.model_validate(await auction.start(new.title, new.minimum))


@app.get("/auctions/{auction_id}")
async def standing(auction: AnAuction) -> Standing:
    return Standing.model_validate(await auction.standing())


@app.post("/auctions/{auction_id}/bids")
async def bid(auction: AnAuction, bid: Bid) -> Standing:
    return Standing.model_validate(await auction.bid(bid.bidder, bid.amount))


@app.websocket("/auctions/{auction_id}/floor")
async def floor(ws: WebSocket, auction: AnAuction) -> None:
    """Bids over one connection. Each is answered with where the auction stands, or with why it was refused."""
    await ws.accept()
    async for text in ws.iter_text():
        try:
            bid = Bid.model_validate_json(text)
            await ws.send_json(await auction.bid(bid.bidder, bid.amount))
        except ValidationError as no_bid:
            raise WebSocketException(1008, "this is no bid") from no_bid
        except ActordError as refusal:
            await ws.send_json(refusal.to_problem())


@app.post("/auctions/{auction_id}/close")
async def close(auction: AnAuction) -> Standing:
    return Standing.model_validate(await auction.close())


@app.get("/auctions/{auction_id}/bids.csv")
async def bids(auction: AnAuction) -> StreamingResponse:
    """All bids as CSV, however many: they are read page by page, as fast as the client takes them."""
    await auction.standing()  # what is refused has to be refused before the answer begins

    async def lines() -> AsyncIterator[str]:
        yield "number,bidder,amount\n"
        last = 0
        while page := await auction.bids(after=last):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(page)
            yield text.getvalue()
            last = page[-1][0]

    return StreamingResponse(lines(), media_type="text/csv")
