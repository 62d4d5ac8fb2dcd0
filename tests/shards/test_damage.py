"""A value that rotted on the disk is never returned, and locks nothing else of its actor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
from actord import StatefulActor

from tests.support.harness import Core, open_sqlite


class Box(StatefulActor):
    async def put(self, key: str, value: Any) -> None:
        await self.ctx.storage.put(key, value)

    async def get(self, key: str) -> Any:
        return await self.ctx.storage.get(key)

    async def clear(self) -> None:
        await self.ctx.storage.delete_all()


async def test_a_damaged_value_is_refused_and_the_rest_of_its_actor_is_served(tmp_path: Path, caplog: Any) -> None:
    with open_sqlite(tmp_path) as store:
        path = store.path
        core = Core(Box, store=store)
        for key in ("a", "b", "c"):
            await core.value("x", "put", key, key * 3)
    rot(path, "b")
    with open_sqlite(tmp_path) as store:
        core = Core(Box, store=store)
        refused = await core.call("x", "get", "b")
        assert (refused.status, refused.name, refused.applied) == (500, "StoreCorrupt", "no")
        assert path not in refused.detail, "where files lie is for the log"
        assert "'b'" in caplog.text
        assert await core.value("x", "get", "a") == "aaa"
        await core.value("x", "put", "b", "new")
        assert await core.value("x", "get", "b") == "new"
        await core.value("x", "clear")
        assert await core.value("x", "get", "c") is None


def rot(path: str, key: str) -> None:
    """Change one value behind the checksum's back."""
    with apsw.Connection(path) as conn:
        conn.execute("PRAGMA locking_mode = EXCLUSIVE")
        conn.execute("UPDATE kv SET value = CAST('?' || substr(value, 2) AS BLOB) WHERE key = ?", (key,))
    conn.close()
