"""A shopping cart with a limit for each item, and a check-out that two clicks can't do twice.

Serve it with

    actord serve examples/cart.py
"""

from __future__ import annotations

from typing import Annotated, TypedDict

from actord import ActorError, StatefulActor
from msgspec import Meta

MAX_OF_ONE_ITEM = 10
MAX_ITEMS = 100


class Order(TypedDict):
    """What a check-out made of the cart."""

    number: int
    lines: dict[str, int]


class Cart(StatefulActor):
    """The cart of one customer. Its name is the customer's id."""

    async def lines(self) -> dict[str, int]:
        """What is in the cart: item and count."""
        lines: dict[str, int] = await self.ctx.storage.get("lines", {})
        return lines

    async def add(self, item: str, count: Annotated[int, Meta(ge=1)] = 1) -> dict[str, int]:
        """Put more of an item into the cart; returns the cart. 409 `too_many` beyond the limits."""
        lines = await self.lines()
        wanted = lines.get(item, 0) + count
        if wanted > MAX_OF_ONE_ITEM:
            raise ActorError(
                f"at most {MAX_OF_ONE_ITEM} of one item",
                code="too_many",
                status=409,
                data={"item": item, "in_cart": lines.get(item, 0), "limit": MAX_OF_ONE_ITEM},
            )
        if item not in lines and len(lines) >= MAX_ITEMS:
            raise ActorError(f"at most {MAX_ITEMS} different items", code="too_many", status=409)
        lines[item] = wanted
        await self.ctx.storage.put("lines", lines)
        return lines

    async def remove(self, item: str) -> dict[str, int]:
        """Take an item out of the cart, all of it; returns the cart."""
        lines = await self.lines()
        if lines.pop(item, None) is not None:
            await self.ctx.storage.put("lines", lines)
        return lines

    async def check_out(self) -> Order:
        """Turn the cart into an order and empty it, in one commit. 409 `empty` when there is nothing in it."""
        lines = await self.lines()
        if not lines:
            raise ActorError("the cart is empty", code="empty", status=409)
        order = Order(number=await self.ctx.storage.get("last_order", 0) + 1, lines=lines)
        # Zeros in front: keys are listed in the order of their text.
        await self.ctx.storage.put_many(
            {"last_order": order["number"], f"order:{order['number']:08}": order, "lines": {}}
        )
        return order

    async def orders(self, limit: Annotated[int, Meta(ge=1, le=100)] = 20) -> list[Order]:
        """The newest orders, newest first."""
        found = await self.ctx.storage.list(prefix="order:", reverse=True, limit=limit)
        return list(found.values())
