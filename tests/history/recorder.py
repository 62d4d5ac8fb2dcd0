"""The history of a run: what each client asked for, when, and what it was told."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal

from tests.support.client import PATIENCE_SECONDS, Client, Lost, NotSent

Outcome = Literal["ok", "no", "unknown"]
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


@dataclass
class History:
    """All the operations of a run, and the surprises: answers that no promise allows for."""

    operations: list[Operation] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    count: int = 0  # of successes
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, client: int, connection: Client, type_: str, key: str, method: str, *args: Any) -> Operation:
        """Make one call and record it. Waits until somebody listens, since what was not sent has not happened."""
        while True:
            operation = Operation(client, key, method, args, monotonic())
            try:
                reply = await connection.call(type_, key, method, *args)
            except NotSent:
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            except Lost:
                self.operations.append(operation)
                return operation
            break
        operation.returned = monotonic()
        if reply.status == 200:
            operation.outcome, operation.value = "ok", reply.json()
            self.count += 1
            self._more.set()
        else:
            problem = reply.json()
            if problem.get("applied") == "no":
                operation.outcome = "no"
            elif problem.get("applied") == "unknown":
                operation.returned = math.inf
            else:
                self.surprises.append(f"{reply.status} {reply.body!r}")
            if reply.status not in (500, 503, 507):
                self.surprises.append(f"{reply.status} {reply.body!r}")
        self.operations.append(operation)
        return operation

    async def successes(self, more: int) -> None:
        """Wait until ``more`` calls have succeeded from here on."""
        wanted = self.count + more
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.count < wanted:
                self._more.clear()
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
