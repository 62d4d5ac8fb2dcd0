"""Whoever can open a worker's socket and talks nonsense there is cut off; the worker and its calls go on."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from actord.limits import BEGUN_BYTES, LINK_CALLS, WIRE_BATCH_BYTES
from actord.shards import wire

from tests.support.server import PATIENCE_SECONDS, Server

PROGRAM = Path(__file__).parent / "programs" / "hostile.py"
LATE = 1 << 50


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"server.workers": 1, "storage.shards": 1}
    with Server(PROGRAM, tmp_path_factory.mktemp("frames") / "data", settings=settings) as server:
        yield server


def socket_of(server: Server) -> str:
    (worker,) = server.children("worker")
    paths = {c.laddr for c in psutil.Process(worker.pid).net_connections("unix") if c.status == "NONE" and c.laddr}
    found = [path for path in paths if path.startswith("/")]
    assert len(found) == 1, found
    return found[0]


def hello(folder: Path) -> bytes:
    path = folder / "begun"
    path.write_bytes(bytes(BEGUN_BYTES))
    return wire.pack_batch([(wire.HELLO, wire.VERSION, "stranger", str(path))])


def add(id_: object = 1, *, type_: object = "Hostile", flags: object = 0, deadline: object = LATE) -> wire.Frame:
    return (wire.CALL, id_, type_, "canary", "add", flags, deadline, b"")


BAD = {
    "http": b"POST /actors/Hostile/canary/add HTTP/1.1\r\nHost: a\r\n\r\n",
    "noise": random.Random(1).randbytes(10_000),
    "length-over-the-limit": struct.pack("<I", WIRE_BATCH_BYTES) + b"x",
    "length-of-all-ones": b"\xff" * 100,
    "no-array": wire.pack_batch({"a": 1}),  # type: ignore[arg-type]
    "no-hello": wire.pack_batch([add()]),
    "other-version": wire.pack_batch([(wire.HELLO, 99, "stranger", "/tmp/x")]),
    "map-that-is-not-there": wire.pack_batch([(wire.HELLO, wire.VERSION, "stranger", "/nonexistent/begun")]),
    "map-that-is-a-folder": wire.pack_batch([(wire.HELLO, wire.VERSION, "stranger", "/tmp")]),
    "map-that-is-empty": wire.pack_batch([(wire.HELLO, wire.VERSION, "stranger", "/dev/null")]),
    "map-path-is-a-number": wire.pack_batch([(wire.HELLO, wire.VERSION, "stranger", [])]),
}
BAD_AFTER_HELLO = {
    "noise": random.Random(2).randbytes(10_000),
    "unknown-kind": wire.pack_batch([(31, 1)]),
    "id-out-of-range": wire.pack_batch([add(LINK_CALLS)]),
    "id-below-zero": wire.pack_batch([add(-1)]),
    "id-is-text": wire.pack_batch([add("1")]),
    "deadline-is-none": wire.pack_batch([add(deadline=None)]),
    "flags-are-a-list": wire.pack_batch([add(flags=[])]),
    "type-is-a-list": wire.pack_batch([add(type_=["Hostile"])]),
    "frame-too-short": wire.pack_batch([(wire.CALL, 1)]),
    "frame-too-long": wire.pack_batch([(*add(), 1)]),
    "request-is-no-request": wire.pack_batch([(wire.FETCH, 1, "Hostile", "x", [1], None, 0, LATE, b"")]),
    "door-flags-are-text": wire.pack_batch([(wire.DOOR, 1, ["GET", "/", [], None], "x", LATE, b"")]),
    "body-is-a-number": wire.pack_batch([(wire.CALL, 1, "Hostile", "canary", "add", wire.MSGPACK, LATE, 1 << 40)]),
    "hello-again": wire.pack_batch([(wire.HELLO, wire.VERSION, "stranger", "/tmp/x")]),
}


def cut_off(server: Server, data: bytes) -> None:
    """Send it; the worker has to close the connection."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        sock.connect(socket_of(server))
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
            while sock.recv(65_536):
                pass


def test_nonsense_on_a_workers_socket_cuts_off_its_sender_alone(server, fifo, tmp_path):
    """With a call of the front running all the while: it keeps its link, its turn and its answer."""
    go = tmp_path / "go"
    os.mkfifo(go)
    worker = server.worker_of(0)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.call, "Hostile", "running", "wait_for", fifo.path, str(go))
        fifo.wait()
        for count, (name, data) in enumerate(BAD.items(), 1):
            cut_off(server, data)
            assert server.result("Hostile", "neighbour", "add") == count, name
        greeting = hello(tmp_path)
        for count, (name, data) in enumerate(BAD_AFTER_HELLO.items(), len(BAD) + 1):
            cut_off(server, greeting + data)
            assert server.result("Hostile", "neighbour", "add") == count, name
        go.write_bytes(b"x")
        assert running.result().json() == "waited"
    assert server.result("Hostile", "canary", "sum") == 0, "nothing of it was executed"
    assert server.worker_of(0) == worker
    assert server.unexpected(r"^a link is closed: ") == []


def test_a_batch_that_stops_in_the_middle_holds_up_nobody(server, tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(socket_of(server))
        sock.sendall(hello(tmp_path) + wire.pack_batch([add()])[:-1])
        before = server.result("Hostile", "beside", "sum")
        assert server.result("Hostile", "beside", "add") == before + 1
    assert server.result("Hostile", "canary", "sum") == 0
