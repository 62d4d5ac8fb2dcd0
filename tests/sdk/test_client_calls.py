"""What the clients make of lost connections, refusals and odd answers: against a server that answers by a script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from actord import ActordError, ActorError, ActorUnavailable, Request, Response, client_calls, codec
from actord.client import Client
from actord.client_calls import LogicalCall, NoAnswer, read_result
from actord.errors import ActorOverloaded, BadRequest

from tests.support.clients import KINDS, Driver
from tests.support.fake_http import DROP, Asked, FakeServer, Reply, problem, value

UNKNOWN = problem(ActorUnavailable("The worker was lost.", applied="unknown"))
NOT_APPLIED = problem(ActorOverloaded("Full.", applied="no"))

Connect = Callable[..., Driver]


@pytest.fixture(autouse=True)
def _no_time_passes_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_calls, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(client_calls, "BACKOFF_SECONDS_MAX", 0.001)


@pytest.fixture(params=KINDS)
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes clients of one kind."""
    made = []

    def make(server: FakeServer | str, **options: Any) -> Driver:
        made.append(Driver(request.param, server if isinstance(server, str) else server.url, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def keys(server: FakeServer) -> list[str | None]:
    return [asked.headers.get("idempotency-key") for asked in server.asked]


# -- what is tried again


def test_every_attempt_of_a_call_carries_the_same_key_and_no_other_call_does(connect: Connect) -> None:
    with FakeServer([DROP, UNKNOWN, NOT_APPLIED, value(1), value(2)]) as server:
        driver = connect(server)
        assert driver.do(lambda c: c.actor("T", "n").add(5)) == 1
        assert driver.do(lambda c: c.actor("T", "n").add(5)) == 2
        sent = keys(server)
        assert None not in sent
        assert len(set(sent[:4])) == 1
        assert sent[4] != sent[0]
        assert len({asked.body for asked in server.asked}) == 1


@pytest.mark.parametrize("lost", [DROP, UNKNOWN, Reply(502, b"<html>")], ids=["dropped", "unknown", "gateway"])
def test_a_call_without_a_key_whose_outcome_is_unknown_is_not_sent_again(connect: Connect, lost: Any) -> None:
    with FakeServer([lost, value(1)]) as server:
        with pytest.raises(ActorUnavailable) as raised:
            connect(server, idempotent=False).do(lambda c: c.actor("T", "n").add(5))
        assert raised.value.applied == "unknown"
        assert keys(server) == [None]


def test_what_was_certainly_not_applied_is_sent_again_also_without_a_key(connect: Connect) -> None:
    with FakeServer([NOT_APPLIED, NOT_APPLIED, value(1)]) as server:
        assert connect(server, idempotent=False).do(lambda c: c.actor("T", "n").add(5)) == 1
        assert keys(server) == [None] * 3


def test_a_call_is_tried_again_as_often_as_was_said(connect: Connect) -> None:
    with FakeServer([NOT_APPLIED]) as server:
        with pytest.raises(ActorOverloaded):
            connect(server, retries=2).do(lambda c: c.actor("T", "n").add(5))
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    "error",
    [
        ActorError("no", code="x", status=503),
        ActorError("no", status=409),
        ActordError("broken"),
        ActorUnavailable("done", applied="yes"),
    ],
    ids=lambda error: f"{type(error).__name__}-{error.http_status}-{error.applied}",
)
def test_an_outcome_is_not_tried_again(connect: Connect, error: ActordError) -> None:
    with FakeServer([problem(error)]) as server:
        driver = connect(server, idempotent=error.applied == "no")
        with pytest.raises(type(error)) as raised:
            driver.do(lambda c: c.actor("T", "n").add(5))
        assert raised.value.applied == error.applied
        assert len(server.asked) == 1


def test_an_earlier_attempt_that_may_have_been_applied_is_not_forgotten(connect: Connect) -> None:
    with FakeServer([UNKNOWN, NOT_APPLIED]) as server:
        with pytest.raises(ActorOverloaded) as raised:
            connect(server, retries=1).do(lambda c: c.actor("T", "n").add(5))
        assert raised.value.applied == "unknown"


def test_a_server_that_is_gone_after_a_lost_answer_leaves_the_outcome_unknown(connect: Connect) -> None:
    def go(_: Asked) -> object:
        threading.Thread(target=server.stop_listening).start()
        return DROP

    with FakeServer([go]) as server:
        with pytest.raises(ActorUnavailable) as raised:
            connect(server, retries=20).do(lambda c: c.actor("T", "n").add(5))
        assert raised.value.applied == "unknown"


def test_a_server_that_can_not_be_reached_has_applied_nothing(connect: Connect) -> None:
    with FakeServer([value(1)]) as server:
        url = server.url
    driver = connect(url, idempotent=False, retries=2)
    with pytest.raises(ActorUnavailable, match="can't be reached") as raised:
        driver.do(lambda c: c.actor("T", "n").add(5))
    assert raised.value.applied == "no"
    assert raised.value.retryable


def test_a_name_that_has_no_address_can_not_be_reached(connect: Connect) -> None:
    driver = connect("http://no-such-host.invalid:1", retries=0)
    with pytest.raises(ActorUnavailable, match="can't be reached") as raised:
        driver.do(lambda c: c.actor("T", "n").add(5))
    assert raised.value.applied == "no"


def test_a_connection_that_the_server_closed_while_it_was_idle_costs_nothing(connect: Connect) -> None:
    with FakeServer([value(1)]) as server:
        driver = connect(server, idempotent=False)
        for _ in range(3):
            assert driver.do(lambda c: c.actor("T", "n").add(5)) == 1
            server.hang_up()
            driver.idle()
        assert server.connections == 3


# -- time


def logical(timeout: float = 10.0, **options: Any) -> LogicalCall:
    options = {"repeatable": True, "retries": 8, **options}
    return LogicalCall("POST", "/actors/T/n/m", {}, b"", read_result, timeout=timeout, **options)


def test_the_server_is_told_how_long_the_call_may_take(connect: Connect) -> None:
    with FakeServer([UNKNOWN, value(1), value(1)]) as server:
        driver = connect(server, timeout=20)
        driver.do(lambda c: c.actor("T", "n").add(5))
        driver.do(lambda c: c.actor("T", "n", timeout=2.5).add(5))
        first, second, third = (float(asked.headers["actord-timeout"]) for asked in server.asked)
        assert first == 20
        assert 0 < second < 20
        assert third == 2.5


def test_a_wait_is_at_least_what_the_server_asked_for() -> None:
    call = logical()
    call.attempt()
    call._again_or_raise(ActorUnavailable(retry_after=3))
    assert call.wait >= 3


def test_waits_grow_up_to_a_limit_and_are_not_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_calls, "BACKOFF_SECONDS", 0.1)
    monkeypatch.setattr(client_calls, "BACKOFF_SECONDS_MAX", 2.0)
    waits: list[list[float]] = []
    for _ in range(20):
        call = logical(timeout=1000, retries=30)
        waits.append([])
        for _ in range(30):
            call.attempt()
            call.failed(NoAnswer("lost", sent=True))
            waits[-1].append(call.wait)
    for number, together in enumerate(zip(*waits, strict=True)):
        limit = min(2.0, 0.1 * 2**number)
        assert all(limit / 2 <= wait <= limit for wait in together)
        assert len(set(together)) > 1


def test_no_wait_goes_beyond_the_deadline() -> None:
    call = logical(timeout=5)
    call.attempt()
    with pytest.raises(ActorUnavailable) as raised:
        call._again_or_raise(ActorUnavailable(retry_after=6))
    assert raised.value.retry_after == 6


def test_a_server_that_says_nothing_is_given_up_at_the_deadline(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("client_urllib3", "client_aiohttp"):
        monkeypatch.setattr(f"actord.{module}.GRACE_SECONDS", 0.05)
    over = threading.Event()
    with FakeServer([lambda _: over.wait(30) and DROP]) as server:
        with pytest.raises(ActorUnavailable, match="none within") as raised:
            connect(server, timeout=0.2).do(lambda c: c.actor("T", "n").add(5))
        assert raised.value.applied == "unknown"
        assert len(server.asked) == 1
        over.set()


# -- connections


def test_calls_one_after_the_other_share_a_connection(connect: Connect) -> None:
    with FakeServer([value(1)]) as server:
        driver = connect(server)
        for name in range(20):
            driver.do(lambda c, name=name: c.actor("T", str(name)).add(5))
        driver.do(lambda c: c.fetch("/"))
        assert server.connections == 1


def test_threads_share_the_connections_of_a_client() -> None:
    together = threading.Barrier(4)
    steps = [lambda _: together.wait(30) is None or value(1)] * 4 + [value(1)]
    with FakeServer(steps) as server, Client(server.url, connections=4) as client, ThreadPoolExecutor(16) as threads:
        calls = [threads.submit(client.actor("T", "n").add, 5) for _ in range(64)]
        assert [call.result(30) for call in calls] == [1] * 64
        assert server.busiest == server.connections == 4
        assert len(set(keys(server))) == 64


def test_a_call_that_gets_no_connection_in_time_has_applied_nothing() -> None:
    over, begun = threading.Event(), threading.Event()

    def hold(_: Asked) -> Reply:
        begun.set()
        over.wait(30)
        return value(1)

    with FakeServer([hold]) as server, Client(server.url, connections=1) as client, ThreadPoolExecutor(1) as threads:
        first = threads.submit(client.actor("T", "n").add, 5)
        assert begun.wait(30)
        with pytest.raises(ActorUnavailable, match="in use") as raised:
            client.actor("T", "n", timeout=0.05).add(5)
        assert raised.value.applied == "no"
        over.set()
        assert first.result(30) == 1


def test_a_unix_socket_is_an_address(connect: Connect, tmp_path: Path) -> None:
    with FakeServer([DROP, value(7)], path=tmp_path / "sock") as server:
        driver = connect(server)
        assert driver.do(lambda c: c.actor("T", "n").add(5)) == 7
        assert driver.do(lambda c: c.actor("T", "n").add(5)) == 7
        assert server.connections == 2
    driver = connect(f"unix:{tmp_path}/none", retries=0)
    with pytest.raises(ActorUnavailable, match="No such file") as raised:
        driver.do(lambda c: c.actor("T", "n").add(5))
    assert raised.value.applied == "no"


def test_a_closed_client_is_closed(connect: Connect) -> None:
    with FakeServer([value(1)]) as server:
        driver = connect(server)
        driver.do(lambda c: c.actor("T", "n").add(5))
        driver.do(lambda c: c.close())
        with pytest.raises(RuntimeError, match="closed"):
            driver.do(lambda c: c.actor("T", "n").add(5))


# -- what is sent


@pytest.mark.parametrize("name", ["..", ".", "a/b c", "%2F", "ä€😀", "+", "?x#y", ":"])
def test_a_name_travels_as_it_is(connect: Connect, name: str) -> None:
    from actord.server.routes import route

    with FakeServer([value(1)]) as server:
        connect(server).do(lambda c: c.actor("T", name).add(5))
        assert route("POST", server.asked[0].target)[1:4] == ("T", name, "add")


def test_arguments_travel_by_position_and_by_name(connect: Connect) -> None:
    with FakeServer([value(None)]) as server:
        connect(server).do(lambda c: c.actor("T", "n").m(1, (2,), target=3, method=b"4", self=5))
        asked = server.asked[0]
        assert codec.decode(asked.body) == [[1, (2,)], {"target": 3, "method": b"4", "self": 5}]
        assert asked.headers["content-type"] == "application/vnd.actord.call"


def test_an_argument_that_no_codec_carries_is_named_before_anything_is_sent(connect: Connect) -> None:
    with FakeServer([value(None)]) as server:
        with pytest.raises(ActordError, match=r"\$\[0\]\[1\]"):
            connect(server).do(lambda c: c.actor("T", "n").m(1, object()))
        assert server.asked == []


def test_headers_of_the_client_travel_with_every_request(connect: Connect) -> None:
    with FakeServer([value(1)]) as server:
        driver = connect(server, headers={"Authorization": "Bearer x"})
        driver.do(lambda c: c.actor("T", "n").add(5))
        driver.do(lambda c: c.actor("T", "n").fetch("/x"))
        driver.do(lambda c: c.fetch("/y"))
        assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer x"] * 3


def test_a_key_of_ones_own_is_sent_also_where_calls_carry_none(connect: Connect) -> None:
    with FakeServer([DROP, value(1)]) as server:
        driver = connect(server, idempotent=False)
        assert driver.do(lambda c: c.actor("T", "n", idempotency_key="order 7").add(5)) == 1
        assert keys(server) == ["order 7"] * 2


@pytest.mark.parametrize("key", ["k", "a b", ' a\\"', "a ", '"', '"k"', "a" * 255, "'\\x"])
def test_a_key_of_ones_own_arrives_as_it_is(connect: Connect, key: str) -> None:
    from actord.server.heads import HTTP11, HeadReader
    from actord.settings import Http

    with FakeServer([value(1)]) as server:
        connect(server).do(lambda c: c.actor("T", "n").with_key(key).add(5))
        sent = server.asked[0].headers["idempotency-key"]
        block = f"\r\nHost: a\r\nIdempotency-Key: {sent}\r\n".encode()
        assert HeadReader(Http()).read(HTTP11, block).idempotency_key == key


@pytest.mark.parametrize("key", ["", "ä", "a\n", "a" * 256])
def test_an_illegal_key_is_refused(connect: Connect, key: str) -> None:
    with pytest.raises(BadRequest):
        connect("http://127.0.0.1:1").client.actor("T", "n", idempotency_key=key)


@pytest.mark.parametrize(("type_", "name"), [("T", ""), ("T", "a" * 513), ("T", "a\0"), ("T", "\ud800"), ("", "n")])
def test_an_illegal_name_is_refused(connect: Connect, type_: str, name: str) -> None:
    with pytest.raises(BadRequest):
        connect("http://127.0.0.1:1").client.actor(type_, name)


@pytest.mark.parametrize("verb", ["POST", "PATCH"])
def test_a_request_whose_verb_can_not_be_repeated_is_not(connect: Connect, verb: str) -> None:
    with FakeServer([DROP, Reply(200, b"x")]) as server:
        with pytest.raises(ActorUnavailable) as raised:
            connect(server).do(lambda c: c.fetch(Request(verb, "/x", body=b"once")))
        assert raised.value.applied == "unknown"
        assert [asked.body for asked in server.asked] == [b"once"]


@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE"])
def test_a_request_whose_verb_can_be_repeated_is(connect: Connect, verb: str) -> None:
    with FakeServer([DROP, DROP, Reply(200, b"x")]) as server:
        response = connect(server).do(lambda c: c.actor("T", "n").fetch(Request(verb, "/x?a=%20b")))
        assert (response.status, response.body) == (200, b"x")
        assert [(asked.method, asked.target) for asked in server.asked[-2:]] == [
            (verb, "/actors/T/n/fetch/x?a=%20b"),
        ] * 2


# -- what comes back


def test_an_answer_of_somebody_else_is_no_result(connect: Connect) -> None:
    with FakeServer([Reply(404, b"<h1>nginx", {"Content-Type": "text/html"})]) as server:
        with pytest.raises(ActordError, match=r"status 404 .*nginx") as raised:
            connect(server).do(lambda c: c.actor("T", "n").add(5))
        assert raised.value.applied == "unknown"


def test_a_page_with_status_200_is_no_result(connect: Connect) -> None:
    with FakeServer([Reply(200, b"<h1>Log in", {"Content-Type": "text/html"})]) as server:
        with pytest.raises(ActordError, match="Log in") as raised:
            connect(server).do(lambda c: c.actor("T", "n").add(5))
        assert raised.value.applied == "unknown"


def test_an_answer_that_can_not_be_read_was_applied(connect: Connect) -> None:
    with FakeServer([Reply(200, b"\xc1", {"Content-Type": "application/msgpack"})]) as server:
        with pytest.raises(ActordError, match="can't be read") as raised:
            connect(server).do(lambda c: c.actor("T", "n").add(5))
        assert raised.value.applied == "yes"


def test_a_redirection_is_an_answer(connect: Connect) -> None:
    with FakeServer([Reply(307, b"", {"Location": "http://127.0.0.1:1/", "X-Name": "a"})]) as server:
        response = connect(server).do(lambda c: c.fetch("/x"))
        assert isinstance(response, Response)
        assert (response.status, response.headers["location"]) == (307, "http://127.0.0.1:1/")
        assert len(server.asked) == 1


def test_a_problem_of_the_users_own_is_a_response(connect: Connect) -> None:
    own = Reply(403, b'{"type": "https://example.org/p"}', {"Content-Type": "application/problem+json"})
    with FakeServer([own]) as server:
        assert connect(server).do(lambda c: c.actor("T", "n").fetch("/x")).status == 403
