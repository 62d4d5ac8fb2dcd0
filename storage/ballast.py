"""Room that is kept for the day on which the disk is full.

When a disk is full even a deletion fails in SQLite, and so does a checkpoint: nothing can free room any more. The
ballast is a file of real blocks that is let go at that moment, so that deletions and checkpoints work again.

1. ``hold`` returns True only when the blocks were reserved, or written, and synced.
2. ``release`` gives them back; it needs no room to do so.
3. ``has_room`` asks for more than the ballast itself, so that taking it back can't fill the disk again.
"""

from __future__ import annotations

import contextlib
import errno
import os

import apsw
from actord.storage.files import FILE_MODE, fsync_dir_of, write_all

_CHUNK_BYTES = 1024 * 1024
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(conn: apsw.Connection, error: apsw.Error) -> bool:
    """Did what just failed on ``conn`` fail for want of room?"""
    if isinstance(error, apsw.FullError):
        return True
    # SQLite knows ENOSPC alone; a quota and a limit on file sizes are a failed write to it, before the commit.
    return (
        isinstance(error, apsw.IOError)
        and getattr(error, "extendedresult", None) == apsw.SQLITE_IOERR_WRITE
        and conn.system_errno in FULL_ERRNOS
    )


class Ballast:
    """A file at ``path`` of ``size`` bytes (at least 1). One for each shard."""

    def __init__(self, path: str, size: int) -> None:
        if size < 1:
            raise ValueError(f"a ballast of {size} bytes")
        self.path = path
        self.size = size
        self.margin = max(size // 4, 256 * 1024)
        self.held = False

    def hold(self) -> bool:
        """Take the room. False when there is none; other errors are raised as OSError."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            state = os.fstat(fd)
            if state.st_size == self.size and state.st_blocks * 512 >= self.size:
                self.held = True
                return True
            os.ftruncate(fd, 0)
            self._allocate(fd)
            os.fsync(fd)
            self.held = True
        except OSError as error:
            if error.errno not in FULL_ERRNOS:
                raise
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
            self.held = False
        finally:
            os.close(fd)
        if self.held:
            fsync_dir_of(self.path)
        return self.held

    def _allocate(self, fd: int) -> None:
        try:
            os.posix_fallocate(fd, 0, self.size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
        if os.fstat(fd).st_blocks * 512 >= self.size:
            return
        # A file system that can't reserve, or stores zeros as nothing: what can't be compressed has to be stored.
        for start in range(0, self.size, _CHUNK_BYTES):
            write_all(fd, os.urandom(min(_CHUNK_BYTES, self.size - start)))

    def release(self) -> bool:
        """Give the room back. False when it was not held."""
        if not self.held:
            return False
        self.held = False
        os.truncate(self.path, 0)
        return True

    def has_room(self) -> bool:
        """Is there room for the ballast and its margin?"""
        state = os.statvfs(os.path.dirname(self.path) or ".")
        return state.f_bavail * state.f_frsize >= self.size + self.margin
