"""The inventory: stock that never goes below nothing, and a search that knows what is stored, no more and no less."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.running import EXAMPLES, ONE_WORKER, at_once, changed, serving
from tests.support.client import Client, Lost, NotSent
from tests.support.fixtures import Serve
from tests.support.server import PATIENCE_SECONDS, Server

CHECKED = """
class Checked(Inventory):
    async def describe_and_fail(self, sku: str, name: str) -> None:
        await self.describe(sku, name)
        assert len(await self.search(name)) == 1, "a turn sees its own writes in the search"
        raise RuntimeError("no")

    async def check(self) -> None:
        # Raises when index and table differ.
        self.ctx.storage.sql.exec("INSERT INTO item_text (item_text, rank) VALUES ('integrity-check', 1)")
"""
NEXT_RELEASE = """
import inventory

inventory.MIGRATIONS += ("ALTER TABLE item ADD COLUMN shelf TEXT NOT NULL DEFAULT 'none'",)


class Inventory(Inventory):
    async def shelf(self, sku: str) -> str:
        return self.ctx.storage.sql.exec("SELECT shelf FROM item WHERE sku = ?", sku).one()["shelf"]
"""


Place = tuple[str, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("inventory"), "inventory", CHECKED) as server:
        yield server


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """A warehouse of the test's own."""
    return "Checked", request.node.name


def filled(server: Server, place: Place, **stock: int) -> None:
    for sku, count in stock.items():
        server.result(*place, "describe", sku, f"Item {sku}")
        server.result(*place, "receive", sku, count)


def stock(server: Server, place: Place) -> dict[str, int]:
    return {item["sku"]: item["stock"] for item in server.result(*place, "running_out", 1_000_000, 100)}


def test_orders_of_many_clients_at_once_never_take_more_than_there_is(server: Server, place: Place) -> None:
    filled(server, place, a=70, b=45)
    replies = at_once(server.port, 30, *place, "take", {"a": 1, "b": 2}, calls=2)
    assert sorted(reply.status for reply in replies) == [200] * 22 + [409] * 38
    assert stock(server, place) == {"a": 48, "b": 1}
    server.kill()
    server.start()
    assert stock(server, place) == {"a": 48, "b": 1}


def test_an_order_takes_everything_or_nothing(server: Server, place: Place) -> None:
    filled(server, place, a=5, b=1)
    short = server.call(*place, "take", {"a": 5, "b": 2})
    assert (short.status, short.json()["code"], short.json()["data"]["stock"]) == (409, "short", 1)
    assert server.call(*place, "take", {"a": 5, "c": 1}).json()["code"] == "unknown_item"
    assert server.call(*place, "take", {"a": -1}).json()["name"] == "ActorArgumentError"
    assert stock(server, place) == {"a": 5, "b": 1}
    assert server.result(*place, "take", {"a": 5, "b": 1}) == {"a": 0, "b": 0}


def test_the_search_follows_every_change_of_the_texts(server: Server, place: Place) -> None:
    def found(text: str) -> list[str]:
        return sorted(item["sku"] for item in server.result(*place, "search", text))

    server.result(*place, "describe", "P1", "Blue pencil", "soft, for drawing")
    server.result(*place, "describe", "P2", "Red pencil")
    server.result(*place, "describe", "I1", "Blue ink", "Tinte für Füller")
    assert found("pencil") == ["P1", "P2"]
    assert found("blue pen") == ["P1"]
    assert found("FÜLL") == ["I1"]
    assert found("nothing of it") == found("") == found("_") == found('" * :') == []
    assert found('pencil" OR "ink') == found("_ pencil AND") == []
    assert found("name:blue") == []
    server.result(*place, "describe", "P1", "Green pencil")
    assert found("blue") == ["I1"]
    assert found("drawing") == []
    server.result(*place, "receive", "P2", 3)
    assert server.result(*place, "search", "red") == [
        {"sku": "P2", "name": "Red pencil", "description": "", "stock": 3}
    ]
    assert server.result(*place, "remove", "P2") is True
    assert server.result(*place, "remove", "P2") is False
    assert found("pencil") == ["P1"]
    server.result(*place, "check")


def test_a_turn_that_fails_leaves_nothing_in_the_table_and_nothing_in_the_index(server: Server, place: Place) -> None:
    assert server.call(*place, "describe_and_fail", "P1", "Ghost").json()["detail"].endswith("RuntimeError: no")
    assert server.result(*place, "search", "ghost") == []
    assert server.call(*place, "item", "P1").json()["code"] == "unknown_item"
    server.result(*place, "check")


def test_warehouses_know_nothing_of_each_other(server: Server, place: Place) -> None:
    filled(server, place, a=1)
    assert server.result("Checked", "another", "search", "item") == []


async def stock_up(server: Server, place: Place, items: int, clients: int) -> set[str]:
    """Clients describe items, asking again until they are answered, and the worker is killed on the way."""
    acknowledged: set[str] = set()
    progress = asyncio.Semaphore(0)

    async def one(mine: int) -> None:
        client = Client(server.port)
        for i in range(mine, items, clients):
            while f"n{i}" not in acknowledged:
                try:
                    reply = await client.call(*place, "describe", f"n{i}", f"common w{i}")
                except (Lost, NotSent):
                    await asyncio.sleep(0.01)  # before the next attempt
                    continue
                if reply.status == 200:
                    acknowledged.add(f"n{i}")
            progress.release()
        client.close()

    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        for mine in range(clients):
            group.create_task(one(mine))
        for _ in range(2):
            for _ in range(items // 3):
                await progress.acquire()
            [worker] = server.children("worker")
            await asyncio.to_thread(server.kill_child, worker.pid)
    return acknowledged


def test_table_and_index_agree_after_kills_under_load(server: Server, place: Place) -> None:
    acknowledged = asyncio.run(stock_up(server, place, items=99, clients=9))
    server.result(*place, "check")
    found = server.result(*place, "search", "common", 100)
    assert {item["sku"] for item in found} == acknowledged == {f"n{i}" for i in range(99)}
    assert [item["sku"] for item in server.result(*place, "search", "common w98")] == ["n98"]


def test_a_new_release_brings_each_database_up_to_date(serve: Serve, tmp_path: Path) -> None:
    place = ("Inventory", "hamburg")
    older = serve(EXAMPLES / "inventory.py", settings=ONE_WORKER)
    filled(older, place, a=7)
    older.stop()
    program, environment = changed(tmp_path, "inventory", NEXT_RELEASE)
    newer = serve(program, settings=ONE_WORKER, environment=environment)
    assert newer.result(*place, "shelf", "a") == "none"
    assert stock(newer, place) == {"a": 7}
    newer.kill()
    newer.start()
    assert newer.result(*place, "shelf", "a") == "none", "a step is taken once"
