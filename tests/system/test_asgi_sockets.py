"""WebSockets of a Starlette application on a real server: how they begin, how they end, and what they may not do."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.support.server import PROGRAMS, Server, until
from tests.support.websockets import BINARY, CLOSE, CONT, TEXT, Socket

SETTINGS = {"server.workers": 2, "storage.shards": 2, "server.restart_delay_max": 0.2, "sockets.queue_wait": 0.1}
MIB = 1024 * 1024
PROJECT = """
name = "both"
main = "rooms.py"

[[programs]]
main = "asgi_sockets.py"
mount = "/live"
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests that end nothing."""
    with Server("asgi_sockets.py", tmp_path_factory.mktemp("asgi") / "data", settings=SETTINGS) as server:
        yield server


def at(server: Server, path: str, **options: Any) -> Socket:
    return Socket(("127.0.0.1", server.port), path, **options)


def noted(server: Server, name: str, line: str) -> None:
    until(lambda: line in server.result("Note", name, "lines"), f"{line!r} of {name}")


def test_text_bytes_and_the_largest_message_come_back_as_they_were(shared):
    with at(shared, "/echo") as client:
        assert client.headers["x-from"] == "/echo"
        assert "sec-websocket-protocol" not in client.headers
        client.text("grüße")
        client.frame(BINARY, b"\x00\xff")
        client.text("")
        client.frame(TEXT, b"in ", fin=False)
        client.frame(CONT, b"parts")
        assert [client.message() for _ in range(4)] == ["grüße", b"\x00\xff", "", "in parts"]
        client.frame(BINARY, bytes(MIB))
        assert client.message() == bytes(MIB)
        for number in range(200):
            client.text(str(number))
        assert [client.message() for _ in range(200)] == [str(number) for number in range(200)]
        client.frame(BINARY, bytes(MIB + 1))
        assert client.closed()[0] == 1009
    until(lambda: "1009" in str(shared.result("Note", "echo", "lines")), "the application to hear of it")


def test_the_application_picks_a_subprotocol_and_compression_is_the_server_s(shared):
    with connect(f"ws://127.0.0.1:{shared.port}/echo", subprotocols=["chat.v1", "chat.v2"]) as client:  # type: ignore[list-item]
        assert client.subprotocol == "chat.v2"
        client.send("compressed " * 500)
        assert client.recv() == "compressed " * 500


def test_codes_and_reasons_travel_both_ways(shared):
    with at(shared, "/echo") as client:
        client.close(4001, "bye")
        assert client.closed() == (4001, "bye")
    noted(shared, "echo", "4001 bye")
    with at(shared, "/echo") as client:
        client.frame(CLOSE)
        assert client.closed()[0] == 1005
    noted(shared, "echo", "1005 ")
    with at(shared, "/echo") as client:
        client.text("close 4002 enough")
        assert client.closed() == (4002, "enough")
        client.close(4002, "enough")
        assert client.at_end()
    noted(shared, "echo", "4002 enough")
    with at(shared, "/echo") as client:
        client.text("hello")
        client.message()
    noted(shared, "echo", "1006 ")  # it was cut off


def test_what_is_refused_is_an_http_answer(shared):
    with at(shared, "/refuse") as client:
        assert (client.status, client.body) == (403, b"")
    with at(shared, "/deny") as client:
        assert (client.status, client.body, client.headers["x-a"]) == (401, b"who are you?", "1")
    with at(shared, "/no/such/route") as client:
        assert client.status == 403  # by Starlette, which closes it
    with at(shared, "/actors/Note/echo") as client:
        assert client.closed() == (1011, "actor has no web_socket handler")


def test_an_application_that_raises_closes_with_1011_and_logs_it(shared):
    with at(shared, "/fail") as client:
        assert client.closed() == (1011, "the application failed")
    assert shared.wait_log("the application failed, and its socket is closed")


def test_actors_are_behind_it_and_an_answer_means_that_it_is_stored(shared):
    with at(shared, "/keep/n") as one, at(shared, "/keep/n") as two:
        assert int(one.message()) != int(two.message()), "one worker and the other"
        for number in range(1, 21):
            client = (one, two)[number % 2]
            client.text(str(number))
            assert client.message() == str(number)
    assert shared.result("Note", "n", "lines") == [str(number) for number in range(1, 21)]


def test_a_client_that_does_not_read_is_closed_with_1013_and_the_application_s_send_fails(shared):
    before = len(shared.result("Note", "flood", "lines"))
    with at(shared, "/flood", receive_buffer=4096) as client:
        client.message()
        until(lambda: len(shared.result("Note", "flood", "lines")) > before, "the application to give up")
        assert client.closed()[0] == 1013


def test_more_than_may_wait_closes_with_1013_and_an_application_that_receives_nothing_hears_of_it(shared):
    with at(shared, "/deaf") as client:
        for _ in range(600):
            client.text("x")
        assert client.closed() == (1013, "too many messages wait for the actor")
    noted(shared, "deaf", "gone")
    with at(shared, "/deaf") as client:
        for _ in range(250):
            client.text("x")
        client.message()
    until(lambda: len(shared.result("Note", "deaf", "lines")) == 2, "the application to hear that it has left")


def test_sockets_of_a_worker_that_dies_are_closed_with_1012_and_no_other_worker_gets_them(serve):
    server = serve("asgi_sockets.py", settings=SETTINGS)
    with at(server, "/keep/k") as one, at(server, "/keep/k") as two:
        pids = [int(one.message()), int(two.message())]
        one.text("a")
        assert one.message() == "1"
        server.kill_child(pids[0])
        assert one.closed() == (1012, "The worker that served this socket was lost.")
        two.text("b")
        assert two.message() == "2", "the others stay"
    until(lambda: len(server.children("worker")) == 2, "a new worker")
    with at(server, "/keep/k") as one, at(server, "/keep/k") as two:
        assert {int(one.message()), int(two.message())}.isdisjoint(pids[:1])
        one.text("c")
        assert one.message() == "3"
    assert len(server.result("Note", "k opened", "lines")) == 4, "none was opened again"


def test_an_opening_that_had_begun_is_answered_503_and_another_is_made_by_the_next_worker(serve):
    server = serve("asgi_sockets.py", settings=SETTINGS | {"server.workers": 1})
    with at(server, "/keep/k") as one, at(server, "/wait", wait=False) as begun:
        pid = int(one.message())
        noted(server, "wait", "begun")
        os.kill(pid, signal.SIGSTOP)
        with at(server, "/keep/k", wait=False) as late:
            server.kill_child(pid)
            assert one.closed()[0] == 1012
            begun.read_handshake()
            assert begun.status == 503
            assert json.loads(begun.body)["applied"] == "unknown"
            late.read_handshake()
            assert late.status == 101
            assert int(late.message()) != pid


def test_a_server_that_stops_closes_with_1001_and_waits_for_what_the_application_does_then(serve):
    server = serve("asgi_sockets.py", settings=SETTINGS)
    with at(server, "/keep/s") as one, at(server, "/keep/s") as two:
        one.message()
        two.message()
        server.signal(15)
        for client in (one, two):
            assert client.closed() == (1001, "the server is going away")
            client.close(1001)
            assert client.at_end()
        assert server.wait() == 0
    assert server.unexpected() == []
    server.start()
    for other in range(8):
        assert server.result("Note", f"s closed {other}", "lines") == ["1001 the server is going away"] * 2


def test_two_programs_have_their_sockets_below_their_paths(tmp_path: Path, serve: Any) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("rooms.py", "asgi_sockets.py"):
        shutil.copy(PROGRAMS / name, folder)
    (folder / "actord.toml").write_text(PROJECT)
    server = serve(folder, settings=SETTINGS)
    with at(server, "/live/echo") as client:
        assert client.headers["x-from"] == "/live/echo"
        client.text("hello")
        assert client.message() == "hello"
    with at(server, "/chat/r") as stranger:
        assert (stranger.status, stranger.body) == (401, b"who are you?")
    with at(server, "/chat/r?token=secret") as client:  # a `fetch` that leaves the socket to an actor
        client.text("hello")
        assert client.message() == "1 ann hello"
