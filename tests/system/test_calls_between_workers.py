"""Calls from actor to actor over the links of two workers: results, cycles, and workers that die under them."""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

TWO = {"server.workers": 2, "storage.shards": 2, "server.restart_delay_max": 0.2}


@pytest.fixture
def server(serve):
    return serve("nodes.py", settings=TWO)


class Gate:
    """Two named pipes: through one an actor says that it has begun, through the other it is let go on."""

    def __init__(self, path):
        self.path = str(path)
        os.mkfifo(self.path)
        os.mkfifo(self.path + ".go")

    def begun(self):
        with open(self.path):
            pass

    def open(self):
        with open(self.path + ".go", "w"):
            pass


@pytest.fixture
def gate(tmp_path):
    numbers = itertools.count()
    return lambda: Gate(tmp_path / f"gate-{next(numbers)}")


def homes(server, count=12):
    """Names by the worker that has them: ``{pid: [name, ...]}``, two workers."""
    found = {}
    for number in range(count):
        found.setdefault(server.result("Node", f"n{number}", "pid"), []).append(f"n{number}")
    assert len(found) == 2
    return found


def test_chains_that_change_the_worker_at_every_step_arrive(server):
    ours, theirs = homes(server).values()
    names = [name for pair in zip(ours, theirs, strict=False) for name in pair]
    assert server.result("Node", names[0], "chain", names[1:]) == 1
    assert server.result("Node", names[-1], "total") == 1
    assert server.result("Node", ours[0], "many", [*ours[1:], *theirs]) == len(ours) + len(theirs) - 1 + 1


@pytest.mark.parametrize("size", [2, 3, 5])
def test_calls_that_meet_across_workers_fail_once_and_at_once(server, gate, size):
    ours, theirs = homes(server).values()
    names = list(itertools.islice((name for pair in zip(ours, theirs, strict=False) for name in pair), size))
    gates = [gate() for _ in names]
    with ThreadPoolExecutor(size) as pool:
        calls = [
            pool.submit(server.result, "Node", name, "meet", gates[n].path, names[(n + 1) % size])
            for n, name in enumerate(names)
        ]
        for each in gates:
            each.begun()
        for each in gates:
            each.open()
        answers = [call.result(20) for call in calls]
    failed = [answer for answer in answers if answer != "ok"]
    assert len(failed) == 1
    assert failed[0].startswith("ActorDeadlockError no ")
    assert failed[0].count(" -> ") == size
    assert sum(server.result("Node", name, "total") for name in names) == size - 1


def test_a_chain_that_comes_back_over_another_worker_fails_at_once(server):
    ours, theirs = homes(server).values()
    reply = server.call("Node", ours[0], "chain", [theirs[0], ours[1], theirs[1], ours[0]])
    assert reply.status == 508
    assert reply.json()["applied"] == "no"
    assert reply.json()["detail"].count(" -> ") == 4


def test_the_caller_learns_that_its_callee_died_while_it_ran(server, gate):
    (_, ours), (there, theirs) = homes(server).items()
    held = gate()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(server.result, "Node", ours[0], "outcome", theirs[0], held.path)
        held.begun()
        server.kill_child(there)
        assert call.result(20) == ["ActorUnavailable", "unknown"]


def test_a_call_that_waits_behind_another_one_is_made_by_the_next_worker(server, gate):
    (_, ours), (there, theirs) = homes(server).items()
    held = gate()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.call, "Node", ours[0], "holds", theirs[0], held.path)
        held.begun()
        waiting = pool.submit(server.result, "Node", ours[1], "chain", [theirs[0]])
        # it has arrived there when one that was sent behind it is answered
        assert server.result("Node", ours[2], "chain", [theirs[1]]) == 1
        server.kill_child(there)
        assert waiting.result(20) == 1
        assert first.result(20).status == 503
    assert server.result("Node", theirs[0], "total") == 1
