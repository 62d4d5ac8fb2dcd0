"""Tests that are coroutines run in virtual time, or on an ordinary loop when they are marked ``real_time``."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.shards.timers import timers, wall
from tests.support import harness, virtual_time
from tests.support.memory_store import MemoryStore

__all__ = ["timers", "wall"]  # fixtures


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_time: sockets are involved: the clock is the machine's")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = pyfuncitem._fixtureinfo.argnames
    main = harness.stop_all_after(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    if pyfuncitem.get_closest_marker("real_time"):
        asyncio.run(asyncio.wait_for(main, 30))
    else:
        with pytest.MonkeyPatch.context() as patch:
            virtual_time.run(main, patch)
    return True


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Promises that touch the disk hold for both."""
    if request.param == "memory":
        yield MemoryStore()
    else:
        with harness.open_sqlite(tmp_path) as real:
            yield real
