"""Bodies of requests that are read as they come: as fast as the program reads, and with the limits of whole ones."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.server import PATIENCE_SECONDS, Reply, Server, connect, read_replies, resident_bytes, until

SETTINGS = {
    "server.workers": 2,
    "storage.shards": 2,
    "http.upload_bytes": 200 * 1024 * 1024,
    "http.body_bytes": 500_000,
}
MIB = 1024 * 1024
PIECE = bytes(range(256)) * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server("streams.py", tmp_path_factory.mktemp("uploads") / "data", settings=SETTINGS) as running:
        yield running


def told(server: Server, witness: str, what: str) -> None:
    until(lambda: what in server.result("Witness", witness, "seen"), f"{what} by {witness}")


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: a", *lines, "", ""]).encode()


def received_until(sock: socket.socket, end: bytes) -> bytes:
    got = b""
    while not got.endswith(end):
        more = sock.recv(MIB)
        assert more, got
        got += more
    return got


def reply_to(sock: socket.socket) -> Reply:
    return read_replies(sock, 1)[0]


def test_a_hundred_megabytes_are_read_in_little_memory(server):
    server.request("POST", "/upload", PIECE * 10)
    before = {child.pid: resident_bytes(child.pid) for child in server.children()}
    with connect(server.port) as sock:
        sock.sendall(head("/upload", f"Content-Length: {400 * len(PIECE)}"))
        for _ in range(400):
            sock.sendall(PIECE)
        assert reply_to(sock).body == str(400 * len(PIECE)).encode()
        sock.sendall(head("/", "Content-Length: 0"))
        assert reply_to(sock).body == b"whole", "the connection is kept"
    assert max(resident_bytes(pid) - size for pid, size in before.items()) < 24 * MIB


def test_a_chunked_body_is_read_as_it_comes(server):
    with connect(server.port) as sock:
        sock.sendall(head("/upload?witness=chunked", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n")
        told(server, "chunked", "reads")
        sock.sendall(b"3\r\nabc\r\n0\r\n\r\n" + head("/", "Content-Length: 0"))
        assert [reply.body for reply in read_replies(sock, 2)] == [b"8", b"whole"]
        sock.sendall(head("/upload", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n")
        assert reply_to(sock).body == b"5"


def test_the_program_answers_while_it_reads(server):
    with connect(server.port) as sock:
        sock.sendall(head("/echo", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n")
        received_until(sock, b"hello\r\n")
        sock.sendall(b"3\r\nabc\r\n0\r\n\r\n")
        assert received_until(sock, b"0\r\n\r\n") == b"3\r\nabc\r\n0\r\n\r\n"


def test_continue_is_said_when_the_program_begins_to_read(server):
    with connect(server.port) as sock:
        sock.sendall(head("/upload", "Content-Length: 5", "Expect: 100-continue"))
        assert received_until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert reply_to(sock).body == b"5"
    with connect(server.port) as sock:
        sock.sendall(head("/upload/no", "Content-Length: 5", "Expect: 100-continue"))
        refused = reply_to(sock)
        assert (refused.status, refused.headers["connection"]) == (403, "close")
        assert sock.recv(1) == b""


def test_an_answer_before_the_body_has_come_ends_the_connection(server):
    with connect(server.port) as sock:
        sock.sendall(head("/upload/no", "Content-Length: 100000") + b"x" * 50_000)
        refused = reply_to(sock)
        assert (refused.status, refused.headers["connection"]) == (403, "close")
        assert sock.recv(1) == b""


def test_a_client_that_goes_or_stops_in_the_middle_takes_its_request_back(server):
    for how in ("close", "half"):
        with connect(server.port) as sock:
            sock.sendall(head(f"/upload?witness={how}", "Content-Length: 100000") + b"x" * 50_000)
            told(server, how, "reads")
            if how == "half":
                sock.shutdown(socket.SHUT_WR)
                assert reply_to(sock).status == 400
        told(server, how, "CancelledError")


def test_limits_hold_on_the_way(server):
    with connect(server.port) as sock:
        sock.sendall(head("/upload", f"Content-Length: {201 * MIB}"))
        assert reply_to(sock).status == 413
    with connect(server.port) as sock:  # a call's body is still what comes whole
        sock.sendall(head("/actors/Feed/a/add", "Content-Type: application/json", "Content-Length: 500001"))
        assert reply_to(sock).status == 413
    with connect(server.port) as sock:
        sock.sendall(head("/upload", "Transfer-Encoding: chunked") + b"%x\r\n" % (201 * MIB))
        assert reply_to(sock).status == 413
    with connect(server.port) as sock:
        sock.sendall(head("/upload?witness=bad", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n")
        told(server, "bad", "reads")
        sock.sendall(b"no size\r\n")
        assert reply_to(sock).status == 400
    told(server, "bad", "CancelledError")
    assert server.request("POST", "/upload/whole", b"x" * 400_000).body == b"400000"
    assert server.request("POST", "/upload/whole", b"x" * 600_000).status == 413


def test_a_reader_that_waits_holds_its_client_back(server):
    with connect(server.port) as sock:
        sock.settimeout(0.2)
        sock.sendall(head("/echo", "Transfer-Encoding: chunked"))
        chunk = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
        sent = 0
        with suppress(TimeoutError):  # what it echoes is not read, so it reads no more
            while sent < 64 * MIB:
                sock.sendall(chunk)
                sent += len(chunk)
        assert sent < 64 * MIB
        assert server.request("POST", "/upload", PIECE).body == str(len(PIECE)).encode()


def test_a_worker_that_dies_while_it_reads_is_told_of(server):
    with connect(server.port) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        sock.sendall(head("/upload?witness=killed", "Content-Length: 100000") + b"x" * 50_000)
        told(server, "killed", "reads")
        for child in server.children("worker"):
            server.kill_child(child.pid)
        lost = reply_to(sock)
        assert (lost.status, lost.json()["applied"]) == (503, "unknown")
    server.wait_ready()
