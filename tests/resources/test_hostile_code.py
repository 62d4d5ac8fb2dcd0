"""User code that does what no actor should, in a real worker: a documented answer or a worker replaced, nothing done
twice or by halves, and the data of the other actors as it was."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.server import Server

PROGRAM = Path(__file__).parent / "programs" / "hostile.py"
SETTINGS = {
    "server.workers": 1,
    "storage.shards": 1,
    "server.restart_delay_max": 0.1,
    "server.stuck_after": 2,
}
RESTARTED = r"worker-0 (ended with exit code|was ended by)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(PROGRAM, tmp_path_factory.mktemp("hostile") / "data", settings=SETTINGS) as server:
        server.result("Hostile", "other", "add", 5)
        yield server


def others_are_as_they_were(server: Server) -> None:
    server.wait_ready()
    assert server.result("Hostile", "other", "sum") == 5
    assert server.result("Hostile", f"fresh-{uuid.uuid4()}", "add", 2) == 2


ANSWERED = [
    ("quit", 500, "ActorMethodError"),
    ("interrupt", 500, "ActorMethodError"),
    ("system_exit", 500, "ActorMethodError"),
    ("generator_exit", 500, "ActorMethodError"),
    ("recurse", 500, "ActorMethodError"),
    ("deep_repr", 500, "ActorMethodError"),
    ("deep_result", 500, "ActorMethodError"),
    ("spin_politely", 504, "ActorMethodTimeoutError"),
    ("fork", 500, "ActorMethodError"),
    ("fork_and_wait", 500, "ActorMethodError"),
]


@pytest.mark.parametrize(("method", "status", "name"), ANSWERED, ids=[row[0] for row in ANSWERED])
def test_it_is_answered_nothing_is_written_and_the_worker_goes_on(server, method, status, name):
    worker = server.worker_of(0)
    reply = server.call("Hostile", method, method)
    document = reply.json()
    assert (reply.status, document["name"], document["applied"]) == (status, name, "no"), reply
    assert server.result("Hostile", method, "sum") == 0
    others_are_as_they_were(server)
    assert server.worker_of(0) == worker


def test_a_fork_is_refused_since_its_child_would_answer_and_commit_as_the_worker(server):
    before = set(server.survivors())
    assert "must not fork" in server.call("Hostile", "forked", "fork").json()["detail"]
    assert set(server.survivors()) == before
    for number in range(20):  # a child would take every other batch of frames
        assert server.result("Hostile", "forked", "add") == number + 1


def test_a_block_over_the_time_limit_is_undone(server):
    reply = server.call("Hostile", "block", "block", 0.5)
    assert (reply.status, reply.json()["applied"]) == (504, "no")
    assert server.result("Hostile", "block", "sum") == 0


@pytest.mark.parametrize("method", ["exit", "segfault", "close_descriptors", "stop_the_loop"])
def test_a_worker_that_its_own_code_ends_is_replaced_and_the_call_is_not_made_again(server, method):
    since, worker = server.mark(), server.worker_of(0)
    reply = server.call("Hostile", method, method)
    answered = reply.status == 200
    if answered:  # a loop that is stopped ends its round first, in which a quick disk syncs
        assert method == "stop_the_loop"
    else:
        problem = reply.json()
        assert (reply.status, problem["name"], problem["applied"]) == (503, "ActorUnavailable", "unknown"), reply
    server.wait_log(RESTARTED, since=since)
    server.wait_ready()
    assert server.result("Hostile", method, "sum") in ((1,) if answered else (0, 1)), "wholly there or wholly absent"
    others_are_as_they_were(server)
    assert server.worker_of(0) != worker
    assert len(server.wait_log(RESTARTED, since=since)) == 1, "it was made again"


@pytest.mark.parametrize("method", ["late_fault", "thread_that_stays"])
def test_what_does_no_harm_by_itself_counts_once_and_changes_nothing_for_others(server, method):
    arguments = [1] if method == "thread_that_stays" else []
    server.call("Hostile", method, method, *arguments)
    assert server.result("Hostile", method, "sum") == 1
    assert server.result("Hostile", method, "add") == 2
    others_are_as_they_were(server)


def test_asyncio_that_was_patched_away_is_met_by_that_code_alone(server):
    server.call("Hostile", "patch", "patch_asyncio")
    assert server.result("Hostile", "patch", "sum") == 1
    reply = server.call("Hostile", "waits", "spin_politely")
    assert reply.status in (500, 504), "the user's own code meets what the user patched"
    assert server.result("Hostile", "waits", "sum") == 0
    since = server.mark()
    server.kill_child(server.worker_of(0))  # the next test gets an unpatched worker
    server.wait_log(RESTARTED, since=since)
    others_are_as_they_were(server)


def test_a_write_after_the_turn_by_task_or_thread_does_not_reach_storage(server, tmp_path):
    go = tmp_path / "go"
    os.mkfifo(go)
    server.result("Hostile", "thread", "thread_that_writes", str(go))
    server.result("Hostile", "task", "task_that_writes")
    go.write_bytes(b"x")
    kept: list[str] = []
    while len(kept) < 2:
        kept = server.result("Hostile", "keeper", "kept")
    assert "written" not in kept, kept
    assert server.result("Hostile", "thread", "sum") == 1
    assert server.result("Hostile", "task", "sum") == 1


def test_a_hostile_neighbour_does_not_hurt_a_call_that_waits_its_turn(server):
    """Queued behind the call that ends the worker: it had not begun, so it is made, once, by the successor."""
    before = server.result("Hostile", "queued", "add")
    with ThreadPoolExecutor(9) as pool:
        ends = pool.submit(server.call, "Hostile", "queued", "exit")
        adds = [pool.submit(server.call, "Hostile", "queued", "add") for _ in range(8)]
        replies = [add.result() for add in adds]
    assert ends.result().json()["applied"] == "unknown"
    done = [reply.json() for reply in replies if reply.status == 200]
    unknown = [reply for reply in replies if reply.status != 200]
    assert all(reply.json()["applied"] in ("no", "unknown") for reply in unknown)
    assert len(done) == len(set(done)), "two calls saw the same sum"
    total = server.result("Hostile", "queued", "sum")
    perhaps = 1 + sum(reply.json()["applied"] == "unknown" for reply in unknown)
    assert before + len(done) <= total <= before + len(done) + perhaps
