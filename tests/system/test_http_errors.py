"""The table of errors over real HTTP: status, name, problem document, and the truth about ``applied``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.fifo import Fifo
from tests.support.server import Reply, Server, connect, read_replies, until

JSON = {"Content-Type": "application/json"}
MEMBERS = {"type", "title", "status", "detail", "name", "retryable", "applied"}
MAILBOX, BODY = 5, 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"server.workers": 1, "runtime.mailbox": MAILBOX, "http.body_bytes": BODY}
    with Server("probe.py", tmp_path_factory.mktemp("errors") / "data", settings=settings) as server:
        yield server


def problem(reply: Reply, status: int, name: str) -> dict:
    """Check what every problem document has, and return it."""
    document = reply.json()
    assert (reply.status, document["name"]) == (status, name), reply
    assert reply.headers["content-type"] == "application/problem+json"
    assert document.keys() >= MEMBERS
    assert document["status"] == status
    assert document["type"] == f"urn:actord:error:{name}"
    assert document["title"]
    assert document["detail"]
    assert document["applied"] == "no"
    return document


@pytest.mark.parametrize(
    ("body", "name", "words"),
    [
        (b"{", "BadRequest", "JSON"),
        (b'{"count": 1', "BadRequest", "JSON"),
        (b"nonsense", "BadRequest", "JSON"),
        (b"\xff\xfe", "BadRequest", "JSON"),
        (b'"text"', "BadRequest", ""),
        (b"7", "BadRequest", ""),
        (b"", "ActorArgumentError", "count"),
        (b"{}", "ActorArgumentError", "count"),
        (b"[]", "ActorArgumentError", "count"),
        (b'{"count": "1"}', "ActorArgumentError", "count"),
        (b'{"count": 1.5}', "ActorArgumentError", "count"),
        (b'{"count": null}', "ActorArgumentError", "count"),
        (b'{"count": 1, "kind": "c"}', "ActorArgumentError", "kind"),
        (b'{"count": 1, "point": {"x": "no"}}', "ActorArgumentError", "point"),
        (b'{"count": 1, "surplus": 2}', "ActorArgumentError", "surplus"),
        (b'[1, "a", null, 4]', "ActorArgumentError", "3"),
    ],
)
def test_arguments_that_do_not_fit_name_the_parameter(server, body, name, words):
    reply = server.request("POST", "/actors/Probe/a/typed", body, JSON)
    assert words in problem(reply, 400, name)["detail"]


def test_arguments_by_name_by_position_and_by_default(server):
    assert server.result("Probe", "a", "typed", 1) == [1, "a", None]
    assert server.result("Probe", "a", "typed", 1, "b", {"x": 2}) == [1, "b", [2, 0]]
    assert server.result("Probe", "a", "typed", count=1, point={"x": 2, "y": 3}) == [1, "a", [2, 3]]


@pytest.mark.parametrize(
    ("path", "status", "name"),
    [
        ("/actors/Nobody/a/add", 404, "ActorUnknownTypeError"),
        ("/actors/probe/a/add", 404, "ActorUnknownTypeError"),
        ("/actors/Probe/a/nothing", 404, "ActorUnknownMethodError"),
        ("/actors/Probe/a/_secret", 403, "ActorPrivateMethodError"),
        ("/actors/Probe/a/__init__", 403, "ActorPrivateMethodError"),
        ("/actors/Probe/a/__class__", 403, "ActorPrivateMethodError"),
        ("/actors/Probe/a/on_activate", 403, "ActorPrivateMethodError"),
        ("/actors/Probe/a/on_anything", 403, "ActorPrivateMethodError"),
        ("/actors/Probe/a/alarm", 403, "ActorPrivateMethodError"),
        ("/actors/Probe/a/web_socket", 403, "ActorPrivateMethodError"),
        ("/actors/Probe/a/web_socket_message", 403, "ActorPrivateMethodError"),
        ("/actors/Narrow/a/closed", 403, "ActorPrivateMethodError"),
        ("/-/nothing", 404, "NotFound"),
    ],
)
def test_what_is_not_there_or_not_for_callers(server, path, status, name):
    method = "GET" if path.startswith("/-/") else "POST"
    assert not problem(server.request(method, path), status, name)["retryable"]


def test_an_explicit_list_of_methods_is_all_there_is(server):
    assert server.result("Narrow", "a", "open") == "open"


def test_an_exception_of_a_method_commits_nothing(server):
    server.result("Probe", "e", "put", "k", "before")
    document = problem(server.call("Probe", "e", "put_and_fail", "k", "after"), 500, "ActorMethodError")
    assert document["error_type"] == "RuntimeError"
    assert "after the write" in document["detail"]
    assert server.result("Probe", "e", "get", "k") == "before"


@pytest.mark.parametrize("status", [400, 402, 409, 418, 451, 503, 599])
def test_an_actor_error_crosses_whole(server, status):
    document = problem(server.call("Probe", f"refuses-{status}", "refuse", status), status, "ActorError")
    assert document["code"] == "insufficient"
    assert document["detail"] == "insufficient"
    assert document["data"] == {"balance": 3, "of": ["a", None]}
    # By its name, since what other calls had to say may still be on its way here.
    assert [line for line in server.unexpected() if f"refuses-{status}" in str(line)] == [], "a refusal is no fault"


def test_results_and_values_that_can_not_be_carried(server):
    problem(server.call("Probe", "e", "unsendable"), 500, "ActorMethodError")
    document = problem(server.call("Probe", "e", "store_unsendable"), 400, "CodecError")
    assert "$.items[1]" in document["detail"]


def test_an_instance_that_does_not_start(server):
    for _ in range(2):
        assert "no start" in problem(server.call("BadStart", "a", "anything"), 500, "ActorMethodError")["detail"]


def test_a_method_over_its_time_is_504_and_leaves_nothing(server):
    document = problem(server.call("Probe", "t", "too_long"), 504, "ActorMethodTimeoutError")
    assert "0.2" in document["detail"]
    assert server.result("Probe", "t", "get", "too_long") is None


def test_a_method_that_swallows_its_cancellation_is_fenced_off(serve, fifo, tmp_path):
    notes = tmp_path / "notes"
    server = serve("probe.py", settings={"server.workers": 1}, environment={"ACTORD_TEST_NOTES": str(notes)})
    problem(server.call("Probe", "t", "deaf", fifo.path), 504, "ActorMethodTimeoutError")
    fifo.wait()
    assert "refused TurnEnded" in notes.read_text()
    assert server.result("Probe", "t", "get", "late") is None
    assert server.result("Probe", "t", "add", 1) == 1


def test_a_deadline_of_the_client_counts_queueing_too(server, fifo):
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.call, "Probe", "q", "hold", fifo.path, 1.5)
        fifo.wait()
        reply = server.request("POST", "/actors/Probe/q/add", b"[1]", JSON | {"Actord-Timeout": "0.3"})
        document = problem(reply, 503, "ActorUnavailable")
        assert document["retryable"]
        assert int(reply.headers["retry-after"]) >= 1
        assert running.result().status == 200
    assert server.result("Probe", "q", "get", "sum") is None


def test_a_full_mailbox_refuses_at_once(server, fifo, tmp_path):
    go = Fifo(tmp_path / "go")
    with ThreadPoolExecutor(4 * MAILBOX) as pool:
        running = pool.submit(server.call, "Probe", "full", "wait_for", fifo.path, go.path)
        fifo.wait()
        waiting = [pool.submit(server.call, "Probe", "full", "add", 1) for _ in range(3 * MAILBOX)]
        until(lambda: sum(call.done() for call in waiting) >= 2 * MAILBOX, "the refusals")
        refused = [call for call in waiting if call.done()]
        for call in refused:
            document = problem(call.result(), 503, "ActorOverloaded")
            assert document["retryable"]
            assert int(call.result().headers["retry-after"]) >= 1
        assert server.result("Probe", "another", "add", 1) == 1, "other actors do not notice"
        with open(go.path, "w") as end:
            end.write("x")
        go.close()
        assert running.result().status == 200
        assert sorted(c.result().json() for c in waiting if c not in refused) == list(range(1, MAILBOX + 1))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "PATCH"])
def test_a_call_is_a_post(server, method):
    reply = server.request(method, "/actors/Probe/a/add")
    assert reply.status == 405
    assert reply.headers["allow"] == "POST"
    if method == "HEAD":
        assert reply.body == b""
    else:
        problem(reply, 405, "MethodNotAllowed")


def test_head_is_a_get_without_its_body(server):
    get, head = (server.request(method, "/-/health/live") for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_a_body_of_another_kind_is_415(server, headers):
    problem(server.request("POST", "/actors/Probe/m/add", b"[1]", headers), 415, "UnsupportedMediaType")
    assert server.result("Probe", "m", "get", "sum") is None


def test_a_body_over_the_limit_is_413_and_one_below_is_not(server):
    for size, status in ((BODY, 200), (BODY + 1, 413)):
        with connect(server.port) as connection:
            head = b"POST /actors/Probe/b/echo HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
            text = json.dumps(["x" * (size - 4)]).encode()
            assert len(text) == size
            connection.sendall(b"%bContent-Length: %d\r\n\r\n" % (head, size))
            if status == 200:
                connection.sendall(text)
            (reply,) = read_replies(connection, 1)
        assert reply.status == status
    problem(reply, 413, "PayloadTooLarge")


def test_numbers_and_texts_come_back_as_they_went(server):
    for value in [0, -1, 2**53, 10**30, 1.5, 1e300, "ünï\U0001f40d\u0000", [], {}, None, True, [[{"a": [1]}]]]:
        assert server.result("Probe", "v", "echo", value) == value


def test_timing_is_told_when_asked_for(server):
    reply = server.request("POST", "/actors/Probe/a/add?timing", b"[1]", JSON)
    parts = [part.split(";dur=") for part in reply.headers["server-timing"].split(", ")]
    assert [name for name, _ in parts] == ["queue", "run", "commit"]
    assert all(float(duration) >= 0 for _, duration in parts)
    assert "server-timing" not in server.call("Probe", "a", "add", 1).headers
