"""Memory and descriptors run out, under real limits of the kernel: the truth to everybody, and back by itself."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.resources.test_floods import descriptors, front_of, request
from tests.support.server import Server, connect, read_replies, until

PROGRAM = Path(__file__).parent / "programs" / "hostile.py"
MIB = 1 << 20
ROOM = 150 * MIB  # what a worker may take beyond what it has at its start
SETTINGS = {"server.workers": 1, "storage.shards": 1, "server.restart_delay_max": 0.1}
CGROUP = Path("/sys/fs/cgroup/memory")


def address_space(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def check(server: Server, name: str, replies: list[tuple[int, str]]) -> None:
    """Each call adds one: is the sum what the answers said?"""
    done = sum(status == 200 for status, _ in replies)
    perhaps = sum(applied == "unknown" for _, applied in replies)
    assert done <= server.result("Hostile", name, "sum") <= done + perhaps, replies


def ask(server: Server, name: str, method: str, *args: object) -> tuple[int, str]:
    reply = server.call("Hostile", name, method, *args)
    return reply.status, "" if reply.status == 200 else reply.json()["applied"]


def test_a_method_that_wants_ten_gigabytes_fails_alone(serve):
    server: Server = serve(PROGRAM, settings=SETTINGS)
    worker = server.worker_of(0)
    server.result("Hostile", "other", "add", 5)
    limit = address_space(worker) + ROOM
    resource.prlimit(worker, resource.RLIMIT_AS, (limit, limit))
    for number in range(3):
        reply = server.call("Hostile", "greedy", "allocate", 10 << 30)
        assert (reply.status, reply.json()["error_type"], reply.json()["applied"]) == (500, "MemoryError", "no")
        assert server.result("Hostile", "other", "add") == 6 + number
    assert server.result("Hostile", "greedy", "sum") == 0
    assert server.worker_of(0) == worker


def test_a_worker_whose_memory_leaks_away_tells_the_truth_and_its_successor_serves(serve):
    server: Server = serve(PROGRAM, settings=SETTINGS)
    worker = server.worker_of(0)
    server.result("Hostile", "other", "add", 5)
    limit = address_space(worker) + ROOM
    resource.prlimit(worker, resource.RLIMIT_AS, (limit, limit))
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, server, f"leak-{n % 4}", "hoard", 20 * MIB) for n in range(40)]
        asked += [pool.submit(ask, server, "bystander", "add") for _ in range(40)]
        replies = [one.result() for one in asked]
    leaks = replies[:40]
    assert any(status == 200 for status, _ in leaks)
    assert any(status != 200 for status, _ in leaks), "the limit was never reached"
    assert {applied for _, applied in replies} <= {"", "no", "unknown"}
    if server.worker_of(0) == worker:  # it got through; what leaked is gone with it
        server.kill_child(worker)
    server.wait_ready()
    for n in range(4):
        check(server, f"leak-{n}", leaks[n::4])
    check(server, "bystander", replies[40:])
    assert server.result("Hostile", "other", "sum") == 5


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A control group without swap; skips where none can be made."""
    group = CGROUP / f"actord-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no memory control group can be made here: {error}")
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit))
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            (CGROUP / "cgroup.procs").write_text(pid)
        group.rmdir()


def test_a_worker_that_the_kernel_ends_for_its_memory_is_replaced(serve):
    server: Server = serve(PROGRAM, settings=SETTINGS)
    worker = server.worker_of(0)
    server.result("Hostile", "other", "add", 5)
    with memory_group(200 * MIB) as group:
        try:
            (group / "cgroup.procs").write_text(str(worker))
        except OSError as error:
            pytest.skip(f"a process can't be moved into a control group here: {error}")
        since = server.mark()
        reply = server.call("Hostile", "greedy", "hoard", 1 << 30)
        assert (reply.status, reply.json()["applied"]) == (503, "unknown"), reply
        server.wait_log(r"worker-0 was ended by SIGKILL", since=since)
        server.wait_ready()
        assert server.worker_of(0) != worker
    assert server.result("Hostile", "greedy", "sum") in (0, 1)
    assert server.result("Hostile", "other", "sum") == 5


def test_a_front_without_descriptors_goes_on_serving_and_comes_back_by_itself(serve):
    server: Server = serve(PROGRAM, settings=SETTINGS)
    front = front_of(server)
    with connect(server.port) as kept, contextlib.ExitStack() as stack:
        kept.sendall(request("a", "add"))
        assert read_replies(kept, 1)[0].json() == 1
        soft, hard = resource.prlimit(front, resource.RLIMIT_NOFILE)
        room = 5
        resource.prlimit(
            front, resource.RLIMIT_NOFILE, (max(map(int, os.listdir(f"/proc/{front}/fd"))) + 1 + room, hard)
        )
        try:
            for _ in range(60):
                sock = stack.enter_context(socket.socket())
                sock.settimeout(0.2)
                with contextlib.suppress(OSError):
                    sock.connect(("127.0.0.1", server.port))
            for number in range(50):
                kept.sendall(request("a", "add"))
                assert read_replies(kept, 1)[0].json() == number + 2, "who is connected is served"
            began, spent = time.monotonic(), cpu_seconds(front)
            until(lambda: time.monotonic() - began > 0.5, "half a second of having no descriptors")
            assert cpu_seconds(front) - spent < 0.4, "it spins"
            full = descriptors(front)
            stack.close()  # the crowd leaves
            until(lambda: descriptors(front) < full, "the connections to end")
            until(server.ready, "new connections to be accepted, with the limit as low as before")
        finally:
            resource.prlimit(front, resource.RLIMIT_NOFILE, (soft, hard))
        kept.sendall(request("a", "add"))
        assert read_replies(kept, 1)[0].json() == 52
    assert server.children("front")[0].pid == front
    assert server.result("Hostile", "a", "sum") == 52


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
