"""The audit itself: each lie that it has to find."""

from __future__ import annotations

import pytest

from tests.history.audit import audit
from tests.history.recorder import History, Operation


def deposit(mark, outcome, number=0):
    return Operation(0, "a", "deposit", (mark, 5), 0, 1, outcome, {"number": number})


def run(marks, count=None, total=None):
    history = History([deposit("m1", "ok", 1), deposit("m2", "unknown"), deposit("m3", "no")])
    count = len(marks) if count is None else count
    total = 5 * len(marks) if total is None else total
    return audit(history, {"a": {"marks": marks, "count": count, "total": total}})


def test_the_truth_passes_whether_the_unknown_one_is_there_or_not():
    assert run({"m1": [1, 5]}) == []
    assert run({"m1": [1, 5], "m2": [2, 5]}) == []


@pytest.mark.parametrize(
    ("marks", "count", "total", "words"),
    [
        ({}, None, None, "acknowledged and is gone"),
        ({"m1": [2, 5], "m2": [1, 5]}, None, None, "number 1 was acknowledged"),
        ({"m1": [1, 5], "m3": [2, 5]}, None, None, "answered `applied: no`"),
        ({"m1": [1, 5], "m9": [2, 5]}, None, None, "nobody asked"),
        ({"m1": [1, 5]}, 2, 10, "the count is 2"),
        ({"m1": [1, 5], "m2": [1, 5]}, None, None, "twice [1]"),
        ({"m1": [1, 5]}, None, 10, "the sum is 10"),
        ({"m1": [1, 4]}, None, 4, "with 4 instead of 5"),
    ],
)
def test_every_lie_is_found(marks, count, total, words):
    assert any(words in line for line in run(marks, count, total))


def test_an_answer_that_no_promise_allows_for_is_wrong():
    history = History(surprises=["418"])
    assert audit(history, {}) == ["418"]
