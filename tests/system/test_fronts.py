"""A server with two fronts is one server: which front has a connection makes no difference but to the load."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Server, connect, read_replies, until
from tests.support.websockets import Socket


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"server.workers": 1, "server.fronts": 2, "http.connections": 8}  # each
    with Server("rooms.py", tmp_path_factory.mktemp("data"), settings=settings) as made:
        yield made


@contextmanager
def only(server: Server, pid: int) -> Iterator[None]:
    """Meanwhile this front alone takes connections."""
    others = [child.pid for child in server.children("front") if child.pid != pid]
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


def ask(sock: socket.socket, method: str, key: str = "", body: bytes = b"") -> Any:
    kind = "Content-Type: application/json\r\n" if body else ""
    key = f"Idempotency-Key: {key}\r\n" if key else ""
    head = f"POST /actors/Room/r/{method} HTTP/1.1\r\nHost: a\r\n{kind}{key}Content-Length: {len(body)}\r\n\r\n"
    sock.sendall(head.encode() + body)
    [reply] = read_replies(sock, 1)
    return reply


def fronts(server: Server) -> list[int]:
    found = [child.pid for child in server.children("front")]
    assert len(found) == 2
    return found


def test_a_front_that_does_nothing_keeps_no_connection_waiting(server: Server) -> None:
    """Both take from one queue, so that a front that is busy, or gone, delays nobody who comes now."""
    for pid in fronts(server):
        with only(server, pid):
            for _ in range(4):
                with connect(server.port) as sock:
                    assert ask(sock, "count").status == 200


def test_a_room_is_one_over_both_fronts(server: Server) -> None:
    sockets = []
    for number, pid in enumerate(fronts(server)):
        with only(server, pid):
            sockets.append(Socket(("127.0.0.1", server.port), f"/actors/Room/r?user=user{number}"))
    for number, sender in enumerate(sockets):
        sender.text("hello")
        assert {client.message() for client in sockets} == {f"{number + 1} user{number} hello"}
    for client in sockets:
        client.sock.close()
    until(lambda: server.result("Room", "r", "count") == 0, "the room to know that all have left")


def test_a_key_is_one_call_over_both_fronts(server: Server) -> None:
    replies = []
    for pid in fronts(server):
        with only(server, pid), connect(server.port) as sock:
            replies.append(ask(sock, "say", key="k1", body=b'["hello"]'))
    assert ["idempotent-replayed" in reply.headers for reply in replies] == [False, True]
    assert [reply.json() for reply in replies] == [0, 0]


def test_limits_of_connections_are_those_of_each_front(server: Server) -> None:
    for pid in fronts(server):
        with only(server, pid):
            held = [connect(server.port) for _ in range(8)]
            for sock in held:
                assert ask(sock, "count").status == 200
            with connect(server.port) as sock:
                assert read_replies(sock, 1)[0].status == 503
            for sock in held:
                sock.close()


def test_a_front_that_is_killed_costs_its_own_connections_alone(server: Server) -> None:
    first, second = fronts(server)
    with only(server, first):
        lost = connect(server.port)
        assert ask(lost, "count").status == 200
    with only(server, second):
        kept = connect(server.port)
        assert ask(kept, "count").status == 200
    server.kill_child(first)
    assert lost.recv(1) == b""
    for _ in range(8):
        with connect(server.port) as sock:
            assert ask(sock, "count").status == 200
    assert ask(kept, "count").status == 200
    lost.close()
    kept.close()
    until(lambda: len(server.children("front")) == 2, "a new front")
    server.wait_ready()


def test_a_unix_socket_is_shared_too(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    settings = {"server.workers": 1, "server.fronts": 2, "server.uds": str(path), "server.host": "127.0.0.1"}
    with Server("rooms.py", tmp_path / "data", settings=settings) as server:
        for pid in fronts(server):
            with only(server, pid), socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(20)
                sock.connect(str(path))
                assert ask(sock, "count").status == 200
        assert server.stop() == 0
        assert server.unexpected() == []
