"""What the simulation has found, as tests of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from actord import StatefulActor

from tests.support import harness, virtual_time
from tests.support.harness import Core, steps


class Keeper(StatefulActor):
    kept: Any = None

    async def keep(self) -> None:
        type(self).kept = asyncio.current_task()

    async def hello(self) -> str:
        return "hello"


def test_a_call_that_arrives_as_the_pump_is_cancelled_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that kept its task cancels it while it is parked; the frame behind that must not be lost."""

    async def main() -> None:
        core = Core(Keeper)
        await core.value("a", "keep")
        await steps()
        Keeper.kept.cancel()
        assert await core.value("b", "hello") == "hello"
        assert await core.value("c", "hello") == "hello"

    virtual_time.run(harness.stop_all_after(main()), monkeypatch)
