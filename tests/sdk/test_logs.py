"""Logs: lines that nobody can forge, objects that every collector can read."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from actord import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def logged(format: Literal["text", "json"], *args: Any, level: str = "info", **kwargs: Any) -> str:
    stream = io.StringIO()
    logs.configure(level, format, process="worker-1", stream=stream)
    logging.getLogger("actord.test").log(kwargs.pop("at", logging.INFO), *args, **kwargs)
    return stream.getvalue()


def test_a_line_says_when_what_and_who() -> None:
    line = logged("text", "started %d", 3, extra={"key": "Account/alice", "note": "two words"})
    assert line.endswith(" INFO    worker-1 started 3 key=Account/alice note='two words'\n")


def test_what_comes_from_outside_can_not_forge_a_line() -> None:
    text = logged("text", "called %s", "a\n2026-01-01 INFO forged\x1b[31m\r", extra={"key": "b\n2026 forged"})
    lines = text.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("    ")
    assert "\x1b" not in text
    assert "\\x1b[31m\\r" in text
    assert "b\\n2026 forged" in text


def test_json_is_one_object_a_line() -> None:
    text = logged("json", "called %s", "a\nb", extra={"key": "Account/alice", "count": 3})
    assert text.count("\n") == 1
    entry = json.loads(text)
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "info",
        "process": "worker-1",
        "logger": "actord.test",
        "message": "called a\nb",
        "key": "Account/alice",
        "count": 3,
    }


@pytest.mark.parametrize("value", [object(), 1 << 80, "\ud800", {1: 2}, b"\xff", {"a", "b"}])
def test_json_takes_every_value(value: object) -> None:
    assert json.loads(logged("json", "x", extra={"value": value}))["message"] == "x"
    assert json.loads(logged("json", "%s", value))["level"] == "info"


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_traceback_is_kept(format: Literal["text", "json"]) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        text = logged(format, "failed", exc_info=True)
    assert "ValueError: broken" in text
    if format == "json":
        assert "Traceback" in json.loads(text)["traceback"]


def test_what_is_below_the_level_is_left_out() -> None:
    assert logged("text", "quiet", level="warning") == ""
    assert logged("text", "quiet", level="debug", at=logging.DEBUG) != ""
