"""FastAPI in front of actors: its own pages, its validation, its streams, and what an actor refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openapi_spec_validator
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.examples.running import EXAMPLES
from tests.support.server import Reply, Server

PROGRAM = EXAMPLES / "fastapi_app" / "main.py"
SETTINGS = {"server.workers": 2, "storage.shards": 2}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(PROGRAM, tmp_path_factory.mktemp("fastapi") / "data", settings=SETTINGS) as running:
        yield running


def post(server: Server, path: str, value: Any = None) -> Reply:
    body = None if value is None else json.dumps(value).encode()
    return server.request("POST", path, body, {"Content-Type": "application/json"})


def test_the_docs_page_shows_the_document_and_the_document_is_valid(server: Server) -> None:
    page = server.request("GET", "/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    (url,) = re.findall(r"url: '([^']+)'", page.body.decode())
    document = server.request("GET", url).json()
    openapi_spec_validator.validate(document)
    assert sorted(document["paths"]) == [
        "/auctions/{auction_id}",
        "/auctions/{auction_id}/bids",
        "/auctions/{auction_id}/bids.csv",
        "/auctions/{auction_id}/close",
    ]
    assert server.request("GET", "/redoc").status == 200


def test_every_route_of_the_document_answers(server: Server) -> None:
    document = server.request("GET", "/openapi.json").json()
    for path, operations in document["paths"].items():
        for verb in operations:
            reply = server.request(verb.upper(), path.replace("{auction_id}", "nobody"))
            assert (reply.status, reply.json().get("code")) in {(404, "unknown"), (422, None)}, (verb, path)


def test_an_auction_from_its_start_to_its_end(server: Server) -> None:
    assert post(server, "/auctions/lamp", {"title": "A lamp", "minimum": 500}).status == 201
    assert post(server, "/auctions/lamp/bids", {"bidder": "ana", "amount": 500}).json()["highest"] == 500
    refused = post(server, "/auctions/lamp/bids", {"bidder": "bob", "amount": 500})
    assert (refused.status, refused.headers["content-type"]) == (409, "application/problem+json")
    assert refused.json()["code"] == "too_low"
    assert refused.json()["data"] == {"least": 501}
    assert refused.json()["applied"] == "no"
    assert post(server, "/auctions/lamp/bids", {"bidder": "bob", "amount": 700}).json()["bidder"] == "bob"
    assert post(server, "/auctions/lamp/close").json()["open"] is False
    assert post(server, "/auctions/lamp/bids", {"bidder": "eve", "amount": 900}).json()["code"] == "closed"
    assert post(server, "/auctions/lamp", {"title": "Again", "minimum": 1}).json()["code"] == "exists"
    assert server.request("GET", "/auctions/lamp").json() == {
        "title": "A lamp",
        "minimum": 500,
        "highest": 700,
        "bidder": "bob",
        "bids": 2,
        "open": False,
    }


def test_what_the_models_refuse_does_not_reach_an_actor(server: Server) -> None:
    for wrong in ({"bidder": "", "amount": 5}, {"bidder": "a", "amount": 0}, {"bidder": "a"}, ["a"]):
        reply = post(server, "/auctions/none/bids", wrong)
        assert (reply.status, reply.headers["content-type"]) == (422, "application/json")


def test_all_bids_come_as_a_stream_of_csv(server: Server) -> None:
    post(server, "/auctions/many", {"title": "Many", "minimum": 1})
    for amount in range(1, 1_201):
        server.result("Auction", "many", "bid", f"b{amount}", amount)
    reply = server.request("GET", "/auctions/many/bids.csv")
    assert reply.headers["transfer-encoding"] == "chunked"
    lines = reply.body.decode().splitlines()
    assert lines == ["number,bidder,amount", *(f"{n},b{n},{n}" for n in range(1, 1_201))]


def test_many_bidders_at_once_outbid_each_other_in_order(server: Server) -> None:
    post(server, "/auctions/race", {"title": "Race", "minimum": 1})
    with ThreadPoolExecutor(16) as pool:
        amounts = range(1, 81)
        replies = list(
            pool.map(lambda n: post(server, "/auctions/race/bids", {"bidder": f"b{n}", "amount": n}), amounts)
        )
    accepted = [n for n, reply in zip(amounts, replies, strict=True) if reply.status == 200]
    lines = server.request("GET", "/auctions/race/bids.csv").body.decode().splitlines()[1:]
    bids = [int(line.split(",")[2]) for line in lines]
    assert sorted(bids) == bids == accepted
    assert bids[-1] == 80


def test_bids_come_over_a_websocket_as_well(server: Server) -> None:
    assert post(server, "/auctions/vase", {"title": "A vase", "minimum": 500}).status == 201
    with connect(f"ws://127.0.0.1:{server.port}/auctions/vase/floor") as client:
        client.send(json.dumps({"bidder": "ana", "amount": 700}))
        assert json.loads(client.recv())["highest"] == 700
        client.send(json.dumps({"bidder": "bob", "amount": 600}))
        assert json.loads(client.recv())["code"] == "too_low"
        assert server.request("GET", "/auctions/vase").json()["bidder"] == "ana"
        client.send("nonsense")
        with pytest.raises(ConnectionClosed, match="1008"):
            client.recv()
