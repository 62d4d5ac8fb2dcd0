"""Lines of the log say which call they belong to, across actors, workers and the front door."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from actord.shards.slots import shard_of_slot, slot_of

from tests.support.server import Server, call_path

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ALL = [f"actor-{number}\n" for number in range(40)]
# The first half is one worker's, the second the other's.
NAMES = [name for shard in (0, 1) for name in [n for n in ALL if shard_of_slot(slot_of("Metered", n), 2) == shard][:4]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"server.workers": 2, "storage.shards": 2}
    with Server("metered.py", tmp_path_factory.mktemp("logs") / "data", settings=settings) as one:
        yield one


def call(server: Server, name: str, method: str, body: bytes = b"", **headers: str) -> int:
    lines = {key.replace("_", "-"): value for key, value in headers.items()}
    path = call_path("Metered", name, method)
    return server.request("POST", path, body, {"Content-Type": "application/json", **lines}).status


def line(server: Server, message: str) -> dict[str, Any]:
    [record] = server.wait_log(message)
    return record


def test_a_traceparent_and_a_request_id_reach_the_log_of_an_actor_that_another_one_calls(server: Server) -> None:
    begin = server.mark()
    for number, name in enumerate(NAMES):
        body = b'["%b", "words of %d"]' % (NAMES[-1 - number].replace("\n", "\\n").encode(), number)
        assert call(server, name, "pass_on", body, traceparent=PARENT, X_Request_Id=f"request-{number}") == 200
    passed = server.wait_log("passing on", since=begin, count=len(NAMES))
    spoken = [line(server, f"words of {number}$") for number in range(len(NAMES))]
    assert [record["call"] for record in passed] == [f"request-{number}" for number in range(len(NAMES))]
    assert [record["call"] for record in spoken] == [record["call"] for record in passed]
    assert {record["traceparent"] for record in (*passed, *spoken)} == {PARENT}
    assert [(r["type"], r["actor"], r["method"]) for r in spoken] == [("Metered", name, "say") for name in NAMES[::-1]]
    # All of them went to the other worker.
    assert all(one["process"] != other["process"] for one, other in zip(passed, spoken, strict=True))


def test_without_headers_a_call_gets_an_id_with_its_first_line_and_passes_it_on(server: Server) -> None:
    begin = server.mark()
    for words in (b"first", b"second"):
        assert call(server, NAMES[0], "pass_on", b'["other", "id of %b"]' % words) == 200
    ids = [record["call"] for record in server.wait_log("passing on", since=begin, count=2)]
    assert [line(server, f"id of {words}")["call"] for words in ("first", "second")] == ids
    assert len(set(ids)) == 2
    assert "traceparent" not in line(server, "id of first")


def test_a_fault_is_told_with_its_call(server: Server) -> None:
    assert call(server, "faulty", "fail", X_Request_Id="the-faulty-one") == 500
    record = line(server, "Metered.fail of 'faulty' failed")
    assert (record["call"], record["method"], record["actor"]) == ("the-faulty-one", "fail", "faulty")
    assert "RuntimeError: a fault" in record["traceback"]


def test_the_front_door_passes_on_what_its_request_brought(server: Server) -> None:
    begin = server.mark()
    headers = {"traceparent": PARENT, "X-Request-Id": "by-the-door"}
    assert server.request("GET", "/say/somebody", headers=headers).status == 200
    at_the_door = server.wait_log("at the door", since=begin)[0]
    spoken = server.wait_log("from the door", since=begin)[0]
    assert at_the_door["call"] == spoken["call"] == "by-the-door"
    assert at_the_door["traceparent"] == spoken["traceparent"] == PARENT
    assert (spoken["actor"], "actor" in at_the_door) == ("somebody", False)


def test_a_keyed_call_is_told_too_and_its_replay_runs_nothing(server: Server) -> None:
    for _ in range(2):
        assert call(server, "keyed", "say", b'["said once"]', Idempotency_Key="k", X_Request_Id="keyed-1") == 200
    assert line(server, "said once")["call"] == "keyed-1"


@pytest.mark.parametrize(
    "bad",
    ["00-4bf9-00f067aa0ba902b7-01", PARENT.upper(), PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), "x"],
)
def test_a_bad_traceparent_is_as_none(server: Server, bad: str) -> None:
    begin = server.mark()
    assert call(server, "bad", "say", b'["with a bad one"]', traceparent=bad) == 200
    assert "traceparent" not in server.wait_log("with a bad one", since=begin)[0]
