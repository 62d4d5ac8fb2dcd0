"""The files of a backup: ``backup.json``, copying with a hash of every block, and reading back. See ``storage.backup``.

``backup.json`` is JSON: ``format``, ``identity`` (of the data directory), ``moment`` (UTC), ``shards`` (the commit
number of each), ``files`` (path, size, and ``blocks``: BLAKE2b of 16 bytes for every 64 KiB, joined, in base64) and
``sum``, a hash of all the others.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import blake2b

import msgspec
from actord.errors import DataDirError, StoreCorrupt
from actord.storage import datadir, recovery
from actord.storage.files import is_symlink, replace_file, write_all
from actord.storage.findings import Progress

FORMAT = 1
BLOCK_BYTES = 64 * 1024
MANIFEST = "manifest.json"

_DIGEST_BYTES = 16
_READ_ONLY = 0o400  # nobody has to change a backup, and later ones may share its files

Read = Callable[[int, int], bytes]  # offset, size -> bytes


class ShardAt(msgspec.Struct, frozen=True):
    shard: int
    commit_seq: int


class File(msgspec.Struct, frozen=True):
    path: str  # relative to the backup
    size: int
    blocks: str

    @property
    def digests(self) -> bytes:
        return base64.b64decode(self.blocks, validate=True)


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """``backup.json``."""

    format: int = FORMAT
    identity: str
    moment: str
    shards: list[ShardAt]
    files: list[File]
    sum: str = ""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def shard_file(number: int) -> str:
    return os.path.relpath(datadir.shard_paths("/", number)[0], "/")


# -- backup.json


def write_backup(folder: str, backup: Backup) -> None:
    """Make a folder a backup: the last step, durable when it returns."""
    content = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(backup, sum=_sum(backup))), indent=1)
    replace_file(os.path.join(folder, datadir.BACKUP_NAME), content + b"\n")


def read_backup(folder: str) -> Backup:
    """What the backup in ``folder`` says of itself; its files are not looked at.

    Raises ``DataDirError`` for what is no backup or has a newer format, ``StoreCorrupt`` for a damaged one.
    """
    path = os.path.join(folder, datadir.BACKUP_NAME)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise DataDirError(
            f"{folder} is no backup: {datadir.BACKUP_NAME} can't be read ({error.strerror}). It was interrupted?"
        ) from None
    try:
        head = msgspec.json.decode(content)
        format_ = head.get("format") if isinstance(head, dict) else None
        if type(format_) is int and format_ > FORMAT:
            raise DataDirError(f"{folder} has format {format_}, written by a newer actord: use that.")
        backup = msgspec.convert(head, Backup)
        if backup.sum != _sum(backup):
            raise ValueError("it fails its checksum")
        _check_layout(backup)
    except ValueError as error:  # msgspec's errors are such
        raise StoreCorrupt(f"{path} is damaged: {error}. Take another backup.") from None
    return backup


def _sum(backup: Backup) -> str:
    return blake2b(msgspec.json.encode(msgspec.structs.replace(backup, sum="")), digest_size=_DIGEST_BYTES).hexdigest()


def _check_layout(backup: Backup) -> None:
    numbers = [at.shard for at in backup.shards]
    wanted = {MANIFEST, *map(shard_file, numbers), *(recovery.marker_path(shard_file(number)) for number in numbers)}
    paths = [file.path for file in backup.files]
    if (
        not 1 <= len(numbers) <= datadir.SHARDS_MAX
        or numbers != list(range(len(numbers)))
        or len(set(paths)) != len(paths)
        or set(paths) - {datadir.TOKENS_NAME} != wanted
    ):
        raise ValueError("it does not name the files that a backup has")
    for file in backup.files:
        if len(file.digests) != _DIGEST_BYTES * -(-file.size // BLOCK_BYTES):
            raise ValueError(f"{file.path} has {file.size} bytes and not as many hashes")


# -- copying


def copy_file(
    read: Read,
    path: str,
    size: int,
    target: str,
    *,
    base: tuple[str, File] | None = None,
    tick: Callable[[int], None] = lambda done: None,
) -> tuple[File, int]:
    """Make ``target``, synced, of the ``size`` bytes that ``read`` returns. The entry for it, and the bytes reused.

    ``base``: an earlier file and its entry. ``tick`` hears the size of each block.
    """
    old = base[1].digests if base else b""
    digests = bytearray()
    run: int | None = None  # where the blocks begin that the base has too, and that are not written yet
    reused = 0
    source = out = -1
    try:
        if base is not None:
            source = os.open(base[0], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        for offset in range(0, size, BLOCK_BYTES):
            data = read(offset, min(BLOCK_BYTES, size - offset))
            digest = blake2b(data, digest_size=_DIGEST_BYTES).digest()
            if old[len(digests) : len(digests) + _DIGEST_BYTES] == digest:
                run = offset if run is None else run
            else:
                out = _opened(target, out)
                if run is not None:
                    reused += _copy_range(source, out, run, offset)
                    run = None
                os.lseek(out, offset, os.SEEK_SET)
                write_all(out, data)
            digests += digest
            tick(len(data))
        entry = File(path, size, base64.b64encode(digests).decode())
        if base is not None and out < 0 and size == base[1].size:
            with suppress(OSError):
                os.link(base[0], target, follow_symlinks=False)
                return entry, size
        out = _opened(target, out)
        if run is not None:
            reused += _copy_range(source, out, run, size)
        os.fsync(out)
        return entry, reused
    finally:
        for fd in (source, out):
            if fd >= 0:
                os.close(fd)


def _opened(target: str, fd: int) -> int:
    if fd >= 0:
        return fd
    return os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _READ_ONLY)


def _copy_range(source: int, out: int, start: int, end: int) -> int:
    """Bytes ``start`` to ``end``, shared by both files where the file system can do that. How many they are."""
    at = start
    while at < end:
        try:
            done = os.copy_file_range(source, out, end - at, at, at)
        except OSError:
            done = os.pwrite(out, os.pread(source, min(end - at, 1 << 20), at), at)
        if not done:
            raise StoreCorrupt("The backup that this one builds on is shorter than it says: `actord verify` it.")
        at += done
    return end - start


# -- reading back


def blocks_of(folder: str, file: File, *, from_disk: bool = False) -> Iterator[bytes]:
    """The blocks of a file of a backup, each checked. Raises ``StoreCorrupt`` or OSError.

    ``from_disk``: what the system has of it in memory is let go first.
    """
    path = os.path.join(folder, file.path)
    digests = file.digests
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise StoreCorrupt(f"{file.path} can't be read: {error.strerror}.") from None
    try:
        size = os.fstat(fd).st_size
        if size != file.size:
            raise StoreCorrupt(f"{file.path} has {size} bytes instead of {file.size}.")
        if from_disk:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for number, offset in enumerate(range(0, size, BLOCK_BYTES)):
            data = os.pread(fd, BLOCK_BYTES, offset)
            wanted = digests[number * _DIGEST_BYTES : (number + 1) * _DIGEST_BYTES]
            if blake2b(data, digest_size=_DIGEST_BYTES).digest() != wanted:
                raise StoreCorrupt(f"{file.path} is damaged at byte {offset}: the block fails its hash.")
            yield data
    finally:
        os.close(fd)


def problems_of(folder: str, backup: Backup, progress: Progress = lambda what, part: None) -> list[str]:
    """What is wrong with the files of a backup: each is read to its end, or to its first damage."""
    problems = []
    if is_symlink(os.path.join(folder, "shards")):
        problems.append("shards is a symbolic link.")
    total, done = max(1, backup.size), 0
    for file in backup.files:
        before = done
        try:
            for block in blocks_of(folder, file, from_disk=True):
                done += len(block)
                progress("reading back", min(1.0, done / total))
        except StoreCorrupt as error:
            problems.append(error.detail)
        except OSError as error:
            problems.append(f"{file.path} can't be read: {error}.")
        done = before + file.size
    return problems
