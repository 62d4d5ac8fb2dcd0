"""Large values come and go in memory that the process has."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys

import psutil
import pytest
from actord.shards.allocator import Resident

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")

# Page faults of a hundred times four values of 1 MB, after some that set the heap up.
FAULTS = """
import resource
from actord.shards.allocator import give_back, keep_freed
if {keep}:
    keep_freed()

def churn(times):
    for _ in range(times):
        values = [b"x" * 1_000_000 for _ in range(4)]
        del values

churn(3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
churn(100)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
give_back()
churn(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool, **environment: str) -> list[int]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS.format(keep=keep)]
    done = subprocess.run(command, env=own | environment, capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


def test_freed_values_of_a_megabyte_cost_no_new_pages() -> None:
    kept, _ = faults(True)
    assert kept < 1_000
    assert faults(False)[0] > 20 * 1_000  # what it is there for; without this the test would show nothing


def test_what_is_kept_can_be_given_back_to_the_system() -> None:
    kept, with_new_pages = faults(True)
    assert with_new_pages - kept > 500


def test_who_has_set_the_allocators_variables_has_decided() -> None:
    assert faults(True, MALLOC_TRIM_THRESHOLD_="131072")[0] > 20 * 1_000


def test_the_resident_memory_is_that_of_this_moment() -> None:
    resident = Resident()
    before = resident()
    assert abs(before - psutil.Process().memory_info().rss) < 4 << 20
    with mmap.mmap(-1, 64 << 20) as pages:
        assert resident() < before + (32 << 20), "nothing is in them"
        for at in range(0, len(pages), mmap.PAGESIZE):
            pages[at] = 1
        assert resident() > before + (60 << 20)
    assert resident() < before + (32 << 20)
