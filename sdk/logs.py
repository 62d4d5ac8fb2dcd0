"""One way of logging for every process of a server: lines of text for people, or JSON objects for collectors.

1. In JSON one record is one line. In text the further lines of a message are indented, and a traceback follows on
   lines of its own; control characters that come from outside, such as in an actor's name, are escaped.
2. Values given by ``extra={...}`` appear as fields: ``key=value`` in text, members in JSON.
3. Everything goes to standard error. Standard output is for data.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OWN = ("time", "level", "process", "logger", "message", "traceback")
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {10: "\\n", 13: "\\r", 9: "\\t"}
_MESSAGE_ESCAPES = _ESCAPES | {10: "\n    "}
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31;1m", "DEBUG": "\x1b[2m"}


def configure(
    level: str = "info",
    format: Literal["text", "json"] = "text",
    *,
    process: str = "",
    stream: TextIO | None = None,
    context: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Send the records of this process to ``stream`` (standard error), at ``level`` and above.

    ``process`` is the name that the records carry, as in ``worker-1``. ``context`` is asked with each JSON record for
    further fields, as they are at that moment. May be called again: the last call counts.
    """
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        JsonFormatter(process, context) if format == "json" else TextFormatter(process, stream.isatty())
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class TextFormatter(logging.Formatter):
    """``12:30:01.123 WARNING worker-1 message key=value``; the date stands before the time unless it is a terminal."""

    def __init__(self, process: str, terminal: bool = False) -> None:
        super().__init__()
        self._process = process
        self._terminal = terminal

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created)
        time = when.strftime("%H:%M:%S" if self._terminal else "%Y-%m-%d %H:%M:%S") + f".{when.microsecond // 1000:03}"
        level = f"{record.levelname:<7}"
        if self._terminal and record.levelname in _COLOURS:
            level = f"{_COLOURS[record.levelname]}{level}\x1b[0m"
        fields = "".join(f" {key}={_plain(value)}" for key, value in _extra(record).items())
        line = f"{time} {level} {self._process} {record.getMessage().translate(_MESSAGE_ESCAPES)}{fields}"
        trace = _traceback(self, record)
        return f"{line}\n{trace}" if trace else line


class JsonFormatter(logging.Formatter):
    """One object a line: ``time`` (UTC, RFC 3339), ``level``, ``process``, ``logger``, ``message``, then the fields."""

    def __init__(self, process: str, context: Callable[[], dict[str, Any]] = dict) -> None:
        super().__init__()
        self._process = process
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage().encode(errors="replace").decode(),
        }
        for key, value in _extra(record).items():
            entry.setdefault(key, value)
        for key, value in self._context().items():
            entry.setdefault(key, value)
        trace = _traceback(self, record)
        if trace:
            entry["traceback"] = trace
        try:
            return _dumps(entry)
        except (TypeError, ValueError):  # a lone surrogate, an int of any size
            return _dumps({key: value if key in _OWN else repr(value) for key, value in entry.items()})


def _dumps(entry: dict[str, Any]) -> str:
    return orjson.dumps(entry, default=repr, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS).decode()


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _plain(value: object) -> str:
    text = str(value).translate(_ESCAPES)
    return f"'{text}'" if " " in text or not text else text


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)
