"""One shard under examination: its log, its marker, its pages, its tables. Part of ``storage.doctor``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import apsw
import msgspec
from actord.errors import DataDirError, StoreCorrupt
from actord.storage import datadir, recovery, schema, wal
from actord.storage.doctor_rows import Rows
from actord.storage.files import is_symlink
from actord.storage.findings import RESTORE, Finding, Progress, Report
from actord.storage.view import open_view

SHOWN = 5  # findings of one kind in one shard; the rest is counted

UNREADABLE = (apsw.Error, UnicodeDecodeError, OverflowError, TypeError, ValueError)


def examine_shard(
    report: Report,
    number: int,
    *,
    identity: str | None,
    slot_of: Callable[[str, str], int],
    slots: range | None,
    deep: bool,
    progress: Progress,
) -> None:
    """Add what is found to ``report``. ``identity`` and ``slots`` are None when the manifest does not say them."""
    _Shard(report, number, identity, slot_of, slots, progress).examine(deep)


class _Shard:
    def __init__(
        self,
        report: Report,
        number: int,
        identity: str | None,
        slot_of: Callable[[str, str], int],
        slots: range | None,
        progress: Progress,
    ) -> None:
        self.report = report
        self.number = number
        self.identity = identity
        self.slot_of = slot_of
        self.slots = slots
        self.progress = progress
        self.path = datadir.shard_paths(report.path, number)[0]
        self.file = f"shards/{number:04d}.db"
        self._kinds: dict[str, int] = {}

    def damage(self, what: str, todo: str = RESTORE, *, file: str = "", kind: str = "") -> None:
        """``kind``: of those with the same one only the first few are told; ``_count_rest`` tells how many more."""
        if kind:
            self._kinds[kind] = count = self._kinds.get(kind, 0) + 1
            if count > SHOWN:
                return
        self.report.findings.append(Finding("damage", file or self.file, what, todo))

    def note(self, what: str, todo: str = "", *, file: str = "") -> None:
        self.report.findings.append(Finding("note", file or self.file, what, todo))

    def examine(self, deep: bool) -> None:
        marker = self._examine_marker()
        if not self._there(marker):
            return
        try:
            log = self._examine_log(marker)
            with open(self.path, "rb", buffering=0) as database, _opened(recovery.wal_path(self.path)) as frames:
                self._examine_database(database.fileno(), frames, log, marker, deep)
        except OSError as error:
            self.damage(f"It can't be read: {error}.", "Check its owner, the disk, and the system's log (dmesg).")
        for kind, count in self._kinds.items():
            if count > SHOWN:
                self.damage(f"And {count - SHOWN} more: {kind}.")

    def _there(self, marker: recovery.Marker | None) -> bool:
        for path in (self.path, recovery.wal_path(self.path), recovery.marker_path(self.path)):
            if is_symlink(path):
                self.damage("It is a symbolic link.", "Put the file itself there.", file=self._relative(path))
                return False
        if os.path.exists(self.path):
            return True
        known = os.path.exists(self.path + ".lock") and os.path.getsize(self.path + ".lock") > 0
        if known or marker is not None or os.path.exists(recovery.wal_path(self.path)):
            self.damage("It is missing, but it has been there.")
        else:
            self.note("It was never opened: the first start makes it.")
        return False

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self.report.path)

    # -- the marker and the log

    def _examine_marker(self) -> recovery.Marker | None:
        path = recovery.marker_path(self.path)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self.damage(f"It can't be read: {error}.", "Check its owner.", file=self._relative(path))
            return None
        try:
            marker = msgspec.json.decode(content, type=recovery.Marker)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.damage(
                f"The marker of a clean stop can't be read ({error}).",
                "The next start recovers as after a crash. What rotted here may have rotted elsewhere: check the disk.",
                file=self._relative(path),
            )
            return None
        if marker.shard != self.number or self.identity not in (None, marker.identity):
            self.damage(
                f"It belongs to shard {marker.shard} of data directory {marker.identity}.",
                "Files of two data directories or two shards were mixed. Put the right ones back.",
                file=self._relative(path),
            )
        return marker

    def _examine_log(self, marker: recovery.Marker | None) -> wal.Log:
        path = recovery.wal_path(self.path)
        name = self._relative(path)
        what = f"shard {self.number}: log"
        total = max(1, os.path.getsize(path) if os.path.exists(path) else 0) / (schema.PAGE_BYTES + 24)
        log = wal.read_log(path, schema.PAGE_BYTES, lambda frame: self.progress(what, min(1.0, frame / total)))
        if log.damage:
            self.damage(f"The log is damaged: {log.damage}. Acknowledged commits can't be read.", file=name)
        elif log.doubt:
            self.damage(
                f"The last commit can't be read: {log.doubt}. It is bit rot, or the torn end of a power cut.",
                "If there was no power cut, check the disk; the last commit is lost.",
                file=name,
            )
        elif log.frames > log.valid and log.valid:
            self.note("Behind the last whole commit there are frames of none: that is normal after a crash.", file=name)
        if marker is not None and log.frames:
            self.damage("There was a clean stop, and yet the log is not empty.", file=name)
        elif marker is None:
            self.note(
                "There was no clean stop: the next start recovers it."
                + (f" Its log holds {log.commits} commits." if log.commits else "")
            )
        return log

    # -- the database with its log applied

    def _examine_database(
        self, database: int, frames: int, log: wal.Log, marker: recovery.Marker | None, deep: bool
    ) -> None:
        size = os.fstat(database).st_size
        pages = log.size or size // schema.PAGE_BYTES
        if size % schema.PAGE_BYTES and not log.commits:
            self.damage(f"It has {size} bytes, which is no whole number of pages: its end is missing.")
        if not pages:
            self.damage("It is empty.")
            return
        reads = 0

        def read(number: int) -> bytes:
            nonlocal reads
            reads += 1
            if reads % 256 == 0:
                self.progress(f"shard {self.number}: pages and rows", min(1.0, reads / (3.0 * pages)))
            frame = log.pages.get(number)
            if frame is None:
                return os.pread(database, schema.PAGE_BYTES, (number - 1) * schema.PAGE_BYTES)
            at = wal.HEADER_BYTES + (frame - 1) * (wal.FRAME_HEADER_BYTES + schema.PAGE_BYTES)
            return os.pread(frames, schema.PAGE_BYTES, at + wal.FRAME_HEADER_BYTES)

        self.progress(f"shard {self.number}: pages and rows", 0.0)
        header = read(1)
        if header[:16] != b"SQLite format 3\0" or header[16:18] != schema.PAGE_BYTES.to_bytes(2, "big"):
            self.damage("It is not an SQLite database of actord.")
            return
        try:
            conn = open_view(read, schema.PAGE_BYTES, pages)
        except UNREADABLE as error:
            self.damage(f"It can't be opened: {error}.")
            return
        try:
            self._examine_contents(conn, database, log, marker, deep)
        finally:
            conn.close(True)

    def _examine_contents(
        self, conn: apsw.Connection, database: int, log: wal.Log, marker: recovery.Marker | None, deep: bool
    ) -> None:
        current = self._examine_meta(conn, database, log, marker)
        try:
            problems = [str(row[0]) for row in conn.execute("PRAGMA integrity_check(20)")]
        except UNREADABLE as error:
            problems = [str(error)]
        for problem in problems if problems != ["ok"] else ():
            self.damage(f"SQLite finds: {problem}", kind="damaged pages, tables or indexes")
        if not current:
            return
        rows = Rows(self, conn)
        rows.examine()
        if deep:
            rows.examine_sql()

    def _examine_meta(self, conn: apsw.Connection, database: int, log: wal.Log, marker: recovery.Marker | None) -> bool:
        """True when the tables are of a format that this version knows."""
        try:
            meta: dict[Any, Any] = dict(conn.execute("SELECT name, value FROM meta"))
            identity = self.identity if self.identity is not None else str(meta.get("identity"))
            seq = schema.check_meta(conn, shard=self.number, identity=identity)
        except (StoreCorrupt, DataDirError) as error:
            self.damage(error.detail.replace(str(conn.filename), self.file), "See what it says.")
            return False
        except UNREADABLE as error:
            self.damage(f"It does not say what it is: {error}.")
            return False
        self.report.commits[str(self.number)] = seq
        if marker is not None and marker.commit_seq != seq:
            self.damage(
                f"It ends at commit {seq}, but was stopped cleanly at commit {marker.commit_seq}: a part is missing, "
                "or the file comes from another time than its marker."
            )
        if meta["format"] < schema.FORMAT:
            self.note(f"It has the older format {meta['format']}; the next start brings it to {schema.FORMAT}.")
            return True
        try:
            schema.check_tables(conn)
        except StoreCorrupt as error:
            self.damage(error.detail.replace(str(conn.filename), self.file))
        before = self._seq_without_log(database) if log.commits else None
        if before is not None and not (before <= seq <= before + log.commits and self._ends_log(conn, log, seq)):
            self.damage(
                f"The database stands at commit {before} and its log ends at commit {seq} after {log.commits} commits: "
                "they do not belong together."
            )
        return True

    def _ends_log(self, conn: apsw.Connection, log: wal.Log, seq: int) -> bool:
        """Was commit ``seq`` written to the log? Each commit changes ``redo`` or ``meta``."""
        try:
            page: Any = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'meta'").get
            return page in log.pages or schema.newest_commit(conn, 0) == seq
        except UNREADABLE:  # which is said elsewhere
            return True

    def _seq_without_log(self, database: int) -> int | None:
        """The commit number in the database file alone; None when it can't be read without the log."""
        pages = os.fstat(database).st_size // schema.PAGE_BYTES

        def read(number: int) -> bytes:
            return os.pread(database, schema.PAGE_BYTES, (number - 1) * schema.PAGE_BYTES)

        try:
            conn = open_view(read, schema.PAGE_BYTES, pages)
        except UNREADABLE:
            return None
        try:
            found: Any = conn.execute("SELECT value FROM meta WHERE name = 'commit_seq'").get
            if type(found) is not int:
                return None
            return schema.newest_commit(conn, found)
        except UNREADABLE:
            return None
        finally:
            conn.close(True)


class _opened:
    """A descriptor of a file that may be missing, -1 then."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> int:
        if os.path.exists(self._path):
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        return self._fd

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
