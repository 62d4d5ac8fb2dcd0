"""Clients that ask for too much, or do nothing at all: bounded, refused with the truth, and gone again; the others are
served meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest

from tests.support.lots import LONG
from tests.support.server import Reply, Server, call_path, connect, read_replies, resident_bytes, until

PROGRAM = Path(__file__).parent / "programs" / "hostile.py"
IDLE = 10_000
IDLE_BYTES = 24 * 1024  # what the front may take for a connection that does nothing
NEVER_READ = 1_000 if LONG else 20
BIG = 3_000_000  # more than the kernel takes for a connection
MAILBOX = 100
PIPELINE = 64


def request(name: str, method: str, *args: object) -> bytes:
    body = json.dumps(args).encode()
    head = f"POST {call_path('Hostile', name, method)} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    return b"%bContent-Length: %d\r\n\r\n%b" % (head.encode(), len(body), body)


def front_of(server: Server) -> int:
    (front,) = server.children("front")
    return front.pid


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def median_seconds(server: Server, name: str, count: int = 100) -> float:
    """The median time of durable calls to one actor, on one connection."""
    took = []
    with connect(server.port) as sock:
        for _ in range(count):
            began = monotonic()
            sock.sendall(request(name, "add"))
            assert read_replies(sock, 1)[0].status == 200
            took.append(monotonic() - began)
    return statistics.median(took)


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """As many descriptors as this process may have; their number."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_mailbox_flood_is_refused_with_retry_after_and_other_actors_are_as_quick(serve, fifo, tmp_path):
    settings = {"server.workers": 1, "storage.shards": 1, "runtime.mailbox": MAILBOX}
    server: Server = serve(PROGRAM, settings=settings)
    go = tmp_path / "go"
    os.mkfifo(go)
    before = median_seconds(server, "other")
    connections = 10
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.call, "Hostile", "hot", "wait_for", fifo.path, str(go))
        fifo.wait()
        socks = [stack.enter_context(connect(server.port)) for _ in range(connections)]
        for sock in socks:
            sock.sendall(request("hot", "add") * PIPELINE)
        during = median_seconds(server, "other")
        # The front knows by now, or is told when the worker refuses one more: then it refuses them itself.
        full = "Too many calls wait for this actor already."
        until(lambda: server.call("Hostile", "hot", "add").json()["detail"] == full, "the front to hear of it")
        go.write_bytes(b"x")
        assert running.result().status == 200
        replies: list[Reply] = [reply for sock in socks for reply in read_replies(sock, PIPELINE)]
    done = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status != 200]
    assert len(done) == MAILBOX
    assert len(refused) == connections * PIPELINE - MAILBOX
    for reply in refused:
        assert (reply.status, reply.json()["name"], reply.json()["applied"]) == (503, "ActorOverloaded", "no")
        assert int(reply.headers["retry-after"]) >= 1
    assert server.result("Hostile", "hot", "sum") == MAILBOX + 1, "exactly those that were answered 200"
    # Meant is the double; the machine of a test has other things to do as well.
    assert during < before * 4 + 0.005, (before, during)
    assert server.unexpected() == []


def test_thousands_of_idle_connections_cost_little_and_stop_nobody(serve, many_descriptors):
    count = min(IDLE, many_descriptors - 500)
    if count < 1_000:
        pytest.skip(f"only {many_descriptors} descriptors are allowed here")
    server: Server = serve(PROGRAM, settings={"server.workers": 1, "http.connections": count + 10})
    front = front_of(server)
    server.result("Hostile", "a", "add")
    before, quick = resident_bytes(front), median_seconds(server, "other")
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(server.port)) for _ in range(count)]
        for sock in socks[:: count // 100]:  # the last ones are in as well, and those that spoke stay
            sock.sendall(request("a", "sum"))
            assert read_replies(sock, 1)[0].json() == 1
        cost = (resident_bytes(front) - before) / count
        assert cost < IDLE_BYTES, f"{cost:.0f} bytes for a connection"
        assert median_seconds(server, "other") < quick * 4 + 0.005
        with contextlib.ExitStack() as more:  # those beyond the limit are told so, and not kept
            surplus = [more.enter_context(connect(server.port)) for _ in range(20)]
            surplus[-1].sendall(request("a", "sum"))
            (refused,) = read_replies(surplus[-1], 1)
            assert (refused.status, refused.headers["connection"]) == (503, "close")
    until(lambda: server.request("GET", "/-/health/live").status == 200, "room for new connections")
    assert server.result("Hostile", "a", "sum") == 1
    assert server.unexpected() == []


def test_clients_that_never_read_are_dropped_and_their_answers_forgotten(serve):
    server: Server = serve(PROGRAM, settings={"server.workers": 1, "http.write_stall": 2, "http.write_buffer": 65_536})
    front = front_of(server)
    before = resident_bytes(front)
    with contextlib.ExitStack() as stack:
        most, idle = 0, descriptors(front)
        for number in range(NEVER_READ):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(30)
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(request(f"deaf-{number % 10}", "big", BIG) * 2)
            if number % 10 == 9:
                assert server.result("Hostile", "other", "add") == number // 10 + 1
                most = max(most, descriptors(front))
        # At most one answer beyond the limit of the buffer is kept for each, whatever else it asked for.
        bound = NEVER_READ * 2 * (BIG + 65_536) + (64 << 20)
        assert resident_bytes(front) - before < bound
        # The kernel tells a client with a full window nothing of it: look at the front's own descriptors.
        assert most > idle + 10
        until(lambda: descriptors(front) <= idle + 2, "the front to drop those that do not read")
    until(lambda: resident_bytes(front) - before < bound / 3, "the front to let go of what nobody read")
    assert server.result("Hostile", "other", "add") == NEVER_READ // 10 + 1
    assert server.unexpected() == []


def test_slowloris_is_closed_fifty_of_fifty_while_others_are_served(serve):
    server: Server = serve(PROGRAM, settings={"server.workers": 1, "http.head_timeout": 1})
    head = b"POST /actors/Hostile/slow/add HTTP/1.1\r\nHost: a\r\nX-Slow: "
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(server.port)) for _ in range(50)]
        for sock in socks:
            sock.sendall(head)
        open_, answers, count = set(socks), [], 0
        end = monotonic() + 30
        while open_ and monotonic() < end:
            count += 1
            assert server.result("Hostile", "other", "add") == count
            for sock in list(open_):
                sock.settimeout(0.001)
                try:
                    sock.sendall(b"x")
                    answer = sock.recv(4096)
                except TimeoutError:
                    continue
                except ConnectionError:
                    answer = b""
                open_.discard(sock)
                answers.append(answer)
    assert not open_, f"{len(open_)} of 50 are still open"
    assert all(b" 408 " in answer or not answer for answer in answers)
    assert sum(b" 408 " in answer for answer in answers) >= 25
    assert server.result("Hostile", "slow", "sum") == 0
