"""Numbers that are given once: for invoices, tickets, orders.

Serve it with

    actord serve examples/dispenser.py
"""

from __future__ import annotations

from typing import Annotated

from actord import StatefulActor
from msgspec import Meta


class Dispenser(StatefulActor):
    """One series of numbers, 1, 2, 3 ... Its name is the series, as in `invoices-2026`."""

    async def next(self, count: Annotated[int, Meta(ge=1, le=1000)] = 1) -> list[int]:
        """Numbers that nobody has had and nobody else will get.

        A caller who never sees the reply can't know them: asking again gives others, and leaves a gap.
        """
        first = await self.last() + 1
        await self.ctx.storage.put("last", first + count - 1)
        return list(range(first, first + count))

    async def number_for(self, document: Annotated[str, Meta(min_length=1, max_length=200)]) -> int:
        """The number of one document: a new one the first time, the same one ever after.

        So a caller who has got no reply may simply ask again, and the series stays without gaps.
        """
        key = f"document:{document}"
        number: int | None = await self.ctx.storage.get(key)
        if number is None:
            number = await self.last() + 1
            await self.ctx.storage.put_many({"last": number, key: number})
        return number

    async def last(self) -> int:
        """The highest number given so far, 0 before the first."""
        last: int = await self.ctx.storage.get("last", 0)
        return last
