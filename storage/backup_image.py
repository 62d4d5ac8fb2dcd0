"""What a shard's database was at one commit: its file and the first frames of its log, read by another process.

1. The two files are only read. Whoever asks for an image sees to it that there is no checkpoint meanwhile: a pin in
   the process that serves them (``storage/pins.py``), or the lock of a directory that nobody serves.
2. An image stands at the commit that was asked for, or it is not made: every frame is checked, and the commit number
   is read through it.
3. Its bytes are those of the file that a checkpoint of exactly these frames would leave.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

import apsw
from actord.errors import DataDirError, StoreCorrupt
from actord.storage import recovery, schema, wal
from actord.storage.files import is_symlink
from actord.storage.view import open_view

_PAGE = schema.PAGE_BYTES


class Image:
    """The database of shard ``shard`` at ``path``; ``close`` it. ``size`` in bytes, ``commit_seq`` its commit.

    ``frames``: how many of its log belong to it; None takes all whole commits that are there.
    Raises ``StoreCorrupt``, ``DataDirError`` or OSError.
    """

    def __init__(self, path: str, *, shard: int, identity: str, frames: int | None = None) -> None:
        if is_symlink(path) or is_symlink(recovery.wal_path(path)):
            raise StoreCorrupt(f"{path} is a symbolic link. Put the file itself there.")
        log = wal.read_log(recovery.wal_path(path), _PAGE, upto=frames)
        if log.damage and frames is None:
            raise StoreCorrupt(f"The log of {path} is damaged: {log.damage}. See what `actord doctor` says.")
        if frames is not None and log.valid != frames:
            raise StoreCorrupt(f"The log of {path} has {log.valid} good frames where {frames} were written.")
        self._log = log
        with ExitStack() as stack:
            self._database = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            stack.callback(os.close, self._database)
            self._frames = -1
            if log.valid:
                self._frames = os.open(recovery.wal_path(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                stack.callback(os.close, self._frames)
            self._bytes = os.fstat(self._database).st_size
            self.pages = log.size or self._bytes // _PAGE
            self.size = self.pages * _PAGE
            self.commit_seq = self._check(path, shard, identity)
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def page(self, number: int) -> bytes:
        """Page ``number``, from 1."""
        frame = self._log.pages.get(number)
        if frame is None:
            return os.pread(self._database, _PAGE, (number - 1) * _PAGE)
        at = wal.HEADER_BYTES + (frame - 1) * (wal.FRAME_HEADER_BYTES + _PAGE)
        return os.pread(self._frames, _PAGE, at + wal.FRAME_HEADER_BYTES)

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes at ``offset``, both whole pages; fewer at the end. Raises ``StoreCorrupt`` when some lack."""
        size = min(size, self.size - offset)
        block = bytearray(os.pread(self._database, size, offset).ljust(size, b"\0"))
        first = offset // _PAGE + 1
        for number in range(first, first + size // _PAGE) if self._log.pages else ():
            if number in self._log.pages:
                at = (number - first) * _PAGE
                block[at : at + _PAGE] = self.page(number)
            elif number * _PAGE > self._bytes:
                raise StoreCorrupt(f"The database lacks page {number} of {self.pages}.")
        return bytes(block)

    def _check(self, path: str, shard: int, identity: str) -> int:
        try:
            conn = open_view(self.page, _PAGE, self.pages)
            try:
                return schema.check_meta(conn, shard=shard, identity=identity)
            except (StoreCorrupt, DataDirError) as error:
                raise type(error)(error.detail.replace(str(conn.filename), path)) from None
            finally:
                conn.close(True)
        except apsw.Error as error:
            raise StoreCorrupt(f"{path} can't be read: {error}. See what `actord doctor` says.") from error
