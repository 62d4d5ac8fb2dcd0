"""The begun map of a link: a byte for each call that is open, set while its turn has begun.

Caller and worker share it as a file that both have mapped, so that what a worker had begun is known when it has died.
The worker sets a byte as a turn begins, the caller clears it when the call's id is free again.
"""

from __future__ import annotations

import mmap
import os

from actord.limits import BEGUN_BYTES


def make_map(path: str, calls: int = BEGUN_BYTES) -> mmap.mmap:
    """The side of whoever makes the file: the caller, or the worker for a client. It must not be there yet."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, calls)
        return mmap.mmap(fd, calls)
    finally:
        os.close(fd)


def open_map(path: str) -> mmap.mmap:
    """The worker's side. Raises ``OSError``, and ``ValueError`` for a file that is too short."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return mmap.mmap(fd, BEGUN_BYTES)
    finally:
        os.close(fd)
