"""The example program answers exactly as it is described."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.server import Server

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "account.py"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(EXAMPLE, tmp_path_factory.mktemp("account") / "data") as server:
        yield server


def post(server: Server, path: str, value: object) -> tuple[int, object]:
    reply = server.request("POST", path, json.dumps(value).encode(), JSON)
    return reply.status, reply.json()


def test_the_routes_of_the_front_door(server):
    assert post(server, "/accounts/alice/deposit", {"amount": 100}) == (200, {"account": "alice", "balance": 100})
    answer = {"account": "alice", "ok": True, "balance": 70}
    assert post(server, "/accounts/alice/debit", {"amount": 30}) == (200, answer)
    answer = {"account": "alice", "ok": False, "balance": 70}
    assert post(server, "/accounts/alice/debit", {"amount": 71}) == (200, answer)
    reply = server.request("GET", "/accounts/alice/balance")
    assert (reply.status, reply.json()) == (200, {"account": "alice", "balance": 70})
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json()) == ["account", "balance"]


def test_the_same_actor_without_the_front_door(server):
    post(server, "/accounts/bob/deposit", {"amount": 50})
    assert post(server, "/actors/Account/bob/debit", {"amount": 30}) == (200, {"ok": True, "balance": 20})
    assert post(server, "/actors/Account/bob/debit", [30]) == (200, {"ok": False, "balance": 20})
    assert post(server, "/actors/Account/bob/deposit", {"amount": 0.5}) == (200, 20.5)
    reply = server.request("POST", "/actors/Account/bob/balance")
    assert (reply.status, reply.body) == (200, b"20.5")


@pytest.mark.parametrize("path", ["/health/liveness", "/health/readiness"])
def test_the_program_s_own_health_routes(server, path):
    reply = server.request("GET", path)
    assert (reply.status, reply.body) == (200, b"ok")
    assert reply.headers["content-type"].startswith("text/plain")


def test_the_system_s_health_routes(server):
    assert server.request("GET", "/-/health/live").status == 200
    assert server.request("GET", "/-/health/ready").status == 200
    version = server.request("GET", "/-/version").json()
    assert version["name"] == "actord"


@pytest.mark.parametrize("route", ["deposit", "debit"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"amount": "30"}',
        b'{"amount": true}',
        b'{"amount": null}',
        b'{"amount": [1]}',
        b"{}",
        b"[30]",
        b"30",
        b"",
        b"{",
    ],
)
def test_an_amount_that_is_no_number(server, route, body):
    reply = server.request("POST", f"/accounts/carol/{route}", body, JSON)
    assert (reply.status, reply.json()) == (400, {"error": "amount (number) required"})
    assert server.request("GET", "/accounts/carol/balance").json()["balance"] == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/accounts"),
        ("GET", "/accounts/alice"),
        ("POST", "/accounts/alice/balance"),
        ("GET", "/accounts/alice/deposit"),
        ("GET", "/accounts/alice/balance/more"),
        ("DELETE", "/accounts/alice/balance"),
        ("GET", "/nothing"),
    ],
)
def test_any_other_path_is_not_found(server, method, path):
    reply = server.request(method, path)
    assert (reply.status, reply.body) == (404, b"not found")


def test_100_debits_at_once_never_overdraw(server):
    post(server, "/accounts/dave/deposit", {"amount": 300})
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: post(server, "/accounts/dave/debit", {"amount": 10})[1], range(100)))
    assert sum(answer["ok"] for answer in answers) == 30
    assert sorted(answer["balance"] for answer in answers if answer["ok"]) == list(range(0, 300, 10))
    assert server.request("GET", "/accounts/dave/balance").json()["balance"] == 0
