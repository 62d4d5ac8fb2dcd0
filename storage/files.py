"""Small file operations that survive a power cut, and the advisory lock. Nothing here knows what it stores.

``flock`` locks belong to an open file description, not to a process: closing another descriptor of the same file does
not drop them, unlike the POSIX locks that SQLite takes on its database. A lock file is a file of its own all the same,
and no code of ours opens and closes a database file while SQLite has it open.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from time import monotonic, sleep

FILE_MODE = 0o600
DIR_MODE = 0o700

_POLL_SECONDS = 0.01
_CONTENT_BYTES = 256


def fsync_path(path: str) -> None:
    """fsync a file or directory by its name. Never on a database that is open in this process (see above)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_dir_of(path: str) -> None:
    fsync_path(os.path.dirname(path) or ".")


def make_dirs(path: str) -> None:
    """Make a directory, and those above it that are missing, so that they stay. One that is there is left alone."""
    made = []
    while not os.path.isdir(path):
        made.append(path)
        path = os.path.dirname(path) or "."
    for each in reversed(made):
        os.makedirs(each, DIR_MODE, exist_ok=True)
        fsync_dir_of(each)


def replace_file(path: str, content: bytes) -> None:
    """Put ``content`` at ``path`` so that a power cut leaves the old file or the new one, never a mixture."""
    temporary = path + ".tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        write_all(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    fsync_dir_of(path)


def remove_file(path: str) -> None:
    """Remove a file so that it stays removed; a file that is not there is no error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        fsync_dir_of(path)


def write_all(fd: int, content: bytes | memoryview) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def is_symlink(path: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


class Locked(Exception):
    """Another process holds the lock. ``content`` is what it wrote into the lock file."""

    def __init__(self, path: str, content: str) -> None:
        super().__init__(path)
        self.path = path
        self.content = content


class FileLock:
    """An exclusive lock on a file of its own, held until ``release`` or the end of the process.

    The descriptor is close-on-exec: a child that is started by exec neither holds nor keeps the lock.
    ``wait``: seconds for which a holder is given time to die. Raises ``Locked``, or OSError.
    """

    def __init__(self, path: str, *, wait: float = 0.0) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        deadline = monotonic() + wait
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if monotonic() >= deadline:
                    content = self.read()
                    self.release()
                    raise Locked(path, content) from None
            except BaseException:
                self.release()
                raise
            sleep(_POLL_SECONDS)

    def read(self) -> str:
        return os.pread(self._fd, 4096, 0).decode("utf-8", "replace").strip()

    def write(self, content: str) -> None:
        """Replace the file's content, for readers of ``Locked`` and successors. At most 255 bytes.

        The block is overwritten in place, so that it works on a full disk once there was something.
        """
        line = content.encode()[: _CONTENT_BYTES - 1]
        os.pwrite(self._fd, line.ljust(_CONTENT_BYTES - 1) + b"\n", 0)
        os.fsync(self._fd)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
