"""Who changed data by hand: ``audit.jsonl`` in the data directory, one JSON object a line.

1. The line is on the disk before the change is made. So a change without a line can't be; a line without a change can,
   when the server died in between or the change failed: then a line with ``failed`` follows, if there was time for it.
2. Nothing here reads it. It may be moved away or deleted at any time; the next line makes a new one.
3. A line that a crash cut off does not spoil the next one.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any

from actord.errors import StorageError
from actord.storage.files import FILE_MODE, fsync_path

NAME = "audit.jsonl"


def record(data_dir: str, entry: dict[str, Any]) -> None:
    """Append ``entry`` with the time; returns when it is on the disk. Raises ``StorageError``."""
    path = os.path.join(data_dir, NAME)
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = json.dumps({"at": now, **entry}).encode() + b"\n"
    try:
        new = not os.path.lexists(path)
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = b"\n" + line
            if os.write(fd, line) != len(line):
                raise OSError("the disk is full")
            os.fsync(fd)
        finally:
            os.close(fd)
        if new:
            fsync_path(data_dir)
    except OSError as error:
        raise StorageError(f"{path} can't be written, so nothing was changed: {error}.") from error
