"""An ASGI application served by a real server: its lifespan, streams both ways, and clients that go."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

from tests.support.server import PATIENCE_SECONDS, Server, connect, read_replies, resident_bytes, until
from tests.system.programs.asgi import PIECE

SETTINGS = {"server.workers": 2, "storage.shards": 2, "http.write_stall": 1}
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("asgi")
    with Server(
        "asgi.py", folder / "data", settings=SETTINGS, environment={"LIFESPAN": str(folder / "lifespan")}
    ) as running:
        yield running


def noted(server: Server, name: str, text: str) -> None:
    until(lambda: server.result("Note", name, "read") == text, f"{text!r} of {name}")


def test_each_worker_starts_the_application_before_it_serves_and_ends_it_in_the_drain(serve, tmp_path):
    lifespan = tmp_path / "lifespan"
    server = serve("asgi.py", settings=SETTINGS, environment={"LIFESPAN": str(lifespan)})
    workers = {str(child.pid) for child in server.children("worker")}
    assert sorted(lifespan.read_text().split()) == sorted(["up", "up", *workers])
    assert server.request("GET", "/x").body == b"GET /x {'greeting': None} 0"
    assert server.stop() == 0
    assert lifespan.read_text().count("down") == 2
    assert server.unexpected() == []
    server.start()
    server.result("Note", "greeting", "write", "hello")
    server.stop()
    server.start()
    assert server.request("GET", "/x").body == b"GET /x {'greeting': 'hello'} 0", "a startup may call actors"


def test_a_startup_that_fails_is_a_refusal_to_start_that_says_why(tmp_path):
    environment = {"LIFESPAN": str(tmp_path / "lifespan"), "FAIL": "1"}
    server = Server("asgi.py", tmp_path / "data", settings=SETTINGS, environment=environment)
    try:
        server.start(wait=False)
        assert server.wait() == 78
        assert "The startup of `app` failed: the database is not there" in server.text()
    finally:
        server.close()


def test_a_module_with_both_entries_is_refused_with_what_to_do(tmp_path):
    program = tmp_path / "both.py"
    program.write_text("async def fetch(request, env): ...\nasync def app(scope, receive, send): ...\n")
    server = Server(program, tmp_path / "data", settings=SETTINGS)
    try:
        server.start(wait=False)
        assert server.wait() == 78
        assert "has both `fetch` and `app`" in server.text()
    finally:
        server.close()


def test_requests_and_responses_arrive_whole(server):
    reply = server.request("POST", "/a%20b?x", b"y" * 100_000)
    assert reply.body == b"POST /a b {'greeting': None} 100000"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.headers.get_all("set-cookie") == ["a=1", "b=2"]
    connection.close()
    assert server.request("GET", "/health/live").body.startswith(b"GET /health/live"), "a route of the user's"
    assert server.request("GET", "/-/health/live").json() == {"status": "live"}
    assert server.request("GET", "/-/other").status == 404


def test_a_body_comes_in_parts_and_a_client_that_goes_in_the_middle_is_a_disconnect(server):
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(server.port) as sock:
        sock.sendall(head % b"/parts" + b"5\r\nhello\r\n")
        noted(server, "parts", "hello True")
        sock.sendall(b"2\r\nyo\r\n0\r\n\r\n")
        assert read_replies(sock, 1)[0].body == b"done"
        sock.sendall(head % b"/parts" + b"5\r\nagain\r\n")
        noted(server, "parts", "again True")
    noted(server, "parts", "http.disconnect")


def test_what_follows_the_answer_still_runs(server):
    assert server.request("GET", "/late").body == b"ok"
    noted(server, "late", "written after the answer")


def test_a_hundred_megabytes_pass_through_little_memory(server):
    server.request("GET", "/big?10")
    before = {child.pid: resident_bytes(child.pid) for child in server.children()}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    connection.request("GET", "/big?1600")
    response = connection.getresponse()
    total = 0
    while data := response.read(MIB):
        total += len(data)
    connection.close()
    assert total == 1600 * len(PIECE)
    assert max(resident_bytes(pid) - size for pid, size in before.items()) < 24 * MIB


def test_a_client_that_goes_is_a_disconnect_and_one_that_stands_still_an_error_of_send(server):
    with connect(server.port) as sock:
        sock.sendall(b"GET /gone HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        while b"first" not in answer:
            answer += sock.recv(MIB)
    noted(server, "gone", "http.disconnect")
    with connect(server.port) as sock:
        sock.sendall(b"GET /big?1000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        noted(server, "big", "ClientGone")
