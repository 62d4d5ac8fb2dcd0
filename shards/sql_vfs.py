"""The file below an actor's SQL connection: no file, but the pages of its database, wherever they are now.

1. A read returns what this turn wrote, else what the turns before it left (asked of ``base``), else nothing: the
   database is new. A page is read when SQLite asks for it; opening a database reads one.
2. What a turn writes stays in ``pages`` until it is taken (``take``) or dropped (``undo``).
3. A page whose reading fails is never made up: SQLite gets an I/O error, and ``failure`` says what it was.
4. There are no other files: journals and temporary tables are in memory.

SQLite leaves the last 32 bytes of each page alone, and they are not stored: that is what makes four pages fit a page
of the shard. A new database begins with page 1 from ``TEMPLATE``, whose header says so; it is written with the first
change.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import apsw
from actord.errors import SqlTooLargeError
from actord.limits import SQL_DATABASE_BYTES, SQL_TURN_BYTES

PAGE_BYTES = 1024
RESERVED_BYTES = 32
STORED_BYTES = PAGE_BYTES - RESERVED_BYTES
MAX_PAGES = SQL_DATABASE_BYTES // PAGE_BYTES
TURN_PAGES = SQL_TURN_BYTES // PAGE_BYTES

_NAME = "actord-pages"
_FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
# Without it SQLite would write neighbouring pages together, for fear of torn sectors.
_TRAITS = apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE


class PageFile:
    """``stored``: the size in pages as the turns before this one left it. ``size``: as it is now."""

    __slots__ = ("base", "failure", "pages", "size", "stored")

    def __init__(self, base: Callable[[int], bytes | None], stored: int) -> None:
        self.base = base
        self.stored = stored
        self.size = stored or 1
        self.pages: dict[int, bytes] = {}
        self.failure: BaseException | None = None

    # -- the turn's side

    def take(self) -> dict[int, bytes]:
        """What the turn wrote; it counts as left by an ended turn from now on."""
        pages, self.pages = self.pages, {}
        self.stored = self.size
        return pages

    def undo(self) -> None:
        self.pages = {}
        self.size = self.stored or 1

    # -- SQLite's side: the methods of apsw.VFSFile

    def xRead(self, amount: int, offset: int) -> bytes:
        number = offset // PAGE_BYTES + 1
        data = self.pages.get(number)
        if data is None:
            if number > self.stored:
                if number > 1:
                    return b""  # a page that SQLite skipped: its content does not count
                data = TEMPLATE
            else:
                try:
                    data = self.base(number)
                except BaseException as error:
                    self.failure = error
                    raise apsw.IOError("a page can't be read") from error
                if data is None:
                    return b""
        if amount == PAGE_BYTES:
            return data  # short of the reserved bytes: SQLite fills up with zeros
        at = offset % PAGE_BYTES
        return data[at : at + amount]

    def xWrite(self, data: bytes, offset: int) -> None:
        number = offset // PAGE_BYTES + 1
        pages = self.pages
        if len(pages) >= TURN_PAGES and number not in pages:
            self.failure = SqlTooLargeError(f"One turn may change {SQL_TURN_BYTES >> 20} MiB of its database.")
            raise apsw.FullError("the turn's changes are too large")
        pages[number] = data[:STORED_BYTES]
        if number > self.size:
            self.size = number

    def xTruncate(self, size: int) -> None:
        self.size = pages = size // PAGE_BYTES
        if self.pages:
            self.pages = {number: data for number, data in self.pages.items() if number <= pages}

    def xFileSize(self) -> int:
        return self.size * PAGE_BYTES

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
        return _TRAITS


class _PageVFS(apsw.VFS):
    """Hands a connection the file that was put under its name right before."""

    def __init__(self) -> None:
        self.files: dict[str, PageFile] = {}
        super().__init__(_NAME, "")

    def xOpen(self, name: Any, flags: Any) -> Any:
        file = self.files.pop(name.filename() if isinstance(name, apsw.URIFilename) else name, None)
        if file is None:
            raise apsw.CantOpenError("an actor's database has one file")
        return file

    def xFullPathname(self, name: str) -> str:
        return name

    def xAccess(self, pathname: str, flags: int) -> bool:
        return False

    def xDelete(self, filename: str, syncdir: bool) -> None:
        pass


_vfs = _PageVFS()
_names = count(1)


def connect(file: PageFile, statements: int) -> apsw.Connection:
    """A connection over a file of pages, with a cache of so many statements."""
    name = f"actor-{next(_names)}"
    _vfs.files[name] = file
    try:
        return apsw.Connection(name, flags=_FLAGS, vfs=_NAME, statementcachesize=statements)
    finally:
        _vfs.files.pop(name, None)


def _new_database() -> bytes:
    """Page 1 of an empty database with our page size."""
    file = PageFile(lambda number: None, 0)
    file.size = 0
    conn = connect(file, 0)
    conn.reserve_bytes("main", RESERVED_BYTES)
    for pragma in (f"page_size = {PAGE_BYTES}", "journal_mode = MEMORY", "user_version = 1", "user_version = 0"):
        conn.execute(f"PRAGMA {pragma}").fetchall()
    conn.close()
    return file.pages[1]


TEMPLATE = b""  # while the real one is made
TEMPLATE = _new_database()
assert len(TEMPLATE) == STORED_BYTES
