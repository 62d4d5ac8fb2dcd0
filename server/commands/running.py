"""What the commands share that ask a running server and show what it answers."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from actord.server.config import resolve

if TYPE_CHECKING:
    from actord.server.admin import AdminClient


def place(app: str | None, data_dir: Path | None) -> str:
    """The data directory that is meant: the one that is named, else that of the program."""
    if data_dir is not None and app is None:
        return os.path.abspath(data_dir)
    flags = {("server", "data_dir"): None if data_dir is None else str(data_dir)}
    return resolve(app, flags=flags).server.data_dir


def client(app: str | None, data_dir: Path | None) -> AdminClient:
    """A line to the server on a data directory: the one that is named, else that of the program."""
    from actord.server.admin import AdminClient  # the event loop and the children, which no other command needs at once

    return AdminClient(place(app, data_dir))


def actor(type_: str, name: str) -> str:
    """``TYPE/NAME`` on one line, whatever the name holds."""
    return f"{type_}/{name if name.isprintable() else name.encode('unicode_escape').decode()}"


def utc(ms: int) -> str:
    """A time in milliseconds since the epoch, as ISO 8601 in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
