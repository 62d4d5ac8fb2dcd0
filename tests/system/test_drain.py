"""The end of a server: running calls finish and are answered, nobody new is let in, exit 0; a second signal is now."""

from __future__ import annotations

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.fifo import Fifo
from tests.support.server import PATIENCE_SECONDS, connect, read_replies, until

SETTINGS = {"server.workers": 2, "storage.shards": 2}


def refused(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS):
            return False
    except ConnectionResetError:  # it stood in the queue of a socket that was just being closed
        return False
    except ConnectionRefusedError:
        return True


@pytest.mark.parametrize("how", ["TERM", "INT to the group"])
def test_a_drain_answers_what_runs_and_refuses_what_comes(how, serve, fifo, tmp_path):
    server = serve("probe.py", settings=SETTINGS)
    go = tmp_path / "go"
    os.mkfifo(go)
    with ThreadPoolExecutor(4) as pool, connect(server.port) as idle:
        running = pool.submit(server.call, "Probe", "a", "wait_for", fifo.path, str(go))
        fifo.wait()
        queued = pool.submit(server.call, "Probe", "a", "add", 5)
        server.result("Probe", "b", "pid")
        server.result("Probe", "c", "pid")  # behind it on the link
        if how == "TERM":
            server.signal(signal.SIGTERM)
        else:
            os.killpg(server.pid, signal.SIGINT)  # as a terminal does
        server.wait_log("finishing what runs")
        until(lambda: refused(server.port), "new connections to be refused")
        assert idle.recv(1) == b"", "an idle connection is closed"
        assert not running.done()
        with open(go, "w"):
            pass
        assert (running.result().status, running.result().json()) == (200, "waited")
        assert (queued.result().status, queued.result().json()) == (200, 5)
    assert server.wait() == 0
    assert server.survivors() == []
    assert server.unexpected() == []
    for shard in range(2):
        assert (server.data_dir / "shards" / f"{shard:04d}.db.clean").exists()
    server.start()
    assert server.result("Probe", "a", "get", "waited") is True
    assert server.result("Probe", "a", "get", "sum") == 5


def test_a_second_signal_ends_the_server_now(serve, fifo):
    server = serve("probe.py", settings=SETTINGS)
    server.result("Probe", "a", "add", 1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.call, "Probe", "a", "hold", fifo.path)
        fifo.wait()
        server.signal(signal.SIGTERM)
        server.wait_log("finishing what runs")
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
        assert isinstance(running.exception(), OSError)
    assert server.survivors() == []
    server.start()
    assert server.result("Probe", "a", "get", "sum") == 1
    assert server.result("Probe", "a", "get", "held") is None


def test_the_drain_limit_ends_what_does_not_finish(serve, fifo):
    server = serve("probe.py", settings=SETTINGS | {"server.drain_limit": 0.5})
    server.result("Probe", "a", "add", 1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.call, "Probe", "a", "hold", fifo.path)
        fifo.wait()
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
        if running.exception() is None:  # the front's last word, if it still had the time
            assert (running.result().status, running.result().json()["applied"]) == (503, "unknown")
    server.start()
    assert server.result("Probe", "a", "get", "sum") == 1
    assert server.result("Probe", "a", "get", "held") is None


def test_a_request_that_has_begun_to_arrive_is_answered(serve):
    server = serve("probe.py", settings=SETTINGS)
    with connect(server.port) as half:
        half.sendall(b"POST /actors/Probe/a/add HTTP/1.1\r\nHost: t\r\n")
        server.result("Probe", "b", "pid")
        server.signal(signal.SIGTERM)
        server.wait_log("finishing what runs")
        until(lambda: refused(server.port), "new connections to be refused")
        half.sendall(b"Content-Length: 3\r\nContent-Type: application/json\r\n\r\n[2]")
        (reply,) = read_replies(half, 1)
        assert (reply.status, reply.json(), reply.headers["connection"]) == (200, 2, "close")
        assert half.recv(1) == b""
    assert server.wait() == 0


def test_a_fifo_wakes_the_test(tmp_path):
    """The helper itself: a byte that was written is seen, also after its writer has gone."""
    fifo = Fifo(tmp_path / "own")
    for _ in range(2):
        with open(fifo.path, "wb") as writer:
            writer.write(b"x")
        fifo.wait()
    fifo.close()
