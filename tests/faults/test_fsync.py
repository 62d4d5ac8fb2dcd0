"""A failed fsync under a running server, injected into its worker: fail-stop, and the truth to everybody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.history.audit import audit_server
from tests.history.recorder import History, deposits
from tests.support.server import Server, ended, pidfd

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

KEYS = [f"name-{number}" for number in range(6)]
CLIENTS = 8
SETTINGS = {"server.workers": 1, "server.restart_delay_max": 0.2, "storage.shards": 1}
EIO_OF_A_SYNC = "fbffffffffffffff"  # -5, in struct io_event
EXPECTED = (r"the store .* failed at", r"shard 0 failed and this worker stops", r"ended with exit code 74; it is")


@contextlib.contextmanager
def strace(pid: int, *arguments: str) -> Iterator[None]:
    """Attached to a process and its threads; skips where that is not allowed."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(pid), "-o", "/dev/null", *arguments], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr is not None
    try:
        said = tracer.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"strace can't attach here: {said.strip()}")
        # What it says of threads that come and go must not fill the pipe.
        threading.Thread(target=tracer.stderr.read, daemon=True).start()
        yield
    finally:
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        tracer.wait(30)


def sync_descriptor(pid: int) -> int:
    """The store's own descriptor of the log, opened behind SQLite's."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/{fd}").endswith(".db-wal"):
                found.append(int(fd))
    return max(found)


def failing_syncs(method: str, pid: int, number: int) -> list[str]:
    """strace's arguments: sync number ``number`` of this worker fails, and the ones behind it would succeed."""
    if method != "kernel":
        return ["-e", "trace=fdatasync", "-e", f"inject=fdatasync:error=EIO:when={number}"]
    event = sync_descriptor(pid).to_bytes(8, "little").hex() + "00" * 8 + EIO_OF_A_SYNC
    return ["-e", "trace=io_getevents", "-e", f"inject=io_getevents:poke_exit=@arg4={event}:when={number}"]


async def load_until(server: Server, failure: asyncio.Future[None]) -> History:
    history = History()
    stop = asyncio.Event()
    clients = [asyncio.create_task(deposits(history, server.port, KEYS, n, stop)) for n in range(CLIENTS)]
    try:
        await failure
        await history.successes(100)  # by the successor
    finally:
        stop.set()
        await asyncio.gather(*clients)
    return history


# The first sync of "auto" is run in the loop.
@pytest.mark.parametrize(
    ("method", "number"), [("thread", 1), ("thread", 20), ("kernel", 1), ("kernel", 20), ("auto", 1)]
)
def test_a_failed_fsync_answers_unknown_and_ends_the_worker(method, number, serve):
    server = serve(settings=SETTINGS | {"storage.flush": method})
    worker = server.worker_of(0)

    async def run() -> History:
        with pidfd(worker) as fd:
            failure = asyncio.ensure_future(asyncio.to_thread(ended, fd))
            return await load_until(server, failure)

    with strace(worker, *failing_syncs(method, worker, number)):
        history = asyncio.run(run())

    assert server.worker_of(0) != worker
    unknown = [op for op in history.operations if op.outcome == "unknown"]
    assert unknown, "nobody was told that the outcome is unknown"
    assert [op for op in history.operations if op.outcome == "no"] == []
    assert audit_server(history, server, KEYS) == []
    assert server.unexpected(*EXPECTED) == []
    # What was served by the successor stays, whatever else dies.
    server.kill()
    server.start()
    assert audit_server(history, server, KEYS) == []


def test_a_sync_that_fails_in_the_last_moment_of_a_drain_does_not_hold_it_up(serve):
    """Found by the replay of a whole server whose syncs fail: the worker stayed until the drain limit killed it."""
    server = serve(settings=SETTINGS | {"storage.flush": "thread"})
    assert server.result("Ledger", "a", "deposit", "m", 5)["number"] == 1
    worker = server.worker_of(0)
    with strace(worker, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=1"):
        assert server.stop() == 0
    assert not any("not finished within" in record["message"] for record in server.log), server.text()
    assert server.unexpected(r"the store .* failed at", r"shard 0 failed while it was closed") == []
    server.start()
    assert server.result("Ledger", "a", "deposit", "n", 5)["number"] == 2
