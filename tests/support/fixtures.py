"""Fixtures for tests that need a real server; a folder's conftest.py takes them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fifo import Fifo
from tests.support.server import Server

Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers, by default on the test's own data directory; all of them end with the test."""
    servers = []

    def start(program: str | Path = "ledger.py", *, data_dir: Path | None = None, **options: Any) -> Server:
        server = Server(program, data_dir or tmp_path / "data", **options)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    """A named pipe from an actor to the test."""
    made = Fifo(tmp_path / "fifo")
    yield made
    made.close()
