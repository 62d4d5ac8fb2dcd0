"""Run with `pytest`: a real server on a free port, with data of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parent


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The address of the project's server; it stands on its standard output as soon as it is ready."""
    command = [sys.executable, "-m", "actord.server.cli", "serve", str(PROJECT)]
    command += ["--port", "0", "--workers", "1", "--data-dir", str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


def ask(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def test_a_counter_counts(url: str) -> None:
    assert ask(f"{url}/actors/Counter/alice/add", {"amount": 2}) == 2
    assert ask(f"{url}/actors/Counter/alice/add", {}) == 3
    assert ask(f"{url}/count/alice") == {"name": "alice", "value": 3}
    assert ask(f"{url}/count/bob") == {"name": "bob", "value": 0}
