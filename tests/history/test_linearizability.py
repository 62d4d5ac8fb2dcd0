"""The checker itself: histories whose answer is known, and a brute force beside it."""

from __future__ import annotations

import itertools
import math
from time import monotonic

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.history.linearizability import counter, linearizable, register
from tests.history.recorder import Operation


def op(method, arguments, called, returned, value=None):
    outcome = "unknown" if returned == math.inf else "ok"
    return Operation(0, "x", method, arguments, called, returned, outcome, value)


def test_answers_in_the_order_of_time_are_explained():
    assert linearizable([op("write", (1,), 0, 1), op("read", (), 2, 3, 1)], register, 0)


def test_a_read_of_what_was_overwritten_before_it_began_is_found():
    stale = [op("write", (1,), 0, 1), op("write", (2,), 2, 3), op("read", (), 4, 5, 1)]
    assert not linearizable(stale, register, 0)


def test_overlapping_writes_may_take_either_order():
    for seen in (1, 2):
        assert linearizable([op("write", (1,), 0, 3), op("write", (2,), 1, 4), op("read", (), 5, 6, seen)], register, 0)


def test_two_reads_can_not_see_two_orders():
    history = [
        op("write", (1,), 0, 9),
        op("write", (2,), 0, 9),
        op("read", (), 1, 2, 1),
        op("read", (), 3, 4, 2),
        op("read", (), 5, 6, 1),
    ]
    assert not linearizable(history, register, 0)


def test_an_unknown_write_may_come_late_or_never():
    lost = op("write", (7,), 0, math.inf)
    assert linearizable([lost, op("read", (), 1, 2, 0), op("read", (), 3, 4, 7)], register, 0)
    assert linearizable([lost, op("read", (), 1, 2, 0), op("read", (), 3, 4, 0)], register, 0)
    assert not linearizable([lost, op("read", (), 1, 2, 7), op("read", (), 3, 4, 0)], register, 0)


def test_a_lost_update_is_found():
    assert not linearizable([op("add", (1,), 0, 1, 1), op("add", (1,), 2, 3, 1)], counter, 0)


def test_one_swap_wins():
    both = [op("swap", (0, 1), 0, 5, True), op("swap", (0, 2), 0, 5, True)]
    assert not linearizable(both, register, 0)
    both[1].value = False
    assert linearizable(both, register, 0)


def test_ten_thousand_operations_are_checked_quickly():
    history = []
    for number in range(10_000):
        history.append(op("add", (1,), number, number + 4.5, number + 1))
    started = monotonic()
    assert linearizable(history, counter, 0)
    assert monotonic() - started < 30


moments = st.integers(0, 6)
operations = st.builds(
    lambda method, value, start, length, unknown: Operation(
        0,
        "x",
        method,
        (value,) if method == "write" else (),
        start,
        math.inf if unknown else start + length + 0.5,
        "unknown" if unknown else "ok",
        value if method == "read" else None,
    ),
    st.sampled_from(["read", "write"]),
    st.integers(0, 2),
    moments,
    st.integers(0, 3),
    st.booleans(),
)


def brute_force(history):
    """Every order of every choice of the unknown ones."""
    certain = [op for op in history if op.outcome == "ok"]
    unknown = [op for op in history if op.outcome == "unknown"]
    for size in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, size):
            for order in itertools.permutations([*certain, *chosen]):
                if any(b.returned < a.called for i, a in enumerate(order) for b in order[i + 1 :]):
                    continue
                state = (0,)
                for op_ in order:
                    state = state and register(state[0], op_)
                if state:
                    return True
    return False


@settings(max_examples=150, deadline=None)
@given(st.lists(operations, max_size=5))
def test_the_search_agrees_with_trying_every_order(history):
    assert linearizable(history, register, 0) == brute_force(history)
