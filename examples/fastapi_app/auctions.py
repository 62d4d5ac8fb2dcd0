"""The actor behind the API: one auction, with its bids in a table of its own."""

from __future__ import annotations

from typing import TypedDict

from actord import ActorError, StatefulActor


class Standing(TypedDict):
    """``highest`` is None while there is no bid."""

    title: str
    minimum: int
    highest: int | None
    bidder: str | None
    bids: int
    open: bool


class Auction(StatefulActor):
    """One auction; its name is its id. Amounts are whole cents."""

    async def on_activate(self) -> None:
        self.ctx.storage.sql.exec(
            "create table if not exists bid (number integer primary key, bidder text not null, amount integer not null)"
        )

    async def start(self, title: str, minimum: int) -> Standing:
        """Open it. 409 `exists` when it was."""
        if await self.ctx.storage.get("title") is not None:
            raise ActorError("this auction was opened before", code="exists", status=409)
        await self.ctx.storage.put_many({"title": title, "minimum": minimum, "open": True})
        return await self.standing()

    async def bid(self, bidder: str, amount: int) -> Standing:
        """Bid more than everybody before. 409 `too_low` or `closed`."""
        standing = await self.standing()
        if not standing["open"]:
            raise ActorError("this auction is closed", code="closed", status=409)
        least = standing["minimum"] if standing["highest"] is None else standing["highest"] + 1
        if amount < least:
            raise ActorError(f"a bid has to be {least} at least", code="too_low", status=409, data={"least": least})
        self.ctx.storage.sql.exec("insert into bid (bidder, amount) values (?, ?)", bidder, amount)
        return await self.standing()

    async def close(self) -> Standing:
        """Take no more bids."""
        await self.standing()
        await self.ctx.storage.put("open", False)
        return await self.standing()

    async def standing(self) -> Standing:
        """Where it stands. 404 `unknown` when it was never opened."""
        title = await self.ctx.storage.get("title")
        if title is None:
            raise ActorError("there is no such auction", code="unknown", status=404)
        query = "select number, bidder, amount from bid order by number desc limit 1"
        last = self.ctx.storage.sql.exec(query).to_list()
        number, bidder, amount = last[0].values() if last else (0, None, None)
        return Standing(
            title=title,
            minimum=await self.ctx.storage.get("minimum"),
            highest=amount,
            bidder=bidder,
            bids=number,
            open=await self.ctx.storage.get("open"),
        )

    async def bids(self, after: int = 0, limit: int = 500) -> list[tuple[int, str, int]]:
        """A page of the bids in their order: number, bidder, amount."""
        query = "select number, bidder, amount from bid where number > ? order by number limit ?"
        return [(row["number"], row["bidder"], row["amount"]) for row in self.ctx.storage.sql.exec(query, after, limit)]
