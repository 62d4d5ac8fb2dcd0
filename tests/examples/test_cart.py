"""The cart: its limits and its check-out hold whatever the clients do at the same time, with no lock in it."""

from __future__ import annotations

import asyncio

from examples.cart import MAX_ITEMS, Cart
from tests.examples.running import EXAMPLES, ONE_WORKER, at_once
from tests.support.fixtures import Serve
from tests.support.harness import Core


class DitheringCart(Cart):
    """Lets everybody else go first between its check and its act."""

    async def lines(self) -> dict[str, int]:
        found = await super().lines()
        await asyncio.sleep(0.01)
        return found


async def test_check_then_act_needs_no_lock_although_it_awaits_in_between() -> None:
    core = Core(DitheringCart)
    answers = await asyncio.gather(*(core.call("ana", "add", "pen") for _ in range(25)))
    assert sorted(answer.status for answer in answers) == [200] * 10 + [409] * 15
    assert await core.value("ana", "lines") == {"pen": 10}


async def test_a_refusal_says_why_and_leaves_the_cart_as_it_was() -> None:
    core = Core(Cart)
    await core.value("ana", "add", "pen", 9)
    refused = await core.call("ana", "add", "pen", 2)
    assert (refused.status, refused.value["code"]) == (409, "too_many")
    assert refused.value["data"] == {"item": "pen", "in_cart": 9, "limit": 10}
    assert (await core.call("ana", "add", "pen", 0)).name == "ActorArgumentError"
    assert await core.value("ana", "lines") == {"pen": 9}


async def test_a_cart_holds_so_many_different_items() -> None:
    core = Core(Cart)
    for i in range(MAX_ITEMS):
        await core.value("ana", "add", f"item {i}")
    assert (await core.call("ana", "add", "one more")).value["code"] == "too_many"
    assert await core.value("ana", "add", "item 0") == {f"item {i}": 1 + (i == 0) for i in range(MAX_ITEMS)}


async def test_removing_takes_the_whole_line_and_forgives_what_is_not_there() -> None:
    core = Core(Cart)
    await core.value("ana", "add", "pen", 2)
    await core.value("ana", "add", "ink")
    assert await core.value("ana", "remove", "pen") == {"ink": 1}
    assert await core.value("ana", "remove", "pen") == {"ink": 1}


async def test_orders_are_listed_newest_first() -> None:
    core = Core(Cart)
    for number in range(1, 12):
        await core.value("ana", "add", "pen")
        assert (await core.value("ana", "check_out"))["number"] == number
    newest = await core.value("ana", "orders", 2)
    assert newest == [{"number": 11, "lines": {"pen": 1}}, {"number": 10, "lines": {"pen": 1}}]


def test_clicking_twice_makes_one_order_and_it_survives_a_kill(serve: Serve) -> None:
    server = serve(EXAMPLES / "cart.py", settings=ONE_WORKER)
    added = at_once(server.port, 25, "Cart", "ana", "add", "pen")
    assert sorted(reply.status for reply in added) == [200] * 10 + [409] * 15
    clicks = at_once(server.port, 20, "Cart", "ana", "check_out")
    assert sorted(reply.status for reply in clicks) == [200] + [409] * 19
    server.kill()
    server.start()
    assert server.result("Cart", "ana", "orders") == [{"number": 1, "lines": {"pen": 10}}]
    assert server.result("Cart", "ana", "lines") == {}
