"""What a power cut may leave of a store, by replay of every operation: see ``powercut``."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest
from actord.errors import ActordError
from actord.storage.flush import open_flusher

from tests.faults import powercut, store_workload
from tests.support.lots import LONG

pytestmark = pytest.mark.skipif(bool(powercut.unavailable()), reason=powercut.unavailable())

WORKLOAD = os.path.join(os.path.dirname(__file__), "store_workload.py")
SEED = 20_240_601
# Those before belong to the creation of the database. A successor finds the commits of 14 and 20, not that of 17.
FAILED_SYNCS = range(14, 22) if LONG else (14, 17, 20)
POINTS = 2000 if LONG else 150


@pytest.fixture
def scratch() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=powercut.scratch_parent()) as directory:
        yield directory


def workload(data: str, *arguments: object) -> list[str]:
    return [sys.executable, WORKLOAD, data, *map(str, arguments)]


class Audit:
    """Is all that was acknowledged there, and nothing but whole batches?"""

    def __init__(self, log: powercut.Log) -> None:
        sends = [event for event in log.events if isinstance(event, powercut.Send)]
        self.acknowledged = [int(line) for send in sends for line in send.data.split()]
        self.models = [dict(model) for _, model in store_workload.models(max(self.acknowledged) + 6)]
        self.commits: set[int] = set()

    @staticmethod
    def acks(send: powercut.Send) -> int:
        return send.data.count(b"\n")

    def check(self, directory: str, state: powercut.State) -> str | None:
        durable = max(self.acknowledged[: state.ack_count], default=0)
        try:
            store = store_workload.open_store(directory)
        except ActordError as error:
            return f"can't be opened: {error}"
        try:
            seq = store.commit_seq
            self.commits.add(seq)
            if seq < durable:
                return f"ends at commit {seq}, but {durable} was acknowledged"
            found = {
                (actor, key): value
                for actor in range(1, store_workload.ACTORS + 1)
                for key, value in store.scan(actor)[0]
            }
            if found != self.models[seq]:
                return f"does not hold what it should at commit {seq}"
            for actor in range(1, min(seq, store_workload.ACTORS) + 1):
                if store.find_actor(actor * 7, "Account", f"name-{actor}") != actor:
                    return f"does not know actor {actor} at commit {seq}"
            store.write(store_workload.batch(seq + 1))  # it works on
        except ActordError as error:
            return f"can't be read: {error}"
        finally:
            store.abandon()
        return None


def replay(
    log: powercut.Log, scratch: str, most: int, kinds: tuple[str, ...] = powercut.KINDS
) -> tuple[int, list[str]]:
    audit = Audit(log)
    points = powercut.points_of(log, SEED, most)
    found = powercut.states(log, SEED, acks=audit.acks, points=points, kinds=kinds)
    total, wrong = powercut.audit(found, audit.check, scratch=scratch)
    assert len(audit.commits) > 1 or wrong, "the states have to differ"
    return total, wrong


async def _open_kernel_flusher() -> None:
    open_flusher(asyncio.get_running_loop(), "kernel", bool).close()


@pytest.mark.parametrize("sync", ["right", "kernel"])
def test_no_power_cut_loses_or_tears_an_acknowledged_batch(sync, tmp_path, scratch):
    if sync == "kernel":
        try:
            asyncio.run(_open_kernel_flusher())
        except OSError as error:
            pytest.skip(f"no asynchronous fdatasync here: {error}")
    log = powercut.record(workload(str(tmp_path), sync, 10), str(tmp_path))
    assert log.returncode == 0
    audit = Audit(log)
    assert audit.acknowledged == list(range(1, 37))
    total, wrong = replay(log, scratch, most=POINTS)
    assert wrong == []
    assert total > min(POINTS, 600)


@pytest.mark.parametrize("bug", ["no-sync", "ack-first"])
def test_the_replay_catches_a_reply_without_its_sync(bug, tmp_path, scratch):
    log = powercut.record(workload(str(tmp_path), bug, 12), str(tmp_path))
    assert log.returncode == 0
    total, wrong = replay(log, scratch, most=60, kinds=("dropped", "torn"))
    lost = [line for line in wrong if "was acknowledged" in line]
    assert len(lost) > total // 20, (total, wrong)


def record_failed_sync(data: str, successor: str, number: int) -> powercut.Log:
    """One trace over two processes: the first dies of a failed fsync, which leaves pages that count as clean."""
    os.mkdir(data)
    script = f'"$0" "$1" {data} right 8; "$0" "$1" {data} {successor}'
    argv = ["sh", "-c", script, sys.executable, WORKLOAD]
    # strace counts calls per thread: these are the first thread's, of the store's own syncs and of SQLite's.
    log = powercut.record(argv, data, inject=[f"fdatasync:error=EIO:when={number}"])
    assert any(isinstance(event, powercut.Sync) and event.failed for event in log.events)
    assert log.returncode == 0
    return log


def serves_an_unacknowledged_commit(log: powercut.Log) -> bool:
    *before, served = Audit(log).acknowledged
    return served > max(before, default=0)


def test_after_a_failed_sync_the_successor_serves_only_what_a_power_cut_keeps(tmp_path, scratch):
    resurrected = 0
    for number in FAILED_SYNCS:
        log = record_failed_sync(str(tmp_path / str(number)), "serve", number)
        resurrected += serves_an_unacknowledged_commit(log)
        total, wrong = replay(log, scratch, most=60)
        assert total > 20
        assert wrong == [], f"the failed fdatasync was number {number}"
    assert resurrected > 0, "no successor found the commit whose sync had failed: this test proved nothing"


def test_the_replay_catches_a_recovery_that_trusts_what_it_reads(tmp_path, scratch):
    for number in FAILED_SYNCS:
        log = record_failed_sync(str(tmp_path / str(number)), "no-rewrite", number)
        if serves_an_unacknowledged_commit(log):
            _, wrong = replay(log, scratch, most=60)
            if any("was acknowledged" in line for line in wrong):
                return
    pytest.fail("the bug was not caught at any of the failed syncs")


def test_kill_9_leaves_every_acknowledged_batch(tmp_path):
    """The recovery of a real process's real files, without the model of a disk."""
    process = subprocess.Popen(workload(str(tmp_path), "right", 10_000), stdout=subprocess.PIPE)
    assert process.stdout is not None
    acknowledged = 0
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged >= 60:
            process.kill()
            break
    rest = process.stdout.read().split(b"\n")
    process.wait(timeout=30)
    acknowledged = max([acknowledged, *(int(line) for line in rest[:-1] if line)])
    store = store_workload.open_store(str(tmp_path))
    try:
        assert store.commit_seq >= acknowledged
        *_, (seq, model) = store_workload.models(store.commit_seq)
        assert seq == store.commit_seq
        found = {
            (actor, key): value for actor in range(1, store_workload.ACTORS + 1) for key, value in store.scan(actor)[0]
        }
        assert found == model
    finally:
        store.abandon()
