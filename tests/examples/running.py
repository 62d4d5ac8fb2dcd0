"""Serving an example, many clients at once, and examples with a clock that the test holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.client import Client
from tests.support.server import Reply

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
ONE_WORKER = {"server.workers": 1}


def changed(folder: Path, example: str, body: str) -> tuple[Path, dict[str, str]]:
    """A program that imports an example and changes something: its path, and the environment that it needs."""
    program = folder / f"changed_{example}.py"
    program.write_text(f"from {example} import *\n\n{body}")
    return program, {"PYTHONPATH": str(EXAMPLES)}


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
