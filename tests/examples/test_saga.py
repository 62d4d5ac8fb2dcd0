"""The saga: an order is confirmed or undone as a whole, also when everything is killed in between."""

from __future__ import annotations

from tests.examples.running import EXAMPLES
from tests.support.fixtures import Serve
from tests.support.server import Server, until


def state(server: Server, order: str) -> str:
    found: str = server.result("Order", order, "state")
    return found


def place(server: Server, order: str, sku: str, card: str, amount: int) -> None:
    server.result("Order", order, "place", sku=sku, quantity=2, card=card, amount=amount)


def test_an_order_is_confirmed_or_undone_as_a_whole(serve: Serve) -> None:
    server = serve(EXAMPLES / "saga.py", settings={"server.workers": 2})
    server.result("Stock", "lamp", "add", 5)
    server.result("Card", "visa", "limit", 100)
    place(server, "good", "lamp", "visa", 60)
    until(lambda: state(server, "good") == "confirmed", "the order to be confirmed")
    place(server, "good", "lamp", "visa", 60)  # a second time changes nothing
    place(server, "dear", "lamp", "visa", 60)
    until(lambda: state(server, "dear") == "cancelled: declined", "the card to be declined")
    until(lambda: server.result("Stock", "lamp", "left") == 3, "the stock to be given back")
    server.result("Card", "visa", "limit", 1_000)
    place(server, "last", "lamp", "visa", 1)
    until(lambda: state(server, "last") == "confirmed", "the order to be confirmed")
    place(server, "none", "lamp", "visa", 1)
    until(lambda: state(server, "none") == "cancelled: sold out", "nothing to be left")
    assert server.result("Stock", "lamp", "left") == 1
    assert server.result("Card", "visa", "free") == 999
    assert server.unexpected() == []


def test_orders_under_way_when_everything_is_killed_come_to_an_end(serve: Serve) -> None:
    server = serve(EXAMPLES / "saga.py", settings={"server.workers": 2})
    server.result("Stock", "lamp", "add", 40)
    server.result("Card", "visa", "limit", 10)
    orders = [f"o-{number}" for number in range(30)]
    for order in orders:
        place(server, order, "lamp", "visa", 1)
    server.kill()
    server.start()
    ends = {"confirmed", "cancelled: declined", "cancelled: sold out"}
    until(lambda: {state(server, order) for order in orders} <= ends, "all orders to end", patience=60)
    confirmed = sum(state(server, order) == "confirmed" for order in orders)
    until(lambda: server.result("Stock", "lamp", "left") == 40 - 2 * confirmed, "the rest to be given back")
    assert confirmed == 10 - server.result("Card", "visa", "free")
