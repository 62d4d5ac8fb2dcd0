"""What `actord rm` has removed: ``trash/`` in the data directory, one file of an export for each actor.

A file is on the disk before its actor is removed. A server removes those that are older than ``storage.trash_age``.
"""

from __future__ import annotations

import os
import re
import secrets
import time

from actord.storage.files import DIR_MODE, fsync_path, replace_file

NAME = "trash"
_FILE = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}\.jsonl")


def keep(data_dir: str, content: bytes) -> str:
    """Write a file; durable when it returns. Its path. Raises OSError."""
    folder = os.path.join(data_dir, NAME)
    owner = os.stat(data_dir)
    if not os.path.isdir(folder):
        os.mkdir(folder, DIR_MODE)
        _give(folder, owner)
        fsync_path(data_dir)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = os.path.join(folder, f"{stamp}-{secrets.token_hex(4)}.jsonl")
    replace_file(path, content)
    _give(path, owner)
    return path


def _give(path: str, owner: os.stat_result) -> None:
    """What root makes here belongs to the server's user, who has to remove it one day."""
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def expire(data_dir: str, seconds: float, now: float | None = None) -> int:
    """Remove the files that are older than that. How many they were."""
    folder = os.path.join(data_dir, NAME)
    now = time.time() if now is None else now
    count = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _FILE.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < now - seconds:
                    os.unlink(entry.path)
                    count += 1
    except OSError:  # there is none, or it is somebody else's
        pass
    return count
