"""The history of a run: what each client asked for, when, and what it was told.

Kept in memory and, when ``History.keep`` was called, as JSON lines while it happens, so that a run which dies itself
leaves its history: one line ``invoke`` for each call, and one ``return`` with ``applied`` for each answer. ``load``
reads such a file again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Literal, TextIO

from tests.support.client import PATIENCE_SECONDS, Client, Lost, NotSent
from tests.support.server import Reply

Outcome = Literal["ok", "no", "unknown"]
APPLIED = {"ok": "yes", "no": "no", "unknown": "unknown"}
RECONNECT_SECONDS = 0.01


@dataclass
class Operation:
    """One call. ``ok``: carried out, with ``value``. ``no``: certainly not. ``unknown``: perhaps, at any time since."""

    client: int
    key: str
    method: str
    arguments: tuple[Any, ...]
    called: float
    returned: float = math.inf
    outcome: Outcome = "unknown"
    value: Any = None
    type: str = "Ledger"


@dataclass
class History:
    """All the operations of a run, and the surprises: answers that no promise allows for."""

    operations: list[Operation] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    count: int = 0  # of successes
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _file: TextIO | None = None
    _numbers: Any = field(default_factory=itertools.count)

    def keep(self, path: Path) -> History:
        """Write every invocation and every return to ``path`` from now on."""
        self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115  (lives as long as the run)
        return self

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _line(self, **entry: Any) -> None:
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")

    async def call(self, client: int, connection: Client, type_: str, key: str, method: str, *args: Any) -> Operation:
        """Make one call and record it. Waits until somebody listens, since what was not sent has not happened."""
        number = next(self._numbers)
        while True:
            operation = Operation(client, key, method, args, monotonic(), type=type_)
            self._line(
                event="invoke",
                id=number,
                time=operation.called,
                client=client,
                type=type_,
                key=key,
                method=method,
                arguments=args,
            )
            try:
                reply = await connection.call(type_, key, method, *args)
            except NotSent:
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            except Lost:
                reply = None
            break
        if reply is not None:
            self._judge(operation, reply)
        self.operations.append(operation)
        self._line(
            event="return", id=number, time=monotonic(), applied=APPLIED[operation.outcome], value=operation.value
        )
        return operation

    def _judge(self, operation: Operation, reply: Reply) -> None:
        operation.returned = monotonic()
        if reply.status == 200:
            operation.outcome, operation.value = "ok", reply.json()
            self.count += 1
            self._more.set()
            return
        applied = reply.json().get("applied")
        if applied == "no":
            operation.outcome = "no"
        elif applied == "unknown":
            operation.returned = math.inf
        if applied not in ("no", "unknown") or reply.status not in (500, 503, 507):
            self.surprises.append(f"{reply.status} {reply.body!r}")

    async def successes(self, more: int) -> None:
        """Wait until ``more`` calls have succeeded from here on. TimeoutError when one of them takes too long."""
        wanted = self.count + more
        while self.count < wanted:
            self._more.clear()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._more.wait()

    def by_key(self) -> dict[str, list[Operation]]:
        found = defaultdict(list)
        for operation in self.operations:
            found[operation.key].append(operation)
        return dict(found)


async def deposits(history: History, port: int, keys: list[str], client: int, stop: asyncio.Event) -> None:
    """One client: deposits under marks of its own until it is told to stop."""
    connection = Client(port)
    try:
        for number in itertools.count():
            if stop.is_set():
                return
            key = keys[(client * 7 + number * 5) % len(keys)]
            await history.call(client, connection, "Ledger", key, "deposit", f"{client}-{number}", number % 50 + 1)
    finally:
        connection.close()


async def registers(history: History, port: int, keys: list[str], client: int, stop: asyncio.Event) -> None:
    """One client: reads, writes and compare-and-swaps of a few registers, with values that nobody else writes."""
    rng = random.Random(client)
    connection = Client(port)
    known = dict.fromkeys(keys, 0)
    try:
        for step in itertools.count():
            if stop.is_set():
                return
            key = rng.choice(keys)
            fresh = client * 1_000_000 + step + 1
            method = rng.choice(["read", "read", "write", "swap"])
            args = {"read": (), "write": (fresh,), "swap": (known[key], fresh)}[method]
            done = await history.call(client, connection, "Register", key, method, *args)
            if method == "read" and done.outcome == "ok":
                known[key] = done.value
    finally:
        connection.close()


def load(path: Path) -> History:
    """The history that ``History.keep`` wrote; what has no return line is of unknown outcome."""
    history = History()
    open_calls: dict[int, Operation] = {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] == "invoke":  # again for what was not sent: the last one counts
            open_calls[entry["id"]] = Operation(
                entry["client"],
                entry["key"],
                entry["method"],
                tuple(entry["arguments"]),
                entry["time"],
                type=entry["type"],
            )
            continue
        operation = open_calls.pop(entry["id"])
        if entry["applied"] != "unknown":
            operation.outcome = "ok" if entry["applied"] == "yes" else "no"
            operation.returned, operation.value = entry["time"], entry["value"]
        history.operations.append(operation)
    history.operations += open_calls.values()
    history.count = sum(operation.outcome == "ok" for operation in history.operations)
    return history
