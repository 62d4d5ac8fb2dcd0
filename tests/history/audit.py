"""The audit that ends every system run: is what was said about every call true, and is the server well?

1. A deposit that was answered is there once, under the number that the answer gave.
2. One that was answered ``applied: no`` is not there.
3. One whose outcome is unknown is there whole or not at all; nothing else is there, the numbers run from 1 to the
   count, and the sum is that of the amounts.
4. One order of the calls on an actor explains all of its answers.
5. The files of the stopped server are sound: checksums, ``integrity_check``, commit numbers (``offline.py``).
6. The service is healthy again: ready, and a call succeeds.
7. No line of level error stands in the log that the fault does not explain.
8. At least a stated number of calls succeeded during the fault.
"""

from __future__ import annotations

from typing import Any

from tests.history.linearizability import ledger, linearizable, register, settled
from tests.history.offline import audit_files
from tests.history.recorder import History, Operation
from tests.support.server import Server

Statement = dict[str, Any]


def audit(history: History, statements: dict[str, Statement]) -> list[str]:
    """What is wrong, a sentence each. ``statements``: by key, with all marks."""
    wrong = list(history.surprises)
    deposits: dict[str, dict[str, Operation]] = {key: {} for key in statements}
    orders: dict[str, list[Operation]] = {}
    for operation in history.operations:
        if operation.type == "Ledger":
            deposits[operation.key][operation.arguments[0]] = operation
        else:
            orders.setdefault(operation.key, []).append(operation)
    for key, statement in statements.items():
        found = audit_ledger(key, statement, deposits[key])
        if not found and not linearizable(settled(list(deposits[key].values()), statement["marks"]), ledger, (0, 0)):
            found = [f"{key}: no order explains what was answered about it"]
        wrong += found
    for key, operations in orders.items():
        if not linearizable(operations, register, 0):
            wrong.append(f"{key}: no order explains what was answered about it")
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


def audit_run(
    history: History,
    server: Server,
    keys: list[str],
    *,
    least: int,
    expected: tuple[str, ...] = (),
    since: int = 0,
    floors: dict[int, int] | None = None,
) -> list[str]:
    """All eight points; the server is stopped for the fifth and runs again afterwards.

    ``least``: successes that the run has to have had. ``expected``: what the log may say at level error from line
    ``since`` on. ``floors``: commit numbers of earlier audits of the same directory.
    """
    wrong = []
    server.wait_ready()
    wrong += audit_server(history, server, keys)
    if history.count < least:
        wrong.append(f"only {history.count} calls succeeded, not {least}")
    wrong += [f"in the log: {record['message']}" for record in server.unexpected(*expected, since=since)]
    if (code := server.stop()) != 0:
        wrong.append(f"the server ended with exit code {code}")
    wrong += audit_files(server.data_dir, floors)
    server.start()
    server.wait_ready()
    wrong += [f"after a clean restart: {line}" for line in audit_server(history, server, keys) if line not in wrong]
    return wrong
