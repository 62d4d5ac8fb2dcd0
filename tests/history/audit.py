"""The audit of a ledger after a run: is what was said about every deposit true?

1. A deposit that was answered is there once, under the number that the answer gave.
2. One that was answered ``applied: no`` is not there.
3. One whose outcome is unknown is there whole or not at all.
4. Nothing else is there; the numbers run from 1 to the count, and the sum is that of the amounts.
"""

from __future__ import annotations

from typing import Any

from tests.history.recorder import History, Operation
from tests.support.server import Server

Statement = dict[str, Any]


def audit(history: History, statements: dict[str, Statement]) -> list[str]:
    """What is wrong, a sentence each. ``statements``: by key, with all marks."""
    wrong = list(history.surprises)
    deposits: dict[str, dict[str, Operation]] = {key: {} for key in statements}
    for operation in history.operations:
        deposits[operation.key][operation.arguments[0]] = operation
    for key, statement in statements.items():
        wrong += audit_ledger(key, statement, deposits[key])
    return wrong


def audit_ledger(key: str, statement: Statement, deposits: dict[str, Operation]) -> list[str]:
    wrong = []
    marks = statement["marks"]
    for mark, (number, amount) in marks.items():
        operation = deposits.get(mark)
        if operation is None:
            wrong.append(f"{key}: {mark} is there, but nobody asked for it")
        elif operation.outcome == "no":
            wrong.append(f"{key}: {mark} is there, but was answered `applied: no`")
        elif amount != operation.arguments[1]:
            wrong.append(f"{key}: {mark} is there with {amount} instead of {operation.arguments[1]}")
        elif operation.outcome == "ok" and number != operation.value["number"]:
            wrong.append(f"{key}: {mark} is number {number}, but number {operation.value['number']} was acknowledged")
    wrong += [
        f"{key}: {mark} was acknowledged and is gone"
        for mark, operation in deposits.items()
        if operation.outcome == "ok" and mark not in marks
    ]
    numbers = sorted(number for number, _ in marks.values())
    if numbers != list(range(1, statement["count"] + 1)):
        wrong.append(f"{key}: the count is {statement['count']}, but the numbers are {_gaps(numbers)}")
    total = sum(amount for _, amount in marks.values())
    if total != statement["total"]:
        wrong.append(f"{key}: the sum is {statement['total']}, but the deposits make {total}")
    return wrong


def _gaps(numbers: list[int]) -> str:
    missing = sorted(set(range(1, (numbers or [0])[-1] + 1)) - set(numbers))
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    return f"{len(numbers)}, the last one {(numbers or [0])[-1]}, missing {missing[:5]}, twice {twice[:5]}"


def statement_of(server: Server, key: str) -> Statement:
    """A ledger with all of its marks, read page by page."""
    whole = server.result("Ledger", key, "statement")
    page = whole["marks"]
    while len(page) == 1000:
        page = server.result("Ledger", key, "statement", max(page))["marks"]
        whole["marks"].update(page)
    return whole


def audit_server(history: History, server: Server, keys: list[str]) -> list[str]:
    """The audit, through the server's own front."""
    return audit(history, {key: statement_of(server, key) for key in keys})
