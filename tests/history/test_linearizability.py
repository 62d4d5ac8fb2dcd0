"""The checker itself: histories whose answer is known, and a brute force beside it."""

from __future__ import annotations

import itertools
import math
import random
from time import monotonic

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.history.linearizability import counter, linearizable, register
from tests.history.recorder import Operation
from tests.support.lots import cases


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


def under_many_faults(faults, calls):
    """A register's true history by five clients; of each fault three calls are left without an answer, done or not."""
    rng = random.Random(1)
    history, state, now = [], 0, 0.0
    for number in range(faults * calls):
        lost = number % calls < 3
        method = rng.choice(["read", "write", "swap"])
        value = number + 1
        arguments = {"read": (), "write": (value,), "swap": (state if rng.random() < 0.5 else -1, value)}[method]
        begun, answer = now, None
        now += rng.random()
        if not (lost and rng.random() < 0.5):
            answer = {"read": state, "write": None, "swap": method == "swap" and state == arguments[0]}[method]
            state = value if method == "write" or answer is True else state
        history.append(op(method, arguments, begun - 4 * rng.random(), math.inf if lost else now, answer))
    return history


def test_unknown_outcomes_do_not_multiply_the_time_of_a_yes_nor_of_a_no():
    """24 of them: a search over which of them happened would never end."""
    history = under_many_faults(8, 40)
    assert sum(op.outcome == "unknown" for op in history) == 24
    assert linearizable(history, register, 0)
    for place in (-1, len(history) // 2):  # a stale read, at the end and in the middle
        answered = [op_ for op_ in history if op_.outcome == "ok"]
        written = next(op_.arguments[0] for op_ in answered if op_.method == "write")
        at = answered[place].returned + 0.01
        stale = op("read", (), at, at + 0.01, written)
        assert not linearizable([*history, stale], register, 0)


def test_a_refused_swap_may_be_the_only_trace_of_a_write():
    lost = op("write", (7,), 0, math.inf)
    refused = op("swap", (0, 1), 1, 2, False)
    assert linearizable([lost, refused, op("write", (2,), 3, 4), op("read", (), 5, 6, 2)], register, 0)
    assert not linearizable([refused, op("write", (2,), 3, 4), op("read", (), 5, 6, 2)], register, 0)
    assert not linearizable([lost, refused, op("read", (), 3, 4, 0)], register, 0)


moments = st.integers(0, 6)
operations = st.builds(
    lambda method, value, other, yes, start, length, unknown: Operation(
        0,
        "x",
        method,
        {"read": (), "write": (value,), "swap": (other, value)}[method],
        start,
        math.inf if unknown else start + length + 0.5,
        "unknown" if unknown else "ok",
        None if unknown else {"read": value, "write": None, "swap": yes}[method],
    ),
    st.sampled_from(["read", "write", "swap"]),
    st.integers(0, 2),
    st.integers(0, 2),
    st.booleans(),
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


@settings(max_examples=cases(150), deadline=None)
@given(st.lists(operations, max_size=5))
def test_the_search_agrees_with_trying_every_order(history):
    assert linearizable(history, register, 0) == brute_force(history)
