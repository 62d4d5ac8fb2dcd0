"""From files on a disk to a database that may be served: creation, the clean-stop marker, recovery.

1. A database appears whole or not at all: it is made under another name, synced and renamed.
2. After a clean stop a marker carries the last commit number; a database that has another one is not served.
3. Without a marker, nothing is served that a power cut could still remove. A failed fsync marks pages clean, so what
   reads back after it need not be on the disk: the log's bytes are written again and synced before SQLite sees them,
   the checkpoint then writes and syncs every page of the log, and only a database that passes its checks is opened.
   (The first alone would do; on a full disk it has to.) A log that holds more than SQLite would read of it, by proof
   and not by guess (``storage.wal``), is damaged: it is left as it is, and nothing is served.
4. The marker is gone, durably, before the first write.

The caller holds the shard's lock from before ``prepare`` until it has closed the database: a predecessor may still be
dying. Closing any descriptor of a database file drops the POSIX locks that SQLite holds on it in this process, so
everything here that opens the file by hand does so while no connection is open.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat

import apsw
import msgspec
from actord.errors import StoreBroken, StoreCorrupt
from actord.storage import schema, wal
from actord.storage.ballast import is_full
from actord.storage.files import FILE_MODE, fsync_dir_of, fsync_path, is_symlink, remove_file, replace_file

# quick_check reads the whole file: 64 MiB take about a tenth of a second.
QUICK_CHECK_BYTES = 64 * 1024 * 1024

_CHUNK = 1024 * 1024


class Marker(msgspec.Struct, frozen=True):
    """What a clean stop leaves behind."""

    identity: str
    shard: int
    commit_seq: int


def marker_path(path: str) -> str:
    return path + ".clean"


def wal_path(path: str) -> str:
    return path + "-wal"


def write_marker(path: str, marker: Marker) -> None:
    replace_file(marker_path(path), msgspec.json.encode(marker))


def read_marker(path: str, log: logging.Logger) -> Marker | None:
    """The marker, or None when there is none that can be read: then the stop counts as unclean."""
    try:
        with open(marker_path(path), "rb") as file:
            return msgspec.json.decode(file.read(), type=Marker)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("the clean-stop marker %s can't be read (%s); recovering as after a crash", path, error)
        return None


def remove_marker(path: str) -> None:
    remove_file(marker_path(path))


def prepare(path: str, *, shard: int, identity: str, existed: bool, log: logging.Logger) -> Marker | None:
    """Make the database at ``path`` fit to be opened; create it when it is new. Returns the marker, if any.

    ``existed``: the shard is known to have had a database, so that a missing one is a loss and not a beginning.
    Raises ``StoreCorrupt``, ``DataDirError`` or ``StoreBroken``.
    """
    try:
        marker = read_marker(path, log)
        for file in (path, wal_path(path), marker_path(path)):
            if is_symlink(file):
                raise StoreCorrupt(f"{file} is a symbolic link. Put the file itself there.")
        if not os.path.exists(path):
            if existed or marker is not None or _size(wal_path(path)):
                raise StoreCorrupt(f"{path} is missing, but it has been there. Restore it from a backup.")
            _create(path, shard=shard, identity=identity)
            return None
        os.chmod(path, FILE_MODE)
        if marker is None or _size(wal_path(path)):
            _recover(path, shard=shard, identity=identity, log=log)
        return marker
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise StoreCorrupt(f"{path} is damaged: {error}. Restore it from a backup.") from error
    except (apsw.Error, OSError) as error:
        raise StoreBroken(f"{path} can't be made ready: {error}", applied="unknown") from error


def _create(path: str, *, shard: int, identity: str) -> None:
    new = path + ".new"
    for leftover in (new, new + "-wal", new + "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(leftover)
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    conn = _open(new)
    try:
        schema.create(conn, shard=shard, identity=identity)
    finally:
        conn.close()  # checkpoints and removes the log
    if os.path.exists(new + "-wal"):
        raise StoreBroken(f"The log of the new database {new} could not be folded into it.")
    fsync_path(new)
    os.rename(new, path)
    fsync_dir_of(path)


def _recover(path: str, *, shard: int, identity: str, log: logging.Logger) -> None:
    log.info("recovering %s after an unclean stop (%d bytes of log)", path, _size(wal_path(path)))
    if os.path.exists(wal_path(path)):
        rewrite_in_place(wal_path(path))
    fsync_dir_of(path)
    conn = _open(path)
    try:
        conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        conn.execute("PRAGMA synchronous = FULL")
        frames, _ = conn.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        damage = wal.damage_behind(wal_path(path), max(frames, 0), schema.PAGE_BYTES)
        if damage:
            raise StoreCorrupt(
                f"{wal_path(path)} is damaged: {damage}. Acknowledged commits can't be read. Restore a backup."
            )
        try:
            conn.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error as error:
            if not is_full(conn, error):
                raise
            # The log is on the disk, every byte of it: it can be served as it is.
            log.warning("the disk is full: the log of %s stays as it is for now", path)
        schema.check_meta(conn, shard=shard, identity=identity)
        if os.stat(path).st_size <= QUICK_CHECK_BYTES:
            problems = [row[0] for row in conn.execute("PRAGMA quick_check(5)")]
            if problems != ["ok"]:
                raise StoreCorrupt(f"{path} is damaged: {'; '.join(map(str, problems))}. Restore it from a backup.")
    finally:
        conn.close()
    fsync_path(path)
    fsync_dir_of(path)


def rewrite_in_place(path: str) -> None:
    """Write a file's bytes over themselves and sync: afterwards the disk holds what reading returned."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise StoreCorrupt(f"{path} is not a regular file.")
        offset = 0
        while chunk := os.pread(fd, _CHUNK, offset):
            view = memoryview(chunk)
            while view:
                done = os.pwrite(fd, view, offset)
                offset += done
                view = view[done:]
        os.fsync(fd)
    finally:
        os.close(fd)


def check_marker(path: str, marker: Marker, *, shard: int, identity: str, commit_seq: int) -> None:
    """Does the database end where the clean stop left it? Raises ``StoreCorrupt``."""
    if (marker.identity, marker.shard) != (identity, shard):
        raise StoreCorrupt(f"{marker_path(path)} belongs to shard {marker.shard} of {marker.identity}.")
    if commit_seq != marker.commit_seq:
        raise StoreCorrupt(
            f"{path} ends at commit {commit_seq}, but was stopped cleanly at commit {marker.commit_seq}: a part of it "
            "is missing. Restore the data directory from a backup."
        )


def _open(path: str) -> apsw.Connection:
    conn = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
    try:
        conn.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
    except BaseException:
        conn.close()
        raise
    return conn


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
