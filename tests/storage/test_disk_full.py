"""Disk full, on a disk that is: a small tmpfs, and a limit on file sizes."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest
from actord.errors import StoreFull
from actord.storage.api import Batch
from actord.storage.ballast import Ballast

from tests.storage.stores import fill, open_store, put

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def full_store(disk: Path, **options):
    """A store that has just met a full disk, its ballast, and a file that takes the room of others."""
    (disk / "others").write_bytes(bytes(4 * MIB))
    ballast = Ballast(str(disk / "0000.ballast"), MIB)
    store = open_store(disk / "0000.db", ballast=ballast, checkpoint_wal=256 * 1024, **options)
    assert ballast.held
    with pytest.raises(StoreFull) as caught:
        fill(store)
    assert caught.value.applied == "no"
    return store, ballast


def test_a_full_disk_applies_nothing_and_reads_go_on(disk):
    store, ballast = full_store(disk)
    seq = store.commit_seq
    assert store.full
    assert not ballast.held
    assert store.read(1, f"fill-{seq - 1}") is not None
    assert store.read(1, f"fill-{seq}") is None
    with pytest.raises(StoreFull):
        put(store, {"more": bytes(65_536)})
    assert store.commit_seq == seq
    store.abandon()
    again = open_store(disk / "0000.db")
    assert again.commit_seq == seq
    assert len(again.scan(1)[0]) == seq
    again.abandon()


def test_writes_work_again_without_a_restart_as_soon_as_there_is_room(disk):
    store, ballast = full_store(disk)
    seq = store.commit_seq
    for _ in range(3):
        with pytest.raises(StoreFull):
            put(store, {"a": bytes(65_536)})
        store.maintain()
    (disk / "others").unlink()
    put(store, {"a": b"again"})
    store.sync()
    store.maintain()
    assert store.commit_seq == seq + 1
    assert store.read(1, "a") == b"again"
    assert not store.full
    assert ballast.held
    assert os.stat(ballast.path).st_blocks * 512 >= MIB
    store.close()


def test_deletions_work_on_a_full_disk_and_make_room(disk):
    store, _ = full_store(disk)
    store.maintain()
    last = store.commit_seq
    for number in range(last):
        put(store, {f"fill-{number}": None})
        store.sync()
        store.maintain()
    assert store.scan(1) == ([], True)
    put(store, {"a": bytes(65_536)})  # into the pages that were freed; the disk itself is as full as before
    store.sync()
    assert store.read(1, "a") == bytes(65_536)
    store.abandon()


def test_clearing_an_actor_is_a_deletion(disk):
    store, _ = full_store(disk)
    store.maintain()
    batch = Batch(store.commit_seq + 1)
    batch.cleared = {1}
    store.write(batch)
    assert store.scan(1) == ([], True)
    store.abandon()


def test_a_disk_without_any_room_at_the_start_serves_reads(disk):
    store, ballast = full_store(disk)
    seq = store.commit_seq
    store.abandon()
    with open(disk / "rest", "wb", buffering=0) as rest:
        try:
            while True:
                rest.write(bytes(4096))
        except OSError:
            pass
    again = open_store(disk / "0000.db", ballast=Ballast(ballast.path, MIB))
    assert again.full
    assert again.commit_seq == seq
    assert again.read(1, "fill-0") is not None
    with pytest.raises(StoreFull):
        put(again, {"a": bytes(65_536)})
    os.unlink(disk / "rest")
    os.unlink(disk / "others")
    put(again, {"a": b"again"})
    assert not again.full
    again.close()


def test_a_stop_on_a_full_disk_loses_nothing(disk):
    store, _ = full_store(disk)
    seq = store.commit_seq
    store.close()
    (disk / "others").unlink()
    again = open_store(disk / "0000.db")
    assert again.commit_seq == seq
    again.close()


def test_a_store_without_a_ballast_recovers_too(disk):
    store = open_store(disk / "0000.db", checkpoint_wal=256 * 1024)
    (disk / "others").write_bytes(bytes(6 * MIB))
    with pytest.raises(StoreFull):
        fill(store)
    (disk / "others").unlink()
    put(store, {"a": b"again"})
    store.sync()
    assert store.read(1, "a") == b"again"
    store.close()


def test_a_limit_on_file_sizes_counts_as_a_full_disk(tmp_path):
    store = open_store(tmp_path / "0000.db")
    put(store, {"a": b"1"})
    store.sync()
    with limited(64 * 1024), pytest.raises(StoreFull):
        fill(store, most=10)
    seq = store.commit_seq
    put(store, {"a": b"2"})
    assert store.commit_seq == seq + 1
    store.close()


@contextmanager
def limited(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_and_a_recovery_without_room_leave_the_log_where_a_quota_is_the_limit(tmp_path):
    path = tmp_path / "0000.db"
    store = open_store(path, ballast=Ballast(str(tmp_path / "0000.ballast"), 4096))
    put(store, {"large": bytes(400_000)})
    store.sync()
    store._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
    put(store, {"more": b"v" * 20_000})
    store.sync()
    with limited(200_000):  # room for the log, and not for the end of the database
        store._checkpoint_wanted = True
        store.maintain()
        assert store.full
        assert store.read(1, "more") == b"v" * 20_000
        put(store, {"large": None})
        store.sync()
        store.abandon()
        store = open_store(path)
        assert store.read(1, "more") == b"v" * 20_000
        assert store.read(1, "large") is None
        store.close()
    store = open_store(path)
    assert store.read(1, "more") == b"v" * 20_000
    assert store.read(1, "large") is None
    store.close()


def test_the_ballast_is_real_blocks_and_given_back_whole(disk):
    before = os.statvfs(disk).f_bavail
    ballast = Ballast(str(disk / "b"), 3 * MIB)
    assert ballast.hold()
    assert before - os.statvfs(disk).f_bavail >= 3 * MIB // 4096
    assert ballast.hold(), "what is held stays held"
    assert ballast.release()
    assert not ballast.release()
    assert os.statvfs(disk).f_bavail >= before - 1


def test_a_ballast_that_does_not_fit_takes_nothing(disk):
    before = os.statvfs(disk).f_bavail
    ballast = Ballast(str(disk / "b"), 64 * MIB)
    assert not ballast.has_room()
    assert not ballast.hold()
    assert not ballast.held
    assert os.statvfs(disk).f_bavail >= before - 1
