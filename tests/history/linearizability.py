"""Is there an order of the operations on one actor that explains every answer and respects real time?

The search of Wing and Gong with Lowe's memoisation: operations are put one after the other; one may come next when no
other one that is not yet put had returned before it was called. A pair (operations put, state) that failed once is not
tried again. An operation whose outcome is unknown may come at any time after its call, or never.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

from tests.history.recorder import Operation

# (state, operation) -> the state behind it, or None when the operation's answer could not have been given there.
Model = Callable[[Hashable, Operation], tuple[Hashable] | None]


def linearizable(operations: Sequence[Operation], model: Model, initial: Hashable) -> bool:
    """Whether the history of one key can be explained. Those answered ``no`` have not happened."""
    history = sorted((op for op in operations if op.outcome != "no"), key=lambda op: op.called)
    certain = sum(1 << index for index, op in enumerate(history) if op.outcome == "ok")
    seen: set[tuple[int, Hashable]] = set()
    stack: list[tuple[int, Hashable]] = [(0, initial)]
    while stack:
        put, state = stack.pop()
        if put & certain == certain:
            return True
        # In the order of calls: the first return among those not yet put ends the list of candidates.
        earliest = math.inf
        index = _first_zero(put)
        while index < len(history) and history[index].called <= earliest:
            op = history[index]
            if not put >> index & 1:
                earliest = min(earliest, op.returned)
                following = model(state, op)
                if following is not None:
                    entry = (put | 1 << index, following[0])
                    if entry not in seen:
                        seen.add(entry)
                        stack.append(entry)
            index += 1
    return False


def _first_zero(bits: int) -> int:
    return (~bits & (bits + 1)).bit_length() - 1


def register(state: Hashable, op: Operation) -> tuple[Hashable] | None:
    """``read()``, ``write(value)`` and ``swap(old, new) -> bool`` on one value."""
    if op.method == "read":
        return (state,) if op.outcome == "unknown" or op.value == state else None
    if op.method == "write":
        return (op.arguments[0],)
    fits = state == op.arguments[0]
    if op.outcome == "ok" and op.value is not fits:
        return None
    return (op.arguments[1],) if fits else (state,)


def counter(state: Hashable, op: Operation) -> tuple[Hashable] | None:
    """``add(n)`` answers the sum behind it."""
    assert isinstance(state, int)
    following = state + op.arguments[0]
    return (following,) if op.outcome == "unknown" or op.value == following else None


def ledger(state: Hashable, op: Operation) -> tuple[Hashable] | None:
    """``deposit(mark, amount)`` answers its number and the sum behind it."""
    assert isinstance(state, tuple)
    number, total = state[0] + 1, state[1] + op.arguments[1]
    if op.outcome == "ok" and (op.value["number"], op.value["total"]) != (number, total):
        return None
    return ((number, total),)


def settled(operations: Sequence[Operation], marks: dict[str, Any]) -> list[Operation]:
    """Deposits of which the end tells what nobody was told: the unknown ones were carried out, or they were not.

    ``marks``: mark -> number and amount, as they stand at the end. Keeps the search short after many faults.
    """
    found = []
    sums = {0: 0}
    for number, amount in sorted(marks.values()):
        sums[number] = sums.get(number - 1, 0) + amount
    for op in operations:
        if op.outcome == "unknown":
            if op.arguments[0] not in marks:
                continue
            number = marks[op.arguments[0]][0]
            op = replace(op, outcome="ok", returned=math.inf, value={"number": number, "total": sums[number]})
        found.append(op)
    return found


def register_linearizable(operations: Sequence[Operation]) -> bool:
    """``linearizable`` for ``register`` over many faults: first as if what nobody saw the effect of never happened.

    That is one of the ways in which an unknown operation may have ended, so a Yes is a Yes; only a No asks again.
    """
    seen = {op.value for op in operations if op.outcome == "ok" and op.method == "read"}
    seen |= {op.arguments[0] for op in operations if op.outcome == "ok" and op.method == "swap" and op.value}
    likely = [op for op in operations if op.outcome != "unknown" or (op.arguments and op.arguments[-1] in seen)]
    return linearizable(likely, register, 0) or linearizable(operations, register, 0)
