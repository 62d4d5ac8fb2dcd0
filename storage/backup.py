"""Backups: a folder in the layout of a data directory, and ``backup.json``, which says what has to be in it.

1. Every shard stands at one commit, and all of them at one moment: what an image says (``storage/backup_image.py``).
2. A backup is there whole or not at all. It is built under another name, every file synced; then every block is read
   back from the disk and compared with what was copied; ``backup.json`` is written last; then it gets its name.
3. A folder without ``backup.json``, with one that fails its checksum, or with a block that fails its own is refused by
   ``verify`` and by ``restore``. No server serves a backup as it is.
4. ``base``: what an earlier backup has, block for block, is not written again: a file without a change becomes a hard
   link to the earlier one's, and what is equal in others is copied by the file system (shared, where it can do that).
   Each backup is complete: the earlier one may be removed.

Crash story: a run that is killed leaves ``.NAME.partial`` beside the place of the backup, which the next run with the
same name removes. Nothing takes it for a backup.

    DEST/backup.json              what it is, and the hashes of every block
    DEST/manifest.json            of the data directory
    DEST/tokens.json              access tokens (hashes), if there are any
    DEST/shards/NNNN.db           the database of a shard, beside it NNNN.db.clean
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import msgspec
from actord.errors import DataDirError, StoreCorrupt
from actord.storage import datadir, recovery
from actord.storage.backup_files import (
    MANIFEST,
    Backup,
    File,
    ShardAt,
    copy_file,
    problems_of,
    read_backup,
    shard_file,
    write_backup,
)
from actord.storage.backup_image import Image
from actord.storage.files import DIR_MODE, FileLock, Locked, fsync_path
from actord.storage.findings import Progress

_COPYING = 0.7  # of the whole; the rest is reading back


class Standing(NamedTuple):
    """Where a shard stands. ``frames`` of its log belong to it; None: all that are there, and so does the number."""

    shard: int
    commit_seq: int | None = None
    frames: int | None = None


class Source(Protocol):
    """A data directory that holds still: its shards don't change below their standings until ``end``."""

    path: str
    identity: str
    moment: int  # milliseconds since the epoch
    shards: Sequence[Standing]

    def keep(self) -> None:
        """Called often while files are read. Raises ``ActordError`` when it holds still no longer."""
        ...

    def end(self) -> None:
        """Everything was read. Raises ``ActordError`` when it did not hold still all the time."""
        ...


class Made(msgspec.Struct, frozen=True):
    """What was made. ``reused``: the part of ``bytes`` that an earlier backup had."""

    path: str
    identity: str
    moment: str
    shards: list[ShardAt]
    bytes: int
    reused: int


def take_backup(
    source: Source, dest: str, *, base: str | None = None, progress: Progress = lambda what, part: None
) -> Made:
    """Copy what ``source`` holds to the new folder ``dest``. ``base``: an earlier backup of the same data directory.

    Raises ``DataDirError`` when it can't be done (``dest`` is there already, no room, a base of something else),
    ``StoreCorrupt`` when something does not read as it was written, OSError, and what ``source`` raises.
    """
    dest = os.path.abspath(dest)
    parent, name = os.path.split(dest)
    _refuse_place(source.path, dest)
    old = None if base is None else _base(base, source.identity)
    staging = os.path.join(parent, f".{name}.partial")
    os.makedirs(staging, DIR_MODE, exist_ok=True)
    try:
        lock = FileLock(os.path.join(staging, "lock"))
    except Locked:
        raise DataDirError(f"Another backup to {dest} is under way.") from None
    try:
        _empty(staging)
        made = _Run(source, staging, old, progress).run()
        os.unlink(lock.path)
        os.rename(staging, dest)
        fsync_path(parent)
    except (Exception, KeyboardInterrupt):
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        lock.release()
    return msgspec.structs.replace(made, path=dest)


def _refuse_place(source: str, dest: str) -> None:
    parent = os.path.dirname(dest)
    if not os.path.isdir(parent):
        raise DataDirError(f"{parent} is no folder: make it first.")
    if os.path.lexists(dest) and (os.path.islink(dest) or not os.path.isdir(dest) or os.listdir(dest)):
        raise DataDirError(f"{dest} is there already. Each backup gets a new folder.")
    if os.path.commonpath([os.path.realpath(dest), os.path.realpath(source)]) == os.path.realpath(source):
        raise DataDirError(f"{dest} is inside the data directory. Put backups elsewhere, best on another disk.")


def _base(path: str, identity: str) -> tuple[str, Backup]:
    backup = read_backup(path)
    if backup.identity != identity:
        raise DataDirError(f"{path} is a backup of another data directory ({backup.identity}).")
    return path, backup


def _empty(staging: str) -> None:
    """What a run that was killed has left."""
    for entry in os.listdir(staging):
        path = os.path.join(staging, entry)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif entry != "lock":
            os.unlink(path)


class _Run:
    def __init__(self, source: Source, staging: str, old: tuple[str, Backup] | None, progress: Progress) -> None:
        self.source = source
        self.staging = staging
        self.old_path = old[0] if old else ""
        self.old_files = {file.path: file for file in old[1].files} if old else {}
        self.progress = progress
        self.total = 1
        self.read = 0
        self.reused = 0
        self.what = ""

    def run(self) -> Made:
        source, files = self.source, []
        os.mkdir(os.path.join(self.staging, "shards"), DIR_MODE)
        with ExitStack() as stack:
            images = [self._image(stack, standing) for standing in source.shards]
            self.total = max(1, sum(image.size for image in images))
            self._check_room()
            for standing, image in zip(source.shards, images, strict=True):
                self.what = f"shard {standing.shard + 1} of {len(images)}"
                files.append(self._copy(shard_file(standing.shard), image.size, image.read))
            files += self._small_files(images)
            source.end()
        backup = Backup(
            identity=source.identity,
            moment=_utc(source.moment),
            shards=[ShardAt(at.shard, image.commit_seq) for at, image in zip(source.shards, images, strict=True)],
            files=files,
        )
        fsync_path(os.path.join(self.staging, "shards"))
        problems = problems_of(
            self.staging, backup, lambda what, part: self.progress(what, _COPYING + part * (1 - _COPYING))
        )
        if problems:
            raise StoreCorrupt(
                f"What was written does not read back: {problems[0]} Check the disk of the backup"
                + (f", and {self.old_path} by `actord verify`." if self.old_path else ".")
            )
        write_backup(self.staging, backup)
        size = sum(file.size for file in files)
        return Made("", backup.identity, backup.moment, backup.shards, size, self.reused)

    def _image(self, stack: ExitStack, standing: Standing) -> Image:
        path = datadir.shard_paths(self.source.path, standing.shard)[0]
        if not os.path.lexists(path):
            raise StoreCorrupt(f"{path} is missing. See what `actord doctor` says.")
        image = stack.enter_context(
            Image(path, shard=standing.shard, identity=self.source.identity, frames=standing.frames)
        )
        if standing.commit_seq not in (None, image.commit_seq):
            raise StoreCorrupt(f"{path} stands at commit {image.commit_seq} where {standing.commit_seq} was expected.")
        return image

    def _check_room(self) -> None:
        state = os.statvfs(self.staging)
        room = state.f_bavail * state.f_frsize
        if not self.old_files and room < self.total:
            raise DataDirError(
                f"There are {room >> 20:,} MiB of room for the backup, and it takes {self.total >> 20:,} MiB."
            )

    def _copy(self, path: str, size: int, read: Callable[[int, int], bytes]) -> File:
        def tick(done: int) -> None:
            self.source.keep()
            self.read += done
            self.progress(self.what, min(1.0, self.read / self.total) * _COPYING)

        old = self.old_files.get(path)
        base = None if old is None else (os.path.join(self.old_path, path), old)
        file, reused = copy_file(read, path, size, os.path.join(self.staging, path), base=base, tick=tick)
        self.reused += reused
        return file

    def _small_files(self, images: list[Image]) -> list[File]:
        """The manifest, the tokens, and a marker for each shard: it is as after a clean stop."""
        contents = {}
        for name in (MANIFEST, datadir.TOKENS_NAME):
            with suppress(FileNotFoundError), open(os.path.join(self.source.path, name), "rb") as file:
                contents[name] = file.read()
        for standing, image in zip(self.source.shards, images, strict=True):
            marker = recovery.Marker(self.source.identity, standing.shard, image.commit_seq)
            contents[recovery.marker_path(shard_file(standing.shard))] = msgspec.json.encode(marker)
        return [
            self._copy(path, len(content), lambda at, size, content=content: content[at : at + size])  # type: ignore[misc]
            for path, content in contents.items()
        ]


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
