"""I/O errors and kills at the k-th call of a system call, on a live server: see ``armed``. ``make proof`` runs all."""

from __future__ import annotations

from time import monotonic

import pytest

from tests.faults import armed

pytestmark = pytest.mark.skipif(bool(armed.unavailable()), reason=armed.unavailable())


def run(tmp_path, series, most, flush="thread"):
    chain = armed.Chain(tmp_path, flush=flush)
    return chain.run(series, 1, until_=monotonic() + 120, clock=monotonic, most=most)


def test_an_io_error_at_any_call_is_answered_with_the_truth_and_survived(tmp_path):
    series = armed.io_errors("thread")
    some = [one for one in series if one.name.startswith(("fdatasync", "pwrite64", "ftruncate"))]
    for one, number in zip(some, (5, 20, 1, 12, 2, 0), strict=True):
        one.number = number
    outcome = run(tmp_path, some, len(some))
    assert outcome.wrong == []
    assert outcome.fired >= len(some) - 2, outcome


def test_where_the_kernel_takes_no_sync_it_is_done_here_and_nothing_fails(tmp_path):
    outcome = run(tmp_path, armed.io_errors("kernel")[:1], 1, "kernel")
    assert outcome.wrong == []
    assert outcome.fired == 1
    assert outcome.kills == 1, "it went on serving until the test killed it"


def test_a_kill_at_any_named_point_loses_nothing(tmp_path):
    points = {
        "before a write to the log": 9,
        "before a sync of the log": 3,
        "before a write of a checkpoint": 1,
        "before recovery's sync": 0,
        "before a reply leaves": 4,
    }
    series = [one for one in armed.kill_points() if one.name in points]
    for one in series:
        one.number = points[one.name]
    outcome = run(tmp_path, series, len(series))
    assert outcome.wrong == []
    assert outcome.fired >= len(series) - 2, outcome
