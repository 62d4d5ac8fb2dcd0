"""A disk that fills up under a running server: 507 and the truth, reads go on, and it comes back by itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server, until

MIB = 1024 * 1024
DISK = 24 * MIB
SETTINGS = {
    "server.workers": 1,
    "storage.shards": 1,
    "storage.ballast": MIB,
    "storage.checkpoint_wal": MIB // 2,
}
EXPECTED = (r"the disk is full",)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, small enough to be filled."""
    where = tmp_path / "disk"
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "tmpfs", str(where)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting a tmpfs needs root and more: {done.stderr.strip()}")
    yield where
    subprocess.run(["umount", str(where)], check=True)


@pytest.fixture
def server(disk: Path) -> Iterator[Server]:
    with Server("probe.py", disk / "data", settings=SETTINGS) as server:
        yield server


def fill(disk: Path) -> Path:
    """Take all the room that is left."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (256 * 1024, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return filler


def put_until_full(server: Server, name: str, size: int = 200_000) -> tuple[int, dict]:
    """Write until the first refusal; how many writes succeeded, and the refusal."""
    for number in range(2 * DISK // size):
        reply = server.call("Probe", name, "put_big", f"big-{number}", size)
        if reply.status != 200:
            assert reply.status == 507, reply
            assert reply.headers["content-type"] == "application/problem+json"
            assert "retry-after" in reply.headers
            return number, reply.json()
    raise AssertionError("the disk never became full")


def test_writes_are_refused_with_the_truth_while_reads_go_on_and_come_back_with_room(server, disk):
    worker = server.worker_of(0)
    server.result("Probe", "small", "add", 5)
    filler = fill(disk)
    written, problem = put_until_full(server, "big")
    assert (problem["name"], problem["applied"]) == ("ActorOutputGateError", "no")
    assert server.result("Probe", "big", "keys") == sorted(f"big-{n}" for n in range(written))
    assert server.result("Probe", "small", "get", "sum") == 5
    refused = server.call("Probe", "small", "add", 1)
    assert (refused.status, refused.json()["applied"]) == (507, "no")
    assert server.result("Probe", "small", "get", "sum") == 5, "the instance forgot what was refused"
    os.unlink(filler)
    until(lambda: server.call("Probe", "small", "add", 1).status == 200, "writes to work again")
    assert server.result("Probe", "small", "get", "sum") == 6
    assert server.worker_of(0) == worker, "without a restart"
    assert server.unexpected(*EXPECTED) == []
    # All that was acknowledged is there, also after a crash.
    server.kill()
    server.start()
    assert server.result("Probe", "small", "get", "sum") == 6
    for number in range(written):
        assert server.result("Probe", "big", "size", f"big-{number}") == 200_000
    assert server.result("Probe", "big", "size", f"big-{written}") == 0


def test_deletions_free_a_full_disk_from_within(server, disk):
    worker = server.worker_of(0)
    written, _ = put_until_full(server, "big")
    assert written > 40
    server.result("Probe", "big", "delete", "big-0")
    for number in range(1, written):
        assert server.result("Probe", "big", "delete", f"big-{number}") is True
    until(lambda: server.call("Probe", "small", "add", 1).status == 200, "writes to work again")
    assert server.result("Probe", "big", "keys") == []
    for number in range(written // 4):
        assert server.call("Probe", "big", "put_big", f"new-{number}", 200_000).status == 200
    assert server.worker_of(0) == worker
    assert server.unexpected(*EXPECTED) == []
    assert server.stop() == 0
    server.start()
    assert server.result("Probe", "small", "get", "sum") == 1
    assert len(server.result("Probe", "big", "keys")) == written // 4


def test_a_server_that_is_killed_on_a_full_disk_starts_again_and_reads(server, disk):
    server.result("Probe", "small", "add", 5)
    fill(disk)
    written, _ = put_until_full(server, "big", 40_000)
    server.kill()
    server.start()
    assert server.result("Probe", "small", "get", "sum") == 5
    assert len(server.result("Probe", "big", "keys")) == written
    os.unlink(disk / "filler")
    until(lambda: server.call("Probe", "small", "add", 1).status == 200, "writes to work again")
    assert server.result("Probe", "small", "get", "sum") == 6
