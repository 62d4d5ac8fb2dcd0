"""kill -9 of every process of a server under load, and the audit of every answer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from tests.history.audit import audit_server
from tests.history.recorder import History, deposits
from tests.support.server import Server, pidfd

CLIENTS = 16
KEYS = [f"name-{number}" for number in range(12)]
BETWEEN = 200  # successes between two faults
ROUNDS = int(os.environ.get("ACTORD_TEST_KILL_ROUNDS", "2"))
SETTINGS = {"server.restart_delay_max": 0.2, "server.workers": 2, "storage.checkpoint_wal": 131_072}
EXPECTED = (r"was ended by SIGKILL; it is started again$",)

Fault = Callable[[Server], None]


def children_ready(server: Server, since: int, count: int) -> None:
    server.wait_log(r"^(worker|front)-\d is ready$", since=since, count=count)
    server.wait_ready()


def kill_worker(server: Server) -> None:
    since = server.mark()
    server.kill_child(server.worker_of(since % 2))
    children_ready(server, since, 1)


def kill_front(server: Server) -> None:
    since = server.mark()
    server.kill_child(server.children("front")[0].pid)
    children_ready(server, since, 1)


def kill_children(server: Server) -> None:
    since = server.mark()
    children = server.children()
    assert len(children) == 3
    for child in children:
        with pidfd(child.pid):
            os.kill(child.pid, signal.SIGKILL)
    children_ready(server, since, 3)


def kill_supervisor(server: Server) -> None:
    children = server.children()
    server.kill()  # until no process of the server is left
    assert server.survivors() == []
    assert len(children) == 3
    server.start()


def kill_group(server: Server) -> None:
    """What an out-of-memory killer or a service manager does: everything at once."""
    for pid in [server.pid, *(child.pid for child in server.children())]:
        os.kill(pid, signal.SIGKILL)
    server.wait()
    server.start()


async def under_load(server: Server, faults: list[Fault]) -> History:
    """Deposits by many clients while one fault follows the other, each after some successes since the last one."""
    history = History()
    stop = asyncio.Event()
    clients = [
        asyncio.create_task(deposits(history, server.port, KEYS, number, stop), name=f"client {number}")
        for number in range(CLIENTS)
    ]
    try:
        for fault in faults:
            await history.successes(BETWEEN)
            await asyncio.to_thread(fault, server)
        await history.successes(BETWEEN)
    finally:
        stop.set()
        await asyncio.gather(*clients)
    return history


@pytest.mark.parametrize("fault", [kill_worker, kill_front, kill_children, kill_supervisor, kill_group])
def test_kill_9_under_load_loses_no_answer_and_invents_none(fault, serve):
    server = serve(settings=SETTINGS)
    history = asyncio.run(under_load(server, [fault] * ROUNDS))
    assert audit_server(history, server, KEYS) == []
    assert history.count >= (ROUNDS + 1) * BETWEEN
    assert server.unexpected(*EXPECTED) == []
    assert server.ready()
    assert server.stop() == 0
    server.start()
    assert audit_server(history, server, KEYS) == [], "a clean restart changed it"


def test_the_audit_catches_replies_that_leave_before_anything_is_written(serve):
    """What kill -9 can find; a missing sync it can't: see test_powercut_worker.py."""
    server = serve(settings=SETTINGS, variant="reply-unwritten")
    history = asyncio.run(under_load(server, [kill_group] * 2))
    assert any("acknowledged and is gone" in line for line in audit_server(history, server, KEYS))
