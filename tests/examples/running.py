"""Serving an example, many clients at once, and examples with a clock that the test holds."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from actord import AlarmInfo, StatefulActor

from tests.support.client import Client
from tests.support.server import Reply, Server

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
ONE_WORKER = {"server.workers": 1}


def changed(folder: Path, example: str, body: str) -> tuple[Path, dict[str, str]]:
    """A program that imports an example and changes something: its path, and the environment that it needs."""
    program = folder / f"changed_{example}.py"
    program.write_text(f"from {example} import *\n\n{body}")
    return program, {
        "PYTHONPATH": os.pathsep.join([str(EXAMPLES), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    }


@contextmanager
def serving(folder: Path, example: str, body: str) -> Iterator[Server]:
    """A server of a changed example, for a whole module: its tests use names of their own."""
    program, environment = changed(folder, example, body)
    with Server(program, folder / "data", settings=ONE_WORKER, environment=environment) as server:
        yield server


def at_once(port: int, clients: int, type_: str, name: str, method: str, *args: Any, calls: int = 1) -> list[Reply]:
    """So many clients, each on its own connection, each making so many calls one after the other."""

    async def one(client: Client) -> Sequence[Reply]:
        try:
            return [await client.call(type_, name, method, *args) for _ in range(calls)]
        finally:
            client.close()

    async def all_of_them() -> list[Reply]:
        answers = await asyncio.gather(*(one(Client(port)) for _ in range(clients)))
        return [reply for replies in answers for reply in replies]

    return asyncio.run(all_of_them())


class Alone:
    """One actor without a server, with a clock in the test's hand. Its alarm rings when the clock passes it.

    It is its own context and storage: as much of both as the examples with alarms use.
    """

    id = "alone"

    def __init__(self, class_: type[StatefulActor], monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
        self.rings: datetime | None = None
        self.storage = self
        self._values: dict[str, Any] = {}
        self.actor: Any = class_(self, None)  # type: ignore[arg-type]
        monkeypatch.setattr(self.actor, "_now", lambda: self.now)

    async def get(self, key: str, default: Any = None) -> Any:
        return copy.deepcopy(self._values.get(key, default))

    async def put(self, key: str, value: Any) -> None:
        self._values[key] = copy.deepcopy(value)

    async def set_alarm(self, when: datetime) -> None:
        self.rings = when

    async def delete_alarm(self) -> None:
        self.rings = None

    def do(self, call: Awaitable[Any]) -> Any:
        """The result of one call of the actor."""

        async def turn() -> Any:
            return await call

        return asyncio.run(turn())

    def advance(self, **time: float) -> int:
        """Let time pass; returns how often the alarm has rung."""
        end, rung = self.now + timedelta(**time), 0
        while self.rings is not None and self.rings <= end:
            self.now, self.rings = max(self.now, self.rings), None
            self.do(self.actor.alarm(AlarmInfo(self.now)))
            rung += 1
            assert rung < 1_000, "the alarm keeps ringing"
        self.now = end
        return rung
