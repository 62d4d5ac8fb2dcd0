"""A data directory on which no server runs, held so that none starts: for those that only read it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from actord.errors import DataDirError, DataDirLocked
from actord.storage import datadir
from actord.storage.backup import Standing


@contextmanager
def kept_out(real: str, advice: str) -> Iterator[None]:
    """Keep servers out; without a lock file (a copy need not have one) there is nobody to keep out.

    Raises ``DataDirLocked``, whose words end with ``advice``.
    """
    path = os.path.join(real, "lock")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        yield
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 256, 0).decode(errors="replace").strip()
            raise DataDirLocked(f"A server uses {real} ({holder or 'unknown process'}). {advice}") from None
        yield
    finally:
        os.close(fd)


class StoppedSource:
    """Everything that is there, as a ``storage.backup.Source``, within ``kept_out``."""

    def __init__(self, real: str) -> None:
        manifest = datadir.read_manifest(real)
        if os.path.lexists(os.path.join(real, datadir.RESHARD_NAME)):
            raise DataDirError(f"{real} is on its way to another number of shards: run `actord reshard` again first.")
        self.path = real
        self.identity = manifest.identity
        self.moment = time.time_ns() // 1_000_000
        self.shards = [Standing(number) for number in range(manifest.shards)]

    def keep(self) -> None:
        pass

    def end(self) -> None:
        pass
