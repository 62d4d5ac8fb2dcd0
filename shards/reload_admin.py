"""What a server asks its workers before it loads another program: does the data still have its classes?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from actord.errors import BadRequest
from actord.shards.admin import Handler
from actord.shards.control import Message
from actord.shards.shard import Shard
from actord.shards.slots import slot_range

_SLOTS_AT_ONCE = 64  # between two of these, calls run
_ACTORS_AT_ONCE = 2_048


class ReloadAdmin:
    """``count``: the number of shards of the server."""

    def __init__(self, shards: Iterable[Shard], count: int) -> None:
        self._shards = list(shards)
        self._count = count

    def handlers(self) -> dict[str, Handler]:
        return {"reload.lost": self.lost}

    async def lost(self, request: Message) -> Any:
        """``types``: those of the new program. The types of which there is data here and that are none of them.

        ``versions``: the latest version that data of a type have here.
        """
        types = request.get("types")
        if not isinstance(types, list):
            raise BadRequest("types is the list of the new program's types.")
        known = frozenset(types)
        found: set[str] = set()
        for shard in self._shards:
            for number, slot in enumerate(slot_range(shard.number, self._count)):
                found.update(shard.store.lost_types(slot, known))
                if number % _SLOTS_AT_ONCE == _SLOTS_AT_ONCE - 1:
                    await asyncio.sleep(0)
        return {"lost": sorted(found), "versions": await self._versions()}

    async def _versions(self) -> dict[str, int]:
        """The latest version of any actor's data, by type."""
        newest: dict[str, int] = {}
        for shard in self._shards:
            after = 0
            while True:
                page, after = shard.store.newest_versions(after=after, limit=_ACTORS_AT_ONCE)
                for type_, version in page.items():
                    newest[type_] = max(version, newest.get(type_, 1))
                if not after:
                    break
                await asyncio.sleep(0)
        return newest
