"""What a data directory holds, looked at from outside: by another process, while a server uses it, or while none does.

1. Nothing is written, no lock is taken, nothing is asked of a server: it does not notice.
2. Of each shard one commit is seen, its newest whole one: it may be on its way to the disk still. Shards are looked at
   one after the other, so what is seen of two of them need not be of one moment.
3. What was read counts only if ``check`` says so afterwards: a checkpoint may have changed the files meanwhile. Then
   ``Moved`` is raised, and ``looked`` does all of it again.

How: the frames of the log that belong to its newest commit say where each page is that they have; the others are in the
database file. Frames only ever come behind those of before, until the log starts over, and then its header is another
one. A checkpoint writes pages of later frames into the database file, and that shows in its time of change; its clock
ticks in milliseconds, so a file that was changed just now is waited for.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

import apsw
from actord.errors import DataDirError, DataDirLocked, StoreCorrupt
from actord.storage import datadir, recovery, redo, schema, wal
from actord.storage.view import open_view, view_path

T = TypeVar("T")

_PAGE = schema.PAGE_BYTES
_TICK_NS = 20_000_000  # longer than a tick of any kernel's clock for files
_TRIES = 8
_CACHE_KIB = 65_536


class Moved(Exception):
    """The files changed while they were read."""


class _Files:
    """The files of one shard as they are now."""

    def __init__(self, path: str) -> None:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        self._wal = recovery.wal_path(path)
        self._log = -1
        with ExitStack() as stack:
            self._database = os.open(path, flags)
            stack.callback(os.close, self._database)
            with suppress(FileNotFoundError):
                self._log = os.open(self._wal, flags)
                stack.callback(os.close, self._log)
            self._state = self._quiet()
            log = wal.newest_commit(self._log, _PAGE) if self._log >= 0 else wal.Log()
            self._frames = log.pages
            self.pages = log.size or self._state[1] // _PAGE
            self.close = stack.pop_all().close

    def _quiet(self) -> tuple[Any, ...]:
        while True:
            now = time.time_ns()
            state = self._now()
            if not now - _TICK_NS < state[0] < now + _TICK_NS:
                return state
            time.sleep(_TICK_NS / 1e9)

    def _now(self) -> tuple[Any, ...]:
        found = os.fstat(self._database)
        log: tuple[Any, ...] = ()
        if self._log >= 0:
            log = (os.fstat(self._log).st_nlink, os.pread(self._log, wal.HEADER_BYTES, 0))
        elif os.path.exists(self._wal):
            log = (1,)
        return found.st_mtime_ns, found.st_size, found.st_nlink, *log

    def read(self, number: int) -> bytes:
        frame = self._frames.get(number)
        if frame is None:
            return os.pread(self._database, _PAGE, (number - 1) * _PAGE)
        at = wal.HEADER_BYTES + (frame - 1) * (wal.FRAME_HEADER_BYTES + _PAGE)
        return os.pread(self._log, _PAGE, at + wal.FRAME_HEADER_BYTES)

    def check(self) -> None:
        if self._now() != self._state:
            raise Moved


class Look:
    """Shards of a data directory on one read-only connection, ``conn``: shard 3 is its schema ``s3``.

    Keys and values are to be read from ``temp.s3_kv``: the newest are not in ``s3.kv`` yet.

    ``shards``: which ones; those that were never opened are left out. Close it.
    Raises ``Moved``, ``DataDirError``, ``StoreCorrupt``.
    """

    def __init__(self, path: str, shards: list[int] | None = None) -> None:
        self.manifest = datadir.read_manifest(path)
        if os.path.lexists(os.path.join(path, datadir.RESHARD_NAME)):
            raise DataDirError(
                f"{path} is on its way to another number of shards, and that was interrupted. Run `actord reshard` "
                "again: it goes on where it was."
            )
        self.shards: list[int] = []
        self.commits: dict[int, int] = {}
        self._files: dict[int, _Files] = {}
        self._stack = ExitStack()
        with self._stack:
            self.conn = open_view(lambda number: b"", _PAGE, 0)
            self._stack.callback(self.conn.close, True)
            wanted = range(self.manifest.shards) if shards is None else shards
            room = self.conn.limit(apsw.SQLITE_LIMIT_ATTACHED)
            if len(wanted) > room:
                raise DataDirError(f"{path} has {len(wanted)} shards; {room} can be looked at together: name one.")
            for number in wanted:
                self._attach(number, datadir.shard_paths(path, number)[0])
            self._stack = self._stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Look:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(self, shard: int, query: str, bindings: tuple[Any, ...] = ()) -> list[Any]:
        """All rows of a query in which ``{}`` stands for the shard's schema."""
        try:
            return self.conn.execute(query.format(f"s{shard}"), bindings).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            self.check()  # else it is damage
            raise StoreCorrupt(f"Shard {shard} is damaged: {error}. See what `actord doctor` says.") from error

    def check(self) -> None:
        """Raises ``Moved`` unless everything that was read so far is true."""
        for files in self._files.values():
            files.check()

    def _attach(self, number: int, path: str) -> None:
        try:
            files = _Files(path)
        except FileNotFoundError:
            if not os.path.exists(path + ".lock") or not os.path.getsize(path + ".lock"):
                return  # the first start makes it
            raise StoreCorrupt(f"{path} is missing. Restore it from a backup.") from None
        except OSError as error:
            raise DataDirError(f"{path} can't be read: {error}.") from error
        except struct.error:  # the log became shorter
            raise Moved from None
        self._stack.callback(files.close)
        self._files[number] = files
        if not files.pages:
            files.check()
            raise StoreCorrupt(f"{path} is empty. Restore it from a backup.")
        with view_path(files.read, _PAGE, files.pages) as name:
            self.rows(number, "ATTACH ? AS {}", (name,))
        room = max(1024, _CACHE_KIB // self.manifest.shards)
        self.rows(number, f"PRAGMA {{}}.cache_size = -{room}")
        rows = self.rows(number, "SELECT * FROM {}.meta")
        meta = {row[0]: row[1] for row in rows}
        identity, format_ = meta.get("identity"), meta.get("format")
        if type(format_) is int and format_ > schema.FORMAT:
            raise DataDirError(f"{path} has format {format_}, written by a newer actord. Run the newer version.")
        if identity != self.manifest.identity or meta.get("shard") != number:
            files.check()
            raise StoreCorrupt(f"{path} is not shard {number} of this data directory. See what `actord doctor` says.")
        if wrong := schema.bad_entries(rows):  # one of them says which of the newest values count
            files.check()
            raise StoreCorrupt(f"{path} is damaged: its entry {wrong} fails its check. See what `actord doctor` says.")
        try:
            newest = redo.behind(lambda query: self.rows(number, query), path)
        except StoreCorrupt:
            files.check()
            raise
        redo.overlay(self.conn, f"s{number}", newest.pending())
        self.shards.append(number)
        self.commits[number] = newest.seq

    def tables(self, shard: int) -> set[str]:
        return {row[0] for row in self.rows(shard, "SELECT name FROM {}.sqlite_schema WHERE type = 'table'")}


def looked(path: str, shards: list[int] | None, work: Callable[[Look], T]) -> T:
    """What ``work`` makes of a look that held; it is done again when files changed meanwhile.

    Raises what ``Look`` and ``work`` raise, and ``DataDirLocked`` when the files never hold still.
    """
    for _ in range(_TRIES):
        try:
            with Look(path, shards) as look:
                try:
                    found = work(look)
                except Moved:
                    raise
                except Exception:
                    look.check()  # what was read may have been torn: then the error means nothing
                    raise
                look.check()
                return found
        except Moved:
            continue
    raise DataDirLocked(f"{path} changes faster than it can be read: ask for less at a time, or try again later.")
