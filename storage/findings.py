"""What an examination of a data directory, and of the machine under it, found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

RESTORE = "Restore the data directory from a backup (`actord restore`)."

Progress = Callable[[str, float], None]


class Finding(msgspec.Struct, frozen=True):
    """``level``: "damage" when data is lost or at risk or a shard would not be served; "note" otherwise."""

    level: Literal["damage", "note"]
    file: str  # relative to the data directory
    what: str
    todo: str = ""


class Check(msgspec.Struct, frozen=True):
    """One look at the machine. ``level``: "problem" when data is at risk or the server can't work well; "note" for what
    is worth knowing. ``facts`` are its numbers, for programs; their names never change."""

    name: str
    level: Literal["ok", "note", "problem"]
    what: str
    todo: str = ""
    facts: dict[str, Any] = {}


class Report(msgspec.Struct):
    """``shards``, ``actors`` and ``rows`` are what was examined; ``rows`` counts every row that has a checksum."""

    path: str
    identity: str = ""
    shards: int = 0
    actors: int = 0
    rows: int = 0
    commits: dict[str, int] = {}  # by shard: the commit number that it stands at
    findings: list[Finding] = []

    @property
    def damaged(self) -> bool:
        return any(finding.level == "damage" for finding in self.findings)
