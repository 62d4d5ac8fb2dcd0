"""The begun map of a link: a byte for each call that is open, set while its turn has begun.

Caller and worker share it as a file that both have mapped, so that what a worker had begun is known when it has died.
The worker sets a byte as a turn begins, the caller clears it when the call's id is free again.
"""

from __future__ import annotations

import contextlib
import mmap
import os

from actord.limits import BEGUN_BYTES


def make_map(path: str) -> mmap.mmap:
    """The caller's side, in a new file."""
    # Never the file of a caller that died: the worker may still hold calls of its that mark and unmark there.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, BEGUN_BYTES)
        return mmap.mmap(fd, BEGUN_BYTES)
    finally:
        os.close(fd)


def open_map(path: str) -> mmap.mmap:
    """The worker's side. Raises ``OSError``, and ``ValueError`` for a file that is too short."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return mmap.mmap(fd, BEGUN_BYTES)
    finally:
        os.close(fd)
