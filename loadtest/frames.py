"""A client of workers that costs next to nothing: callers in a closed loop over direct links, one call each.

``python -m actord.loadtest.frames PORT CALLERS SECONDS NAMES``: run by ``bench_direct``. Written from the words of
``GET /-/map`` and of shards/wire.py, with nothing of ours: about 3 µs of CPU a call, so that the worker is the wall.
"""

from __future__ import annotations

import http.client
import json
import mmap
import os
import random
import select
import socket
import struct
import sys
import time
from contextlib import closing
from typing import Any
from zlib import crc32

import ormsgpack
from actord.loadtest.measure import MeasureError
from actord.loadtest.roles import print_result, wait_for_start

HELLO, CALL, READY, REPLY, VERSION = 1, 2, 16, 17, 2
TYPE, METHOD, BODY = "Entries", "insert", b'{"amount":1}'
DEADLINE_MS = 60_000
AT_ONCE = 500


class Link:
    """One connection to one worker."""

    def __init__(self, path: str, ticket: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.out: list[Any] = [(HELLO, VERSION, "client", ticket)]
        self._buffer = b""
        self.flush()
        [(kind, version, facts)] = self.frames()
        if (kind, version) != (READY, VERSION):
            raise SystemExit("the worker does not let us in")
        fd = os.open(facts["begun"], os.O_RDWR)
        self.begun = mmap.mmap(fd, 0)
        os.close(fd)
        os.unlink(facts["begun"])

    def flush(self) -> None:
        payload = ormsgpack.packb(self.out)
        self.out = []
        self.socket.sendall(struct.pack("<I", len(payload)) + payload)

    def frames(self) -> list[Any]:
        """What has come, at least one frame."""
        found: list[Any] = []
        while not found:
            data = self.socket.recv(1 << 18)
            if not data:
                raise SystemExit("the worker has gone")
            data = self._buffer + data
            while len(data) >= 4 and len(data) >= (end := 4 + struct.unpack_from("<I", data)[0]):
                found += ormsgpack.unpackb(data[4:end])
                data = data[end:]
            self._buffer = data
        return found


def slot_map(port: int) -> Any:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/-/map")
        return json.loads(connection.getresponse().read())


def connect(port: int, names: int) -> tuple[list[Link], list[tuple[Link, str]]]:
    """A link to each worker, and each name with the link to its owner."""
    found = slot_map(port)
    links = [Link(worker["direct"], found["ticket"]) for worker in found["workers"]]
    owner = {
        slot: links[worker["worker"]]
        for worker in found["workers"]
        for first, last in worker["slots"]
        for slot in range(first, last + 1)
    }
    targets = []
    for number in range(1, names + 1):
        name = f"acct-{number}"
        targets.append((owner[(crc32(f"{TYPE}\0{name}".encode()) * 2654435761 & 0xFFFFFFFF) >> 22], name))
    return links, targets


def each(port: int, names: int, method: str, body: bytes = b"") -> int:
    """Call a method of every name once; the sum of what they return. Raises MeasureError when one fails."""
    links, targets = connect(port, names)
    deadline = int(time.monotonic() * 1000) + DEADLINE_MS
    total = 0
    for start in range(0, len(targets), AT_ONCE):
        part = targets[start : start + AT_ONCE]
        for id_, (link, name) in enumerate(part):
            link.out.append((CALL, id_, TYPE, name, method, 0, deadline, body))
        for link in links:
            expected = len(link.out)
            if expected:
                link.flush()
            while expected:
                for _, _, status, answer, _ in link.frames():
                    if status != 200:
                        raise MeasureError(f"{method} was answered {status}: {answer[:200]!r}")
                    total += int(answer)
                    expected -= 1
    for link in links:
        link.socket.close()
    return total


def main() -> None:
    port, callers, names, seconds = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4]), float(sys.argv[3])
    links, targets = connect(port, names)
    poll = select.epoll()
    by_fd = {link.socket.fileno(): link for link in links}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    wait_for_start()

    clock = time.perf_counter
    began, cpu_began = clock(), time.process_time()
    times: list[float] = []
    errors = 0
    sent = [0.0] * callers
    choose = random.choice
    idle = list(range(callers))
    open_calls = 0
    until = began + seconds
    while True:
        now = clock()
        if now < until:
            deadline = int(time.monotonic() * 1000) + DEADLINE_MS
            for id_ in idle:
                link, name = choose(targets)
                sent[id_] = now
                link.out.append((CALL, id_, TYPE, name, METHOD, 0, deadline, BODY))
            open_calls += len(idle)
            idle = []
            for link in links:
                if link.out:
                    link.flush()
        elif not open_calls:
            break
        for fd, _ in poll.poll(60):
            for kind, id_, status, _, _ in by_fd[fd].frames():
                now = clock()
                times.append(now - sent[id_])
                if kind != REPLY or status >= 400:
                    errors += 1
                idle.append(id_)
                open_calls -= 1
    print_result(times, errors, began, cpu_began)


if __name__ == "__main__":
    main()
