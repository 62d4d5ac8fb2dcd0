"""A turn that never yields: its worker is named, explained, killed and replaced; the others go on meanwhile."""

from __future__ import annotations

import os
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from actord.shards.blackbox import COMMITTING
from actord.shards.slots import shard_of_slot, slot_of

from tests.faults.test_fsync import strace

SETTINGS = {"server.workers": 2, "storage.shards": 2, "server.stuck_after": 1, "server.restart_delay_max": 0.2}
HELD = r"holds worker-0"
EXPECTED = (r"has not answered for", HELD, r"has held this worker for", r"was ended by SIGKILL; it is started again$")


# One that is in C, and one behind an await: tests/system/test_stuck.py.
@pytest.mark.parametrize("method", ["spin"])
def test_a_turn_that_never_yields_is_named_and_its_worker_replaced(method, serve, fifo):
    server = serve("probe.py", settings=SETTINGS)
    names = {shard_of_slot(slot_of("Probe", name), 2): name for name in map(str, range(20))}
    stuck, other = names[0], names[1]
    assert server.result("Probe", stuck, "add", 3) == 3
    worker, neighbour = server.worker_of(0), server.worker_of(1)
    with ThreadPoolExecutor(2) as pool:
        spinning = pool.submit(server.call, "Probe", stuck, method, fifo.path)
        fifo.wait()
        queued = pool.submit(server.call, "Probe", stuck, "add", 4)
        meanwhile = 0
        while not any(re.search(HELD, record["message"]) for record in server.log):
            meanwhile += 1
            assert server.result("Probe", other, "add", 1) == meanwhile
            wait([spinning], timeout=0.01)
        reply = spinning.result()
        assert (reply.status, reply.json()["applied"]) == (503, "unknown")
        assert (queued.result().status, queued.result().json()) == (200, 7)
    assert meanwhile > 20, "the other worker's calls went on"
    assert server.worker_of(0) != worker
    assert server.worker_of(1) == neighbour
    server.wait_log(r"^worker-0 has not answered for")
    (held,) = server.wait_log(HELD)
    assert f"Probe.{method} of '{stuck}'" in held["message"]
    assert f"in {method}" in held["message"], "the stack says where it stands"
    assert server.unexpected(*EXPECTED) == [], server.text()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_worker_whose_disk_stalls_is_not_killed_and_answers_when_that_is_over(serve):
    """Rows are written in the worker's loop, which answers nobody meanwhile."""
    server = serve(settings=SETTINGS | {"server.workers": 1, "server.stuck_after": 0.5})
    assert server.result("Ledger", "a", "deposit", "m", 5)["number"] == 1
    worker = server.worker_of(0)
    with (
        strace(worker, "-e", "trace=pwrite64", "-e", "inject=pwrite64:delay_exit=2000000:when=1"),
        ThreadPoolExecutor(2) as pool,
    ):
        stalled = pool.submit(server.call, "Ledger", "a", "deposit", "n", 5)
        (waits,) = server.wait_log(r"^worker-0 has waited for its disk for")
        later = pool.submit(server.call, "Ledger", "b", "deposit", "o", 5)
        assert [reply.result().status for reply in (stalled, later)] == [200, 200]
    assert waits["level"] == "error"
    assert server.worker_of(0) == worker
    assert server.unexpected(r"has waited for its disk") == [], server.text()


def test_a_worker_that_a_signal_stopped_in_a_commit_is_replaced(serve):
    """Found by random stops under load: it was taken for one whose disk stalls, and nobody else had its shard."""
    server = serve(settings=SETTINGS | {"server.workers": 1, "server.stuck_after": 0.5})
    assert server.result("Ledger", "a", "deposit", "m", 5)["number"] == 1
    since, worker = server.mark(), server.worker_of(0)
    os.kill(worker, signal.SIGSTOP)
    box = next(fd for fd in Path(f"/proc/{worker}/fd").iterdir() if "memfd:actord-worker-0" in os.readlink(fd))
    with box.open("r+b") as file:
        file.write(bytes([COMMITTING]))
    server.wait_log(r"^worker-0 is ready$", since=since)
    assert server.worker_of(0) != worker
    assert server.result("Ledger", "a", "deposit", "n", 5)["number"] == 2
    assert server.unexpected(*EXPECTED) == [], server.text()
