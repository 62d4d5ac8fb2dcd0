"""What a worker's death means for the calls that it had: promise 9 of the front door."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor

from tests.support.server import call_path, connect, read_replies

SETTINGS = {"server.workers": 1, "server.restart_delay_max": 0.2}


def test_calls_that_had_not_begun_are_sent_again_and_those_that_had_are_unknown(serve, fifo):
    server = serve("probe.py", settings=SETTINGS)
    worker = server.worker_of(0)
    with ThreadPoolExecutor(8) as pool:
        begun = pool.submit(server.call, "Probe", "a", "hold", fifo.path)
        fifo.wait()
        queued = [pool.submit(server.call, "Probe", "a", "add", 1) for _ in range(5)]
        elsewhere = pool.submit(server.call, "Probe", "b", "hold", fifo.path)  # behind the others on the link
        fifo.wait()
        server.kill_child(worker)
        for reply in (begun.result(), elsewhere.result()):
            assert reply.status == 503
            assert reply.headers["content-type"] == "application/problem+json"
            problem = reply.json()
            assert (problem["name"], problem["applied"], problem["retryable"]) == ("ActorUnavailable", "unknown", True)
        replies = [call.result() for call in queued]
    assert [reply.status for reply in replies] == [200] * 5
    assert sorted(reply.json() for reply in replies) == [1, 2, 3, 4, 5]
    assert server.result("Probe", "a", "get", "held") is None, "the turn that died had not committed"
    assert server.result("Probe", "a", "get", "sum") == 5
    assert server.unexpected(r"was ended by SIGKILL; it is started again$") == []


def test_a_call_that_arrives_while_the_worker_is_away_waits_for_its_successor(serve):
    server = serve("probe.py", settings=SETTINGS)
    for expected in (1, 2, 3):
        server.kill_child(server.worker_of(0))
        assert server.result("Probe", "a", "add", 1) == expected


def test_pipelined_calls_keep_their_order_over_a_worker_s_death(serve, fifo):
    server = serve("probe.py", settings=SETTINGS)
    head = "POST /actors/Probe/{}/{} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    call = head + "Content-Length: {}\r\n\r\n{}"
    hold = f'["{fifo.path}"]'
    requests = [call.format("b", "hold", len(hold), hold)]
    requests += [call.format("b", "add", 3, f"[{amount}]") for amount in (7, 1, 3)]
    with connect(server.port) as connection:
        connection.sendall("".join(requests).encode())
        fifo.wait()
        server.kill_child(server.worker_of(0))
        replies = read_replies(connection, 4)
    assert [reply.status for reply in replies] == [503, 200, 200, 200]
    assert [reply.json() for reply in replies[1:]] == [7, 8, 11]


def test_a_front_that_dies_leaves_its_marks_to_nobody(serve, fifo):
    """The calls of a dead front must not unmark those of its successor: they would be sent again, and run twice."""
    server = serve("probe.py", settings=SETTINGS)
    go = str(fifo.path) + ".go"
    os.mkfifo(go)
    with ThreadPoolExecutor(16) as pool, contextlib.ExitStack() as open_ones:

        def send(method: str, *args: object) -> socket.socket:
            """A call that has left us for certain, on a connection of its own."""
            body = json.dumps(args).encode()
            head = f"POST {call_path('Probe', 'a', method)} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
            connection = open_ones.enter_context(connect(server.port))
            connection.sendall(b"%bContent-Length: %d\r\n\r\n%b" % (head.encode(), len(body), body))
            return connection

        first = send("wait_for", fifo.path, go)
        fifo.wait()
        waiting = [send("add", 1) for _ in range(8)]
        # Answered behind all of them on the same link: they are in the worker's mailbox.
        server.result("Probe", "other", "pid")
        since = server.mark()
        server.kill_child(server.children("front")[0].pid)
        for connection in (first, *waiting):
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b"", "it was answered"
        server.wait_log("^front-0 is ready$", since=since)
        # The ids of these calls are those of the dead front's.
        running = [pool.submit(server.call, "Probe", f"n{i}", "hold", fifo.path) for i in range(10)]
        for _ in running:
            fifo.wait()
        with open(go, "w"):
            pass  # the first call ends; those behind it are given up
        server.result("Probe", "a", "get", "sum")
        server.kill_child(server.worker_of(0))
        for call in running:
            reply = call.result()
            assert reply.status == 503, "it was sent again, though its turn had begun"
            assert reply.json()["applied"] == "unknown"
