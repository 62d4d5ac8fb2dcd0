"""How the codec and the JSON writer name what they refuse: the path of the culprit, and why.

A path: ``$`` is the value itself, ``.name`` and ``["other key"]`` members of a dict, ``[3]`` an item of a list or tuple
or a key that is no str, ``{}`` some member of a set.
"""

from __future__ import annotations

import json
from typing import Any


class Refused(Exception):
    """What can't be encoded, and why. ``path`` collects the steps to it, from the culprit outwards."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str] = []

    def detail(self) -> str:
        steps = self.path[::-1]
        if len(steps) > 32:
            steps[16:-16] = [" … "]
        return f"${''.join(steps)}: {self.reason}"


def check_text(text: str) -> None:
    """Refuse what has no UTF-8."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Refused(f"a str with a lone surrogate at index {error.start}") from None


def path_step(key: Any) -> str:
    """The step of a path into a dict: ``.name``, ``["other key"]`` or ``[1]``."""
    if type(key) is str:
        if key.isidentifier() and key.isascii():
            return f".{_short(key)}"
        return f"[{_short(json.dumps(key, ensure_ascii=True))}]"
    if type(key) is int and key.bit_length() > 128:  # long ints have no str() by default
        return "[a long int]"
    return f"[{_short(repr(key))}]"


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:80] + "…"


def type_name(kind: type) -> str:
    """A type as messages call it."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
