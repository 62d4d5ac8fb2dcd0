"""What holds for all tests: sources are compiled once, and reports that any process can be told.

The tests start some thousand interpreters. Each of them finds our modules compiled, also where PYTHONDONTWRITEBYTECODE
is set; the environment stays as it is, so programs that a test writes and changes are read anew.
"""

from __future__ import annotations

import compileall
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
COMPILED = ("sdk", "server", "shards", "storage", "configs", "loadtest", "tests/support")

sys.dont_write_bytecode = False  # pytest keeps the test modules' assertions as it has rewritten them


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # before xdist starts its workers
        for folder in COMPILED:
            compileall.compile_dir(ROOT / folder, quiet=2)


def _printable(value: Any) -> Any:
    """The same with every lone surrogate escaped: what runs the tests in several processes sends text as UTF-8."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_printable(entry) for entry in value)
    return value


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable(
    config: pytest.Config, report: pytest.CollectReport | pytest.TestReport
) -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
    return _printable((yield))
