"""I/O errors that the kernel reports, injected with strace into a real process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import powercut
from tests.storage.stores import ROOT, open_store, put

pytestmark = pytest.mark.skipif(bool(powercut.unavailable()), reason=powercut.unavailable())

PROGRAM = """
import sys
from actord.errors import ActordError
from tests.faults import powercut
from tests.storage.stores import open_store, put
store = open_store(sys.argv[1], checkpoint_wal=1)

def attempt(name, call):
    try:
        call()
        print(name, "ok")
    except ActordError as error:
        print(name, type(error).__name__, error.applied)

for round in (1, 2):
    attempt("write", lambda: put(store, {"a": b"new"}))
    attempt("sync", store.sync)
    attempt("maintain", store.maintain)
attempt("read", lambda: store.read(1, "a"))
attempt("close", store.close)
store.abandon()
"""


def run(tmp_path: Path, file: str, fault: str) -> list[str]:
    path = tmp_path / "0000.db"
    store = open_store(path)
    put(store, {"a": b"old"})
    store.close()
    command = ["strace", "-f", "-o", str(tmp_path / "trace"), "-P", str(path) + file, "-e", f"inject={fault}"]
    done = subprocess.run(
        [*command, sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "INJECTED" in (tmp_path / "trace").read_text()
    return done.stdout.splitlines()


BROKEN = "StoreBroken unknown"


def test_a_failed_sync_breaks_the_store_for_good(tmp_path):
    # The first fdatasync of the log is SQLite's own, of the new log's header.
    lines = run(tmp_path, "-wal", "fdatasync:error=EIO:when=2")
    assert lines[:2] == ["write ok", f"sync {BROKEN}"]
    assert all(line.endswith(BROKEN) for line in lines[2:])


def test_a_failed_write_to_the_log_breaks_the_store(tmp_path):
    lines = run(tmp_path, "-wal", "pwrite64:error=EIO:when=3+")
    assert all(line.endswith(BROKEN) for line in lines)
    again = open_store(tmp_path / "0000.db")
    assert (again.commit_seq, again.read(1, "a")) == (1, b"old")
    again.abandon()


@pytest.mark.parametrize("fault", ["pwrite64:error=EIO", "fdatasync:error=EIO"])
def test_a_failed_checkpoint_breaks_the_store_and_loses_nothing(tmp_path, fault):
    lines = run(tmp_path, "", fault)
    assert lines[:3] == ["write ok", "sync ok", f"maintain {BROKEN}"]
    assert all(line.endswith(BROKEN) for line in lines[3:])
    assert not (tmp_path / "0000.db.clean").exists()
    again = open_store(tmp_path / "0000.db")
    assert (again.commit_seq, again.read(1, "a")) == (2, b"new")
    again.abandon()


def test_no_room_in_a_sync_is_no_full_disk_but_a_failure(tmp_path):
    """Delayed allocation may fail that late: nothing is certain then."""
    lines = run(tmp_path, "-wal", "fdatasync:error=ENOSPC:when=2")
    assert lines[:2] == ["write ok", f"sync {BROKEN}"]


def test_no_room_in_a_write_is_a_full_disk(tmp_path):
    lines = run(tmp_path, "-wal", "pwrite64:error=ENOSPC:when=3")
    assert lines[0] == "write StoreFull no"
    assert lines[3:5] == ["write ok", "sync ok"]
    assert lines[-1] == "close ok"
