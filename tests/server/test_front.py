"""What a client sees of a real front process; the worker behind it is fake."""

from __future__ import annotations

import json
import socket
from email.utils import parsedate_to_datetime
from pathlib import Path

import ormsgpack
import pytest
from actord.shards import wire
from actord.shards.slots import shard_of_slot, slot_of

from tests.support.front_process import FrontProcess


def seen(front: FrontProcess) -> list[object]:
    """The last frame that the worker got."""
    with front.connect() as client:
        client.call("seen")
        frame: list[object] = client.answer().json
        return frame


# -- calls


def test_a_call_reaches_the_worker_whole_and_its_reply_comes_back_framed(front: FrontProcess) -> None:
    with front.connect() as client:
        client.call("echo", '{"amount":30,"note":"grüße"}'.encode(), type_="Account", name="al%2Fice")
        answer = client.answer()
    assert answer.status == 200
    assert answer.json == {"amount": 30, "note": "grüße"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert parsedate_to_datetime(answer.headers["date"]).tzinfo is not None
    kind, _, type_, name, method, flags, _, body = seen(front)
    assert (kind, type_, name, method, flags) == (wire.CALL, "Account", "al/ice", "echo", 0)
    assert json.loads(str(body).encode("latin-1")) == {"amount": 30, "note": "grüße"}


def test_timing_and_msgpack_travel_as_flags(front: FrontProcess) -> None:
    with front.connect() as client:
        client.call("echo?timing")
        client.answer()
        assert seen(front)[5] == wire.TIMING
        body = ormsgpack.packb({"a": 1})
        client.send(
            b"POST /actors/A/x/echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/msgpack\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        client.answer()
        client.call("seen")
        assert client.answer().json[5] == wire.MSGPACK


def test_a_call_with_both_kinds_of_arguments_travels_as_a_pair(front: FrontProcess) -> None:
    body = ormsgpack.packb([[1], {"b": 2}])
    with front.connect() as client:
        client.send(
            b"POST /actors/A/x/echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/vnd.actord.call\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        client.answer()
        assert seen(front)[5] == wire.MSGPACK | wire.PAIR


def test_the_deadline_is_the_clients_or_the_configured_one(tmp_path: Path) -> None:
    with FrontProcess(tmp_path, settings={"http": {"call_deadline": 100.0}}) as front, front.connect() as client:
        client.call("echo")
        client.answer()
        default = seen(front)[6]
        client.call("echo", extra="Actord-Timeout: 20\r\n")
        client.answer()
        own = seen(front)[6]
        assert isinstance(default, int)
        assert isinstance(own, int)
        assert 60_000 < default - own <= 80_000
        client.call("echo", extra="Actord-Timeout: soon\r\n")
        answer = client.answer()
        assert (answer.status, answer.json["name"]) == (400, "BadRequest")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Content-Type: application/json", 200),
        ("Content-Type: APPLICATION/JSON; charset=UTF-8", 200),
        ('Content-Type: application/json; charset="utf-8"', 200),
        ("Content-Type: application/json;profile=x", 200),
        ("Content-Type: application/msgpack", 200),
        ("Content-Type: application/vnd.actord.call", 200),
        ("Content-Type: application/json; charset=latin-1", 415),
        ("Content-Type: application/x-www-form-urlencoded", 415),
        ("Content-Type: text/json", 415),
        ("X: y", 415),
        ("Content-Type: application/json\r\nContent-Encoding: gzip", 415),
        ("Content-Type: application/json\r\nIdempotency-Key: k\r\nIdempotency-Key: l", 400),
    ],
)
def test_the_body_of_a_call_says_what_it_is(front: FrontProcess, header: str, status: int) -> None:
    before = front.counts()["call"]
    with front.connect() as client:
        client.send(f"POST /actors/A/x/echo HTTP/1.1\r\nHost: a\r\n{header}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        answer = client.answer()
        assert answer.status == status
        if status == 415 and "Encoding" not in header and "charset" not in header:
            assert "--json" in answer.json["detail"]
        client.call("echo")  # the connection lives on
        assert client.answer().status == 200
    assert front.counts()["call"] == before + 1 + (status == 200)


def test_a_call_with_another_verb_names_the_right_one(front: FrontProcess) -> None:
    with front.connect() as client:
        client.get("/actors/A/x/echo")
        answer = client.answer()
        assert (answer.status, answer.headers["allow"], answer.json["name"]) == (405, "POST", "MethodNotAllowed")


def test_every_key_goes_to_the_worker_that_owns_its_shard(tmp_path: Path) -> None:
    with FrontProcess(tmp_path, workers=3) as front, front.connect() as client:
        names = [f"n{i}" for i in range(60)]
        for name in names:
            client.call("echo", name=name)
            client.answer()
        owned = [0, 0, 0]
        for name in names:
            owned[shard_of_slot(slot_of("Canary", name), 3)] += 1
        for worker in range(3):
            name = next(n for n in names if shard_of_slot(slot_of("Canary", n), 3) == worker)
            client.call("count", name=name)
            assert client.answer().json["call"] == owned[worker]


# -- fetch, door, system paths


def test_fetch_and_door_get_method_target_headers_and_client(door: FrontProcess) -> None:
    with door.connect() as client:
        client.send(
            b"PUT /actors/Room/r/fetch/a%20b?q HTTP/1.1\r\nHost: a\r\nX-Some: \xe9\r\nContent-Length: 2\r\n\r\nhi"
        )
        answer = client.answer()
        headers = [["host", "a"], ["x-some", "é"], ["content-length", "2"]]
        assert answer.json == {
            "kind": "fetch",
            "request": ["PUT", "/a%20b?q", headers, "127.0.0.1"],
            "body": "hi",
        }
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["x-from"] == "worker"
        assert answer.headers["cache-control"] == "no-store"
        client.get("/accounts/alice/balance?x=1")
        answer = client.answer()
        assert answer.json["kind"] == "door"
        assert answer.json["request"][:2] == ["GET", "/accounts/alice/balance?x=1"]
        assert "cache-control" not in answer.headers


@pytest.mark.parametrize("target", ["/hello", "/actors/Room/r/fetch/hello", "/-/version"])
def test_head_is_get_without_its_body(door: FrontProcess, target: str) -> None:
    with door.connect() as client:
        client.get(target)
        whole = client.answer()
        client.get(target, method="HEAD")
        client.get("/-/health/live")
        received = b""
        while not received.endswith(b'{"status":"live"}'):
            received += client.sock.recv(65536)
        head = received.split(b"\r\n\r\n")[0].decode().lower()
        assert head.startswith("http/1.1 200 ok")
        assert f"content-length: {len(whole.body)}" in head
        assert received.count(b"\r\n\r\n") == 2
        assert whole.body not in received


def test_without_a_front_door_other_paths_are_404_and_health_has_short_names(front: FrontProcess) -> None:
    with front.connect() as client:
        statuses = {}
        for target in ("/", "/health", "/health/live", "/health/ready", "/-/health/ready", "/-/nothing"):
            client.get(target)
            statuses[target] = client.answer().status
        client.get("/-/version")
        assert client.answer().json == {"name": "actord", "version": "1.2.3"}
        client.get("/-/version", method="POST")
        answer = client.answer()
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert list(statuses.values()) == [404, 200, 200, 200, 200, 404]


def test_a_programs_own_routes_win_over_the_short_names(door: FrontProcess) -> None:
    with door.connect() as client:
        client.get("/health")
        assert client.answer().json["kind"] == "door"
        client.get("/-/health/live")
        assert client.answer().json == {"status": "live"}


def test_the_front_door_is_served_by_all_workers_in_turn(tmp_path: Path) -> None:
    with FrontProcess(tmp_path, workers=2, front_door=True) as front, front.connect() as client:
        for _ in range(10):
            client.get("/hello")
            client.answer()
        for worker in range(2):
            name = next(f"n{i}" for i in range(99) if shard_of_slot(slot_of("Canary", f"n{i}"), 2) == worker)
            client.call("count", name=name)
            assert client.answer().json["door"] == 5


def test_before_the_first_worker_is_up_the_front_says_so(tmp_path: Path) -> None:
    with FrontProcess(tmp_path, start_workers=False) as front:
        with front.connect() as client:
            client.get("/-/health/live")
            assert client.answer().status == 200
            client.get("/-/health/ready")
            answer = client.answer()
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            client.get("/anything")
            answer = client.answer()
            assert (answer.status, answer.json["name"]) == (503, "ActorUnavailable")
            client.call("echo", b"[1]")  # waits for its worker
            front.start_worker()
            assert client.answer().body == b"[1]"
        assert front.hear()["ready"] is True
        with front.connect() as client:
            client.get("/-/health/ready")
            assert client.answer().status == 200


# -- connections


def test_pipelined_answers_keep_the_order_of_their_requests(front: FrontProcess) -> None:
    before = front.counts()["call"]
    with front.connect() as client, front.connect() as other:
        for number in range(3):
            client.call("hold", b"[%d]" % number)
        client.call("echo", b"[3]")
        client.get("/-/health/live")
        client.call("hold", b"[5]")
        front.wait_for_counts(call=before + 5)
        other.call("release")  # the fake worker answers the newest first
        assert other.answer().json == 4
        answers = client.answers(6)
    assert [answer.body for answer in answers] == [b"[0]", b"[1]", b"[2]", b"[3]", b'{"status":"live"}', b"[5]"]


def test_no_more_requests_are_under_way_than_the_limit(tmp_path: Path) -> None:
    with FrontProcess(tmp_path, settings={"http": {"pipeline": 4}}) as front, front.connect() as client:
        for _ in range(10):
            client.call("hold")
        with front.connect() as other:
            for begun, released in ((4, 4), (8, 4), (10, 2)):
                front.wait_for_counts(call=begun)
                assert front.counts()["call"] == begun  # another round trip: still no more than the limit
                other.call("release")
                assert other.answer().json == released
                assert len(client.answers(released)) == released


def test_100_continue_is_sent_when_the_body_is_waited_for(front: FrontProcess) -> None:
    with front.connect() as client:
        client.send(
            b"POST /actors/A/x/echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"[1]")
        assert client.answer().body == b"[1]"


def test_100_continue_waits_for_the_answers_before_it(front: FrontProcess) -> None:
    before = front.counts()["call"]
    with front.connect() as client, front.connect() as other:
        client.call("hold")
        client.call("echo", b"", extra="Expect: 100-continue\r\n")
        client.send(
            b"POST /actors/A/x/echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        front.wait_for_counts(call=before + 2)
        other.call("release")
        received = b""
        while not received.endswith(b"100 Continue\r\n\r\n"):
            received += client.sock.recv(65536)
        assert received.count(b"HTTP/1.1 200 OK") == 2
        assert received.count(b"100 Continue") == 1
        client.send(b"[1]")
        assert client.answer().body == b"[1]"


def test_100_continue_is_not_sent_when_the_body_comes_along(front: FrontProcess) -> None:
    with front.connect() as client:
        client.call("echo", b"[1]", extra="Expect: 100-continue\r\n")
        client.get("/-/health/live")
        received = b""
        while not received.endswith(b'{"status":"live"}'):
            received += client.sock.recv(65536)
        assert b"100 Continue" not in received


@pytest.mark.parametrize(
    ("version", "header", "kept"),
    [
        ("1.1", "X: y", True),
        ("1.1", "Connection: close", False),
        ("1.1", "Connection: x, Close", False),
        ("1.0", "X: y", False),
        ("1.0", "Connection: keep-alive", True),
    ],
)
def test_the_connection_is_kept_as_the_client_asks(front: FrontProcess, version: str, header: str, kept: bool) -> None:
    with front.connect() as client:
        request = f"POST /actors/A/x/echo HTTP/{version}\r\nHost: a\r\n{header}\r\n\r\n".encode()
        client.send(request)
        answer = client.answer()
        assert answer.status == 200
        if kept:
            assert answer.headers.get("connection") == ("keep-alive" if version == "1.0" else None)
            client.send(request)
            assert client.answer().status == 200
        else:
            assert answer.headers["connection"] == "close"
            assert client.at_end()


def test_a_request_after_the_last_one_is_not_executed(front: FrontProcess) -> None:
    before = front.counts()["call"]
    with front.connect() as client:
        client.call("echo", extra="Connection: close\r\n")
        client.call("echo")
        assert len(client.answers(2)) == 1
    assert front.counts()["call"] == before + 1


def test_a_client_that_only_stopped_sending_is_answered(front: FrontProcess) -> None:
    before = front.counts()["call"]
    with front.connect() as client, front.connect() as other:
        client.call("hold")
        client.call("echo", b"[2]")
        client.sock.shutdown(socket.SHUT_WR)
        front.wait_for_counts(call=before + 2)
        other.call("release")
        assert [answer.status for answer in client.answers(2)] == [200, 200]
        assert client.at_end()


def test_the_calls_of_a_client_that_vanished_are_cancelled(front: FrontProcess) -> None:
    before = front.counts()
    client = front.connect()
    for _ in range(3):
        client.call("queue")
    front.wait_for_counts(call=before["call"] + 3)
    client.reset()
    front.wait_for_counts(cancel=before["cancel"] + 3)


def test_one_client_that_never_reads_is_not_read_from_either(tmp_path: Path) -> None:
    settings = {"http": {"write_buffer": 1_000_000, "pipeline": 8}}
    with FrontProcess(tmp_path, settings=settings) as front, front.connect() as slow:
        for _ in range(200):
            slow.call("big")  # a megabyte each
        with front.connect() as other:
            counts = []
            for _ in range(300):
                other.call("count")
                counts.append(other.answer().json["call"])
        # Bounded: what the socket buffers hold, the write buffer, and the pipeline. Not all 200 of them.
        assert counts[-1] < 100
        answers = slow.answers(200)
        assert [len(answer.body) for answer in answers] == [1_000_002] * 200


def test_connections_over_the_limit_are_told_and_closed(tmp_path: Path) -> None:
    settings = {"http": {"connections": 2}}
    with FrontProcess(tmp_path, settings=settings) as front, front.connect() as one, front.connect() as two:
        for client in (one, two):
            client.get("/-/health/live")
            assert client.answer().status == 200
        with front.connect() as third:
            answer = third.answer()
            assert (answer.status, answer.json["name"]) == (503, "ActorOverloaded")
            assert third.at_end()
        one.get("/-/health/live")
        assert one.answer().status == 200


def test_connections_of_one_peer_have_a_limit_of_their_own(tmp_path: Path) -> None:
    with FrontProcess(tmp_path, settings={"http": {"connections_per_peer": 1}}) as front, front.connect() as one:
        one.get("/-/health/live")
        assert one.answer().status == 200
        with front.connect() as two:
            assert two.answer().status == 503


def test_a_unix_socket_serves_the_same(tmp_path: Path) -> None:
    with FrontProcess(tmp_path, uds=True) as front, front.connect() as client:
        client.call("echo", b"[1]")
        assert client.answer().body == b"[1]"
        client.send(b"GET / HTTP/1.1\nHost: a\n\n")
        assert client.answer().status == 400
        assert client.at_end()


def test_the_programs_description_comes_from_a_worker_with_or_without_a_front_door(front: FrontProcess) -> None:
    with front.connect() as client:
        client.get(wire.OPENAPI + "?x=1", "Actord-Timeout: 5\r\n")
        assert client.answer().status == 200
        kind, _, request, flags, _, body = seen(front)
        assert (kind, request[:2], flags, body) == (wire.DOOR, ["GET", wire.OPENAPI], 0, "")
        client.get(wire.OPENAPI, method="POST")
        answer = client.answer()
        assert (answer.status, answer.json["name"], answer.headers["allow"]) == (405, "MethodNotAllowed", "GET, HEAD")


def test_the_programs_description_waits_for_no_worker(tmp_path: Path) -> None:
    with FrontProcess(tmp_path, start_workers=False) as front, front.connect() as client:
        client.get(wire.OPENAPI)
        answer = client.answer()
        assert (answer.status, answer.json["name"]) == (503, "ActorUnavailable")


# -- pages in browsers


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", ""]
)
def test_a_page_of_another_origin_can_not_make_a_call_as_a_form_would(front: FrontProcess, kind: str) -> None:
    extra = f"Content-Type: {kind}\r\n" if kind else ""
    before = front.counts()
    with front.connect() as client:
        for origin in ("http://evil.test", "null", "http://a:81"):
            client.get("/actors/Account/alice/close", f"{extra}Origin: {origin}\r\n", "POST")
            answer = client.answer()
            assert (answer.status, answer.json["name"]) == (403, "Forbidden")
            assert "access-control-allow-origin" not in answer.headers
        assert front.counts() == before
        for own in ("Origin: http://a\r\n", ""):
            client.get("/actors/Account/alice/close", f"{extra}{own}", "POST")
            assert client.answer().status == 200


def test_no_question_of_a_browser_is_answered_with_leave(front: FrontProcess) -> None:
    asked = "Origin: http://evil.test\r\nAccess-Control-Request-Method: POST\r\n"
    with front.connect() as client:
        client.get("/actors/Account/alice/close", asked + "Access-Control-Request-Headers: content-type\r\n", "OPTIONS")
        answer = client.answer()
    assert answer.status == 405
    assert not [name for name in answer.headers if name.startswith("access-control-")]
