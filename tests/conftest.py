"""What holds for all tests: reports that any process can be told."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest


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
