"""A database that is only looked at: SQLite over a function that returns pages, without a file, lock or log.

1. Nothing is ever written, whatever is asked: a write is an I/O error. No other file is looked for.
2. A page is read when SQLite asks for it.
3. The file's log is not SQLite's business here: whoever gives the pages has applied it. So page 1 says "no log".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import apsw

_NAME = "actord-view"
_FLAGS = apsw.SQLITE_OPEN_READONLY


class _Pages:
    """The methods of apsw.VFSFile over ``read``, which returns page ``number`` (from 1), b"" when there is none."""

    def __init__(self, read: Callable[[int], bytes], page_bytes: int, pages: int) -> None:
        self._read = read
        self._page_bytes = page_bytes
        self._pages = pages

    def xRead(self, amount: int, offset: int) -> bytes:
        number, at = offset // self._page_bytes + 1, offset % self._page_bytes
        data = self._read(number)
        if number == 1 and data[18:20] == b"\2\2":
            data = data[:18] + b"\1\1" + data[20:]
        return data[at : at + amount]

    def xFileSize(self) -> int:
        return self._pages * self._page_bytes

    def xWrite(self, data: bytes, offset: int) -> None:
        raise apsw.ReadOnlyError("a view is not written")

    def xTruncate(self, size: int) -> None:
        raise apsw.ReadOnlyError("a view is not written")

    def xSync(self, flags: int) -> None:
        pass

    def xClose(self) -> None:
        pass

    def xLock(self, level: int) -> None:
        pass

    def xUnlock(self, level: int) -> None:
        pass

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return 512

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_IMMUTABLE


class _ViewVFS(apsw.VFS):
    def __init__(self) -> None:
        self.files: dict[str, _Pages] = {}
        super().__init__(_NAME, "")

    def xOpen(self, name: Any, flags: Any) -> Any:
        file = self.files.pop(name.filename() if isinstance(name, apsw.URIFilename) else name, None)
        if file is None:
            raise apsw.CantOpenError("a view has one file")
        return file

    def xFullPathname(self, name: str) -> str:
        return name

    def xAccess(self, pathname: str, flags: int) -> bool:
        return False

    def xDelete(self, filename: str, syncdir: bool) -> None:
        pass


_vfs = _ViewVFS()
_names = count(1)


@contextmanager
def view_path(read: Callable[[int], bytes], page_bytes: int, pages: int) -> Iterator[str]:
    """What a connection of ``open_view`` can attach to see those pages as well; to be opened within."""
    name = f"view-{next(_names)}"
    _vfs.files[name] = _Pages(read, page_bytes, pages)
    try:
        yield name
    finally:
        _vfs.files.pop(name, None)


def open_view(read: Callable[[int], bytes], page_bytes: int, pages: int) -> apsw.Connection:
    """A connection to look through. Raises what SQLite raises for what is no database."""
    with view_path(read, page_bytes, pages) as name:
        conn = apsw.Connection(name, flags=_FLAGS, vfs=_NAME)
    conn.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    conn.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    conn.execute("PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = 1").fetchall()
    return conn
