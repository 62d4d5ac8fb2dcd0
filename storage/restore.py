"""From a backup to a data directory that a server can open.

1. Nothing is taken from a backup but blocks that have their hash, as they are read. Damage ends it.
2. The target is empty, and locked meanwhile. Everything is put together in ``restore.partial`` inside it, synced, then
   moved into its place, ``manifest.json`` last: a server refuses the directory before that, and what a killed run has
   left is removed by the next one.
3. Every shard's epoch grows by ``EPOCH_STEP``: what was done after the backup was taken is forgotten here, but other
   systems may have seen its fences, and those of now have to be greater.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import Any

import apsw
import msgspec
from actord.errors import DataDirError, StoreCorrupt
from actord.storage import datadir, recovery, schema
from actord.storage.backup_files import MANIFEST, Backup, ShardAt, blocks_of, read_backup, shard_file
from actord.storage.files import DIR_MODE, FILE_MODE, fsync_dir_of, fsync_path, make_dirs, write_all
from actord.storage.findings import Progress

STAGING = "restore.partial"
EPOCH_STEP = 16_384  # as many restarts as this may have happened since the backup
EPOCH_MAX = (1 << 23) - 1  # see storage/outbox.py


class Restored(msgspec.Struct, frozen=True):
    """``epoch``: every fence of the restored shards is above it, and all of before below."""

    path: str
    identity: str
    moment: str
    shards: list[ShardAt]
    bytes: int
    epoch: int


def restore(folder: str, target: str, *, epoch: int = 0, progress: Progress = lambda what, part: None) -> Restored:
    """Make the data directory ``target`` of the backup in ``folder``. ``epoch``: one that fences have to be above.

    Raises ``DataDirError`` when it can't be done (no backup, a target that is not empty, no room), ``DataDirLocked``
    while a server or another restore uses the target, ``StoreCorrupt`` for damage, OSError.
    """
    backup = read_backup(folder)
    real = os.path.realpath(target)
    if os.path.commonpath([real, os.path.realpath(folder)]) == os.path.realpath(folder):
        raise DataDirError(f"{target} is inside the backup. Choose another directory.")
    make_dirs(real)
    _refuse_full(real, target)
    lock = datadir.lock_of(real)
    try:
        _clear(real)
        _refuse_full(real, target)
        _check_room(real, backup)
        staging = os.path.join(real, STAGING)
        os.makedirs(os.path.join(staging, "shards"), DIR_MODE)
        try:
            above = _fill(folder, backup, staging, epoch, progress)
        except (Exception, KeyboardInterrupt):
            shutil.rmtree(staging, ignore_errors=True)
            raise
        _move(staging, real)
    finally:
        lock.release()
    return Restored(real, backup.identity, backup.moment, backup.shards, backup.size, above)


def _refuse_full(real: str, target: str) -> None:
    names = set(os.listdir(real)) - {"lock", "lost+found"}
    if STAGING in names and MANIFEST not in names:
        names -= {STAGING, "shards", datadir.TOKENS_NAME}  # a run that was killed
    if names:
        some = ", ".join(sorted(names)[:3])
        raise DataDirError(f"{target} is not empty ({some}). Restore into a new or empty directory.")


def _clear(real: str) -> None:
    """Remove what a killed run has left; nothing of it counts without a manifest."""
    if not os.path.lexists(os.path.join(real, STAGING)):
        return
    shutil.rmtree(os.path.join(real, "shards"), ignore_errors=True)
    if os.path.lexists(os.path.join(real, datadir.TOKENS_NAME)):
        os.unlink(os.path.join(real, datadir.TOKENS_NAME))
    shutil.rmtree(os.path.join(real, STAGING))


def _check_room(real: str, backup: Backup) -> None:
    state = os.statvfs(real)
    room = state.f_bavail * state.f_frsize
    if room < backup.size:
        raise DataDirError(f"{real} has {room >> 20:,} MiB of room, and the backup has {backup.size >> 20:,} MiB.")


def _fill(folder: str, backup: Backup, staging: str, epoch: int, progress: Progress) -> int:
    total, done = max(1, backup.size), 0
    for file in backup.files:
        path = os.path.join(staging, file.path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            for block in blocks_of(folder, file):
                write_all(fd, block)
                done += len(block)
                progress("restoring", min(1.0, done / total))
            os.fsync(fd)
        finally:
            os.close(fd)
    manifest = datadir.read_manifest(staging)
    if manifest.identity != backup.identity or manifest.shards != len(backup.shards):
        raise StoreCorrupt(f"The manifest in {folder} is that of another data directory.")
    databases = [os.path.join(staging, shard_file(at.shard)) for at in backup.shards]
    before = [_epoch(path, at, backup.identity) for path, at in zip(databases, backup.shards, strict=True)]
    above = max(*before, epoch - EPOCH_STEP, 0) + EPOCH_STEP
    if above > EPOCH_MAX:
        raise DataDirError(f"Epochs end at {EPOCH_MAX}, and {above} would be needed.")
    for path in databases:
        _set_epoch(path, above)
    fsync_path(os.path.join(staging, "shards"))
    fsync_path(staging)
    return above


def _epoch(path: str, at: ShardAt, identity: str) -> int:
    conn = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
    try:
        conn.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        seq = schema.check_meta(conn, shard=at.shard, identity=identity)
        if seq != at.commit_seq:
            raise StoreCorrupt(f"{path} stands at commit {seq}, and the backup says {at.commit_seq}.")
        return schema.last_epoch(conn)
    except apsw.Error as error:
        raise StoreCorrupt(f"{path} can't be read: {error}.") from error
    finally:
        conn.close()


def _set_epoch(path: str, epoch: int) -> None:
    conn = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
    try:
        conn.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        with conn:
            schema.set_meta(conn, {"epoch": epoch})
        frames: Any = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if frames[0][0]:
            raise StoreCorrupt(f"The log of {path} could not be folded into it.")
    finally:
        conn.close()
    if os.path.exists(recovery.wal_path(path)):
        raise StoreCorrupt(f"The log of {path} could not be folded into it.")
    fsync_path(path)


def _move(staging: str, real: str) -> None:
    names = [name for name in ("shards", datadir.TOKENS_NAME) if os.path.lexists(os.path.join(staging, name))]
    for name in names:
        os.rename(os.path.join(staging, name), os.path.join(real, name))
    fsync_path(real)
    os.rename(os.path.join(staging, MANIFEST), os.path.join(real, MANIFEST))
    fsync_path(real)
    os.rmdir(staging)
    fsync_path(real)
    with suppress(PermissionError):  # a run that was killed may have made the directory, and not synced its name
        fsync_dir_of(real)
