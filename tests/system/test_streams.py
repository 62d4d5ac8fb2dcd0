"""Streamed answers of a real server: as whole as they say, as slow as their readers, and gone with either end."""

from __future__ import annotations

import http.client
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.server import PATIENCE_SECONDS, Server, connect, read_replies, resident_bytes, until
from tests.system.programs.streams import PIECE

SETTINGS = {"server.workers": 2, "storage.shards": 2, "http.write_stall": 1}
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server("streams.py", tmp_path_factory.mktemp("streams") / "data", settings=SETTINGS) as running:
        yield running


@contextmanager
def request(server: Server, path: str) -> Iterator[http.client.HTTPResponse]:
    """An answer whose body is read by the test."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", path)
        yield connection.getresponse()
    finally:
        connection.close()


def is_cut(response: http.client.HTTPResponse) -> bool:
    """Whether the rest of the answer shows that it is not whole."""
    try:
        while response.read(MIB):
            pass
    except (http.client.IncompleteRead, ConnectionError):
        return True
    return False


def told(server: Server, witness: str, what: str) -> None:
    until(lambda: what in server.result("Witness", witness, "seen"), f"{what} by {witness}")


def raw(server: Server, data: bytes) -> bytes:
    """Everything that is answered until the server closes; ConnectionResetError when it resets."""
    with connect(server.port) as sock:
        sock.sendall(data)
        answer = b""
        while more := sock.recv(MIB):
            answer += more
        return answer


def test_a_stream_arrives_whole_in_order_and_chunked(server):
    reply = server.request("GET", "/big?count=40")
    assert reply.body == PIECE * 40
    assert reply.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in reply.headers
    assert server.request("GET", "/none").body == b""


def test_a_stream_has_the_headers_of_its_response(server):
    reply = server.request("GET", "/text")
    assert reply.body.decode() == "grüß"
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_a_stream_of_known_length_is_not_chunked(server):
    reply = server.request("GET", "/sized")
    assert reply.body == PIECE * 3
    assert reply.headers["content-length"] == str(3 * len(PIECE))
    assert "transfer-encoding" not in reply.headers


@pytest.mark.parametrize("off", [7, -7])
def test_a_stream_of_another_length_than_announced_is_cut(server, off):
    with request(server, f"/sized?off={off}") as response, pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    server.wait_log("streamed answer of the front door broke off")


def test_the_connection_is_kept_after_a_stream_and_answers_stay_in_order(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    for count in (1, 20, 3):
        connection.request("GET", f"/big?count={count}")
        assert connection.getresponse().read() == PIECE * count
    connection.close()
    with connect(server.port) as sock:
        lines = [b"/sized", b"/", b"/sized", b"/actors/Feed/pipelined/fetch/", b"/"]
        sock.sendall(b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % line for line in lines[:3]))
        first = read_replies(sock, 3)
        assert [reply.body for reply in first] == [PIECE * 3, b"whole", PIECE * 3]


def test_streams_may_stand_behind_each_other_in_one_pipeline(server):
    line = b"GET /text HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = raw(server, line * 20 + line.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answer.count(b"6\r\n" + "grüß".encode() + b"\r\n0\r\n\r\n") == 21


def test_an_http_1_0_client_gets_the_body_up_to_the_end_of_the_connection(server):
    head, _, body = raw(server, b"GET /big?count=3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").partition(b"\r\n\r\n")
    assert body == PIECE * 3
    assert b"connection: close" in head.lower()
    assert b"transfer-encoding" not in head.lower()
    head, _, body = raw(server, b"GET /sized HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert (body, b"content-length: 196608" in head.lower()) == (PIECE * 3, True)


def test_a_stream_that_breaks_off_never_looks_whole(server):
    with request(server, "/fails") as response:
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
        assert caught.value.partial == b"some"
    with pytest.raises(ConnectionResetError):  # its end would be that of the body
        raw(server, b"GET /fails HTTP/1.0\r\n\r\n")
    with request(server, "/odd") as response, pytest.raises(http.client.IncompleteRead):
        response.read()
    server.wait_log("streamed answer of the front door broke off", count=3)


@pytest.mark.parametrize("path", ["/big?count=1000000000&witness=head", "/none?status=204", "/none?status=304"])
def test_head_and_answers_without_a_body_end_the_stream_at_once(server, path):
    method = b"HEAD" if "big" in path else b"GET"
    with connect(server.port) as sock:
        for _ in range(2):
            sock.sendall(b"%b %b HTTP/1.1\r\nHost: a\r\n\r\n" % (method, path.encode()))
            (head,) = read_replies(sock, 1)
            assert ("transfer-encoding" in head.headers) == ("big" in path)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert read_replies(sock, 1)[0].body == b"whole"
    if "big" in path:
        told(server, "head", "closed")


def test_an_event_arrives_while_the_iterator_waits_and_it_is_cancelled_when_the_client_goes(server):
    with request(server, "/events?witness=events") as response:
        assert response.getheader("content-type") == "text/event-stream; charset=utf-8"
        assert response.read1(100) == b"data: first\n\n"
        assert server.result("Witness", "events", "seen") == []
    told(server, "events", "cancelled")


def test_a_client_that_stopped_sending_gets_what_flows_and_is_gone_when_nothing_does(server):
    with connect(server.port) as sock:
        sock.sendall(b"GET /big?count=100 HTTP/1.1\r\nHost: a\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while more := sock.recv(MIB):
            answer += more
        assert answer.endswith(b"\r\n0\r\n\r\n")
        assert len(answer) > 100 * len(PIECE)
    with connect(server.port) as sock:
        sock.sendall(b"GET /waits?witness=half HTTP/1.1\r\nHost: a\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(MIB):
            pass
    told(server, "half", "cancelled")


def grown(server: Server, before: dict[int, int]) -> dict[int, int]:
    return {pid: resident_bytes(pid) - size for pid, size in before.items()}


@pytest.mark.parametrize("path", ["/big", "/via/big/big", "/actors/Feed/big/fetch/big"])
def test_a_hundred_megabytes_pass_through_little_memory(server, path):
    server.request("GET", f"{path}?count=10")  # code is loaded, buffers are there
    before = {child.pid: resident_bytes(child.pid) for child in server.children()}
    total = 0
    with request(server, f"{path}?count=1600") as response:
        while data := response.read(MIB):
            total += len(data)
            if total % (32 * MIB) < MIB:
                assert max(grown(server, before).values()) < 24 * MIB
    assert total == 1600 * len(PIECE)
    assert max(grown(server, before).values()) < 24 * MIB


def test_clients_that_never_read_harm_nobody_and_are_cut_off(server):
    before = {child.pid: resident_bytes(child.pid) for child in server.children()}
    line = b"GET %b?count=1000000000&witness=stalled HTTP/1.1\r\nHost: a\r\n\r\n"
    paths = [b"/big", b"/via/x/witnessed", b"/actors/Feed/y/fetch/witnessed"]
    socks = []
    for number in range(24):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(line % paths[number % 3])
        socks.append(sock)
    for _ in range(20):
        assert server.request("GET", "/big?count=5").body == PIECE * 5
        assert server.request("GET", "/").body == b"whole"
    # a window and a little for each of them in the front, and another one in the workers
    assert max(grown(server, before).values()) < len(socks) * MIB + 8 * MIB
    until(lambda: len(server.result("Witness", "stalled", "seen")) == len(socks), "all iterators to be closed")
    for sock in socks:
        sock.close()


def test_a_worker_that_dies_in_the_middle_cuts_the_connection(server):
    for path in ("/waits?witness=k", "/via/k/big?count=1000000000", "/actors/Feed/k/fetch/big?count=1000000000"):
        with request(server, path) as response:
            assert response.read1(5)
            for child in server.children("worker"):
                server.kill_child(child.pid)
            assert is_cut(response)
        server.wait_ready()
        assert server.request("GET", "/big?count=5").body == PIECE * 5


def test_an_actors_stream_runs_outside_of_the_turn(server):
    with request(server, "/actors/Feed/busy/fetch/big?count=1000000000") as response:
        assert response.read(10) == PIECE[:10]
        assert server.result("Feed", "busy", "add", 5) == 6, "other calls go on meanwhile"
    assert server.request("GET", "/actors/Feed/calls/fetch/").body == b"1\nand 101\n"
    assert server.request("GET", "/actors/Feed/calls/fetch/").headers["x-total"] == "102"
    assert server.request("GET", "/actors/Feed/refused/fetch/storage").body == b"TurnEnded"
    assert server.result("Feed", "refused", "add", 0) == 1


def test_a_stream_is_passed_on_by_the_front_door_from_any_worker(server):
    for number in range(8):
        reply = server.request("GET", f"/via/pass{number}/")
        assert (reply.status, reply.body, reply.headers["x-total"]) == (200, b"1\nand 101\n", "1")


def test_a_drain_ends_streams_that_stand_still_and_waits_for_those_that_flow(serve):
    own = serve("streams.py", settings=SETTINGS | {"http.write_stall": 30})
    with (
        request(own, "/waits?witness=w") as waiting,
        request(own, "/events?witness=w") as events,
        request(own, "/big?count=400") as big,
    ):
        assert waiting.read1(5)
        assert events.read1(5)
        assert big.read(1)
        own.signal(signal.SIGTERM)
        own.wait_log("finishing what runs")
        began = time.monotonic()
        for ended in (waiting, events):
            assert is_cut(ended)
        total = 1
        while data := big.read(MIB):
            total += len(data)
        assert total == 400 * len(PIECE)
    assert own.wait() == 0
    assert time.monotonic() - began < 20, "it waited for the drain limit"
    assert own.unexpected() == []
