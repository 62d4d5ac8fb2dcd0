"""I/O errors and kills at the k-th call of a system call, on a live server: see ``armed``. ``make proof`` runs all."""

from __future__ import annotations

from time import monotonic

import pytest

from tests.faults import armed

pytestmark = pytest.mark.skipif(bool(armed.unavailable()), reason=armed.unavailable())


def run(tmp_path, series, most, flush="thread"):
    chain = armed.Chain(tmp_path, flush=flush)
    return chain.run(series, 1, until_=monotonic() + 120, clock=monotonic, most=most)


def chosen(series, **first):
    """Some series, each from a point in the middle of a life on."""
    found = {one.name: one for one in series}
    for name, number in first.items():
        found[name.replace("_", " ")].number = number
    return [found[name.replace("_", " ")] for name in first]


def test_an_io_error_at_any_call_is_answered_with_the_truth_and_survived(tmp_path):
    series = armed.io_errors("thread")
    some = [one for one in series if one.name.startswith(("fdatasync", "pwrite64", "openat EIO", "ftruncate", "pread"))]
    for one, number in zip(some, (5, 20, 1, 12, 2, 4, 6, 0), strict=True):
        one.number = number
    outcome = run(tmp_path, some, len(some))
    assert outcome.wrong == []
    assert outcome.fired >= len(some) - 3, outcome


def test_where_the_kernel_takes_no_sync_it_is_done_here_and_nothing_fails(tmp_path):
    outcome = run(tmp_path, armed.io_errors("kernel")[:2], 2, "kernel")
    assert outcome.wrong == []
    assert outcome.fired == 2
    assert outcome.kills == 2, "both lives went on serving until the test killed them"


def test_a_kill_at_any_named_point_loses_nothing(tmp_path):
    series = [one for one in armed.kill_points() if one.name != "before the ballast is taken"]
    for one, number in zip(series, (9, 3, 1, 0, 0, 5, 0, 0, 4, 8), strict=True):
        one.number = number
    outcome = run(tmp_path, series, len(series))
    assert outcome.wrong == []
    assert outcome.fired >= len(series) - 3, outcome
