"""A system call that fails while a shard is opened, at every place: an I/O error, never taken for damage."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults import powercut
from tests.storage.stores import open_store

pytestmark = pytest.mark.skipif(bool(powercut.unavailable()), reason=powercut.unavailable())

# Opens a store and says what came of it.
OPEN = """
import sys
from actord.errors import ActordError
sys.path.insert(0, sys.argv[2])
from tests.storage.stores import open_store
try:
    store = open_store(sys.argv[1])
except ActordError as error:
    print(type(error).__name__, error)
else:
    print("opened at", store.commit_seq)
"""
MAKE = """
import os, sys
sys.path.insert(0, sys.argv[2])
from tests.storage.stores import open_store, put
store = open_store(sys.argv[1])
for number in range(20):
    put(store, {f"k{number}": bytes(2000)})
    store.sync()
os._exit(0)
"""
ROOT = str(Path(__file__).parents[2])


def opened(path: Path, call: str, number: int) -> str:
    files = [word for ending in ("", "-wal", ".lock") for word in ("-P", f"{path}{ending}")]
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", f"{path}.trace", *files, "-e", f"trace={call}"]
    fault = ["-e", f"inject={call}:error=EIO:when={number}"]
    done = subprocess.run(
        [*strace, *fault, sys.executable, "-c", OPEN, str(path), ROOT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout if "INJECTED" in Path(f"{path}.trace").read_text() else ""


@pytest.mark.parametrize("call", ["pread64", "openat"])
def test_a_call_that_fails_while_a_shard_is_opened_is_not_taken_for_damage(call, tmp_path):
    made = tmp_path / "made" / "0000.db"
    made.parent.mkdir()
    subprocess.run([sys.executable, "-c", MAKE, str(made), ROOT], check=True)

    def at(number: int) -> str:
        path = tmp_path / str(number) / "0000.db"
        shutil.copytree(made.parent, path.parent)
        said = opened(path, call, number)
        store = open_store(path)
        assert store.commit_seq == 20, "without a fault it opens"
        store.abandon()
        return said

    with ThreadPoolExecutor(2) as pool:
        said = [line for line in pool.map(at, range(1, 15 if call == "pread64" else 9)) if line]
    assert any(line.startswith("StoreBroken") for line in said), said
    wrong = [line for line in said if not line.startswith(("StoreBroken", "DataDirError", "opened at 20"))]
    assert wrong == []
