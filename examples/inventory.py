"""The stock of a warehouse in SQL, with full-text search over its items.

Serve it with

    actord serve examples/inventory.py
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypedDict, cast

from actord import ActorError, StatefulActor
from msgspec import Meta

# The schema, step by step: a step that has been released is never changed, new ones are added behind it.
MIGRATIONS = (
    """
    CREATE TABLE item (
        id INTEGER PRIMARY KEY,
        sku TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        description TEXT NOT NULL,
        stock INTEGER NOT NULL DEFAULT 0 CHECK (stock >= 0)
    );
    CREATE INDEX item_by_stock ON item (stock, sku);
    CREATE VIRTUAL TABLE item_text USING fts5 (name, description, content = 'item', content_rowid = 'id');
    CREATE TRIGGER item_added AFTER INSERT ON item BEGIN
        INSERT INTO item_text (rowid, name, description) VALUES (new.id, new.name, new.description);
    END;
    CREATE TRIGGER item_removed AFTER DELETE ON item BEGIN
        INSERT INTO item_text (item_text, rowid, name, description)
            VALUES ('delete', old.id, old.name, old.description);
    END;
    CREATE TRIGGER item_described AFTER UPDATE OF name, description ON item BEGIN
        INSERT INTO item_text (item_text, rowid, name, description)
            VALUES ('delete', old.id, old.name, old.description);
        INSERT INTO item_text (rowid, name, description) VALUES (new.id, new.name, new.description);
    END;
    """,
)


class Item(TypedDict):
    sku: str
    name: str
    description: str
    stock: int


class Inventory(StatefulActor):
    """One warehouse. Its name is the warehouse's; its items are rows of a database that is its own."""

    async def on_activate(self) -> None:
        """Bring the schema up to date, whatever version of this program this warehouse has seen last."""
        sql = self.ctx.storage.sql
        done = sql.exec("PRAGMA user_version").one()["user_version"]
        for number, migration in enumerate(MIGRATIONS[done:], done + 1):
            sql.exec(migration)
            sql.exec(f"PRAGMA user_version = {number}")

    async def describe(self, sku: str, name: str, description: str = "") -> Item:
        """Add an item, or change its texts; returns it. The stock stays as it is."""
        self.ctx.storage.sql.exec(
            "INSERT INTO item (sku, name, description) VALUES (?, ?, ?)"
            " ON CONFLICT (sku) DO UPDATE SET name = excluded.name, description = excluded.description",
            sku,
            name,
            description,
        )
        return await self.item(sku)

    async def item(self, sku: str) -> Item:
        """One item. 404 `unknown_item` when there is none."""
        found = self._items("SELECT sku, name, description, stock FROM item WHERE sku = ?", sku)
        if not found:
            raise ActorError(f"there is no item {sku!r}", code="unknown_item", status=404)
        return found[0]

    async def receive(self, sku: str, count: Annotated[int, Meta(ge=1, le=1_000_000)]) -> Item:
        """Goods have arrived; returns the item. 404 `unknown_item`."""
        self.ctx.storage.sql.exec("UPDATE item SET stock = stock + ? WHERE sku = ?", count, sku)
        return await self.item(sku)

    async def take(self, lines: dict[str, Annotated[int, Meta(ge=1)]]) -> dict[str, int]:
        """Take an order's goods, all of them or none; returns what is left of each. 409 `short`, 404 `unknown_item`."""
        left = {}
        for sku, count in lines.items():
            item = await self.item(sku)
            if item["stock"] < count:
                # This ends the turn: what the lines before this one took is back.
                raise ActorError(f"too few of {sku}", code="short", status=409, data=item)
            self.ctx.storage.sql.exec("UPDATE item SET stock = stock - ? WHERE sku = ?", count, sku)
            left[sku] = item["stock"] - count
        return left

    async def remove(self, sku: str) -> bool:
        """Forget an item. False when there was none."""
        return bool(self.ctx.storage.sql.exec("DELETE FROM item WHERE sku = ? RETURNING sku", sku).to_list())

    async def search(self, text: str, limit: Annotated[int, Meta(ge=1, le=100)] = 20) -> list[Item]:
        """Items whose texts have all of these words, or words that begin so; the best first."""
        # Quoted, so that no character of the text has a meaning of its own.
        words = " ".join(f'"{word}"*' for word in re.findall(r"\w+", text))
        if not words:
            return []
        return self._items(
            "SELECT sku, item.name, item.description, stock FROM item_text JOIN item ON item.id = item_text.rowid"
            " WHERE item_text MATCH ? ORDER BY rank, sku LIMIT ?",
            words,
            limit,
        )

    async def running_out(self, below: int = 10, limit: Annotated[int, Meta(ge=1, le=100)] = 20) -> list[Item]:
        """Items of which there are few, the fewest first."""
        return self._items(
            "SELECT sku, name, description, stock FROM item WHERE stock < ? ORDER BY stock, sku LIMIT ?", below, limit
        )

    def _items(self, query: str, *bindings: Any) -> list[Item]:
        """The rows of a query that selects what an item is made of."""
        return cast(list[Item], self.ctx.storage.sql.exec(query, *bindings).to_list())
