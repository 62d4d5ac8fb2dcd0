"""The data directory: who may use it, what it is, where its files are.

    manifest.json        format, identity, number of shards, slot hash; written once
    lock                 held by the one server that uses the directory
    shards/0000.db       the database of shard 0, beside it -wal, .lock, .clean and .ballast

1. At most one server has a directory open. The lock is advisory (flock) and close-on-exec: children don't inherit it.
2. The manifest appears whole or not at all, and says how many shards there are for good: which shard owns a name
   follows from it.
3. What can't be used safely is refused with a sentence that says what to do, and nothing in it is changed.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
import uuid
from zlib import crc32

import msgspec
from actord.errors import DataDirError, DataDirLocked
from actord.storage.files import DIR_MODE, FILE_MODE, FileLock, Locked, fsync_path, is_symlink, make_dirs, replace_file

FORMAT = 1
SLOT_HASH = "crc32-knuth-1"
SHARDS_MAX = 1024  # as many as there are slots
RESHARD_NAME = "reshard.json"  # see storage/reshard.py
BACKUP_NAME = "backup.json"  # see storage/backup.py
TOKENS_NAME = "tokens.json"  # the access tokens: the server's own, which the store leaves alone

# flock and fsync do not promise there what the store relies on.
NETWORK_FILE_SYSTEMS = frozenset(
    {
        "9p",
        "acfs",
        "afs",
        "afpfs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "fuse.beegfs",
        "fuse.ceph",
        "fuse.cephfs",
        "fuse.davfs2",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.goofys",
        "fuse.juicefs",
        "fuse.mount.davfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "fuse.vmhgfs-fuse",
        "gfs",
        "gfs2",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "pvfs2",
        "smb3",
        "smbfs",
        "vboxsf",
        "vmhgfs",
    }
)

_OCTAL = re.compile(r"\\([0-7]{3})")


class Manifest(msgspec.Struct, frozen=True):
    format: int
    identity: str
    shards: int
    slot_hash: str
    created: str  # UTC, ISO 8601, for humans
    sum: int | None = None  # of all the others; None in a manifest of before there was one


def manifest_sum(manifest: Manifest) -> int:
    """CRC-32: a flipped digit in the number of shards would deal the names anew."""
    return crc32(
        f"{manifest.format} {manifest.identity} {manifest.shards} {manifest.slot_hash} {manifest.created}".encode()
    )


class DataDir:
    """An open data directory; ``close`` lets the next server in. Made by ``open_data_dir``."""

    def __init__(self, path: str, manifest: Manifest, lock: FileLock) -> None:
        self.path = path
        self.identity = manifest.identity
        self.shards = manifest.shards
        self.created = manifest.created
        self._lock = lock

    def shard_path(self, shard: int) -> str:
        """The database file of a shard, 0 to ``shards - 1``."""
        if not 0 <= shard < self.shards:
            raise IndexError(f"shard {shard} of {self.shards}")
        return shard_paths(self.path, shard)[0]

    def ballast_path(self, shard: int) -> str:
        return shard_paths(self.path, shard)[1]

    def close(self) -> None:
        self._lock.release()


def shard_paths(path: str, shard: int) -> tuple[str, str]:
    """The database file and the ballast file of a shard in the data directory at ``path``."""
    stem = os.path.join(path, "shards", f"{shard:04d}")
    return stem + ".db", stem + ".ballast"


def open_data_dir(path: str, *, shards: int, ballast: int) -> DataDir:
    """Lock the data directory at ``path``, and make it when it is not there or empty.

    ``shards``: the number of shards of a new directory, 1 to 1,024; an existing one keeps its own. ``ballast``: bytes
    that each shard wants to keep in reserve; a new directory is refused where they do not fit.
    Raises ``DataDirLocked`` when another server has it, ``DataDirError`` when it can't be used.
    """
    if not 1 <= shards <= SHARDS_MAX:
        raise ValueError(f"{shards} shards: 1 to {SHARDS_MAX} are possible")
    real = os.path.realpath(path)
    try:
        make_dirs(real)
        _refuse_network(real)
        refuse_backup(real)
        _refuse_entries(real)
        # Before anything is written: somebody's home directory is not ours to put a lock into.
        fresh = not os.path.lexists(os.path.join(real, "manifest.json"))
        if fresh:
            _refuse_foreign(real)
        lock = lock_of(real)
    except PermissionError as error:
        raise DataDirError(
            f"{path} can't be written by this user (uid {os.geteuid()}): {error}. Change its owner."
        ) from error
    except OSError as error:
        raise DataDirError(f"{path} can't be used as a data directory: {error}.") from error
    try:
        manifest_path = os.path.join(real, "manifest.json")
        # Again, under the lock: another server may just have made it.
        if os.path.lexists(manifest_path):
            manifest = _read_manifest(manifest_path)
            if os.path.lexists(os.path.join(real, RESHARD_NAME)):
                raise DataDirError(
                    f"{path} is on its way to another number of shards, and that was interrupted. Run "
                    "`actord reshard` again: it goes on where it was."
                )
        else:
            _refuse_foreign(real)
            _check_room(real, shards * ballast)
            manifest = _make(real, shards)
        os.chmod(real, DIR_MODE)
        os.makedirs(os.path.join(real, "shards"), DIR_MODE, exist_ok=True)
        os.chmod(os.path.join(real, "shards"), DIR_MODE)
        fsync_path(real)
        if not os.access(os.path.join(real, "shards"), os.W_OK | os.X_OK):
            raise DataDirError(f"{path}/shards can't be written by this user. Change its owner.")
        return DataDir(real, manifest, lock)
    except OSError as error:
        lock.release()
        raise DataDirError(f"{path} can't be used as a data directory: {error}.") from error
    except BaseException:
        lock.release()
        raise


def read_manifest(path: str) -> Manifest:
    """The manifest of the data directory at ``path``, without its lock. Raises ``DataDirError``."""
    try:
        return _read_manifest(os.path.join(path, "manifest.json"))
    except OSError as error:
        raise DataDirError(f"{path} can't be read as a data directory: {error}.") from error


def lock_of(real: str) -> FileLock:
    """The lock of a data directory. Raises ``DataDirLocked``."""
    path = os.path.join(real, "lock")
    try:
        lock = FileLock(path)
    except Locked as error:
        raise DataDirLocked(
            f"The data directory {real} is in use by another server ({error.content or 'unknown process'}). "
            "Stop that one first, or give this one a directory of its own."
        ) from None
    try:
        lock.write(f"pid {os.getpid()}")
    except BaseException:
        lock.release()
        raise
    return lock


def _make(real: str, shards: int) -> Manifest:
    os.makedirs(os.path.join(real, "shards"), DIR_MODE, exist_ok=True)
    manifest = Manifest(
        format=FORMAT,
        identity=str(uuid.uuid4()),
        shards=shards,
        slot_hash=SLOT_HASH,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    manifest = write_manifest(real, manifest)
    fsync_path(os.path.dirname(real))
    return manifest


def write_manifest(real: str, manifest: Manifest) -> Manifest:
    """Put a manifest into its place, with its checksum. Returns it."""
    manifest = msgspec.structs.replace(manifest, sum=manifest_sum(manifest))
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    replace_file(os.path.join(real, "manifest.json"), content)
    return manifest


def _read_manifest(path: str) -> Manifest:
    with open(path, "rb") as file:
        content = file.read(65536)
    restore = "Restore manifest.json from a backup of this directory; a new one would not fit its shards."
    try:
        head = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataDirError(f"{path} is damaged ({error}). {restore}") from None
    format_ = head.get("format") if isinstance(head, dict) else None
    if type(format_) is int and format_ > FORMAT:
        raise DataDirError(
            f"{path} has format {format_}, written by a newer actord; this one reads up to {FORMAT}. "
            "Run the newer version, or restore a backup from before the upgrade."
        )
    try:
        manifest = msgspec.convert(head, Manifest)
        uuid.UUID(manifest.identity)
    except ValueError as error:  # msgspec's ValidationError is one
        raise DataDirError(f"{path} is damaged ({error}). {restore}") from None
    if manifest.format < 1 or not 1 <= manifest.shards <= SHARDS_MAX:
        raise DataDirError(f"{path} is damaged (format {format_}, {manifest.shards} shards). {restore}")
    if manifest.slot_hash != SLOT_HASH:
        raise DataDirError(
            f"{path} names the slot hash {manifest.slot_hash!r}; this actord has {SLOT_HASH!r}. "
            "Run the version that made the directory."
        )
    if manifest.sum is not None and manifest.sum != manifest_sum(manifest):
        raise DataDirError(f"{path} is damaged: it fails its checksum. {restore}")
    return manifest


def _refuse_entries(real: str) -> None:
    for name, wanted in (("manifest.json", stat.S_ISREG), ("lock", stat.S_ISREG), ("shards", stat.S_ISDIR)):
        entry = os.path.join(real, name)
        if is_symlink(entry):
            raise DataDirError(f"{entry} is a symbolic link. Put the file itself there (the directory may be a link).")
        with contextlib.suppress(FileNotFoundError):
            state = os.lstat(entry)
            if not wanted(state.st_mode):
                raise DataDirError(f"{entry} is of the wrong kind. Choose another data directory.")
            if wanted is stat.S_ISREG and state.st_mode & 0o777 != FILE_MODE and state.st_uid == os.geteuid():
                os.chmod(entry, FILE_MODE)


def refuse_backup(real: str) -> None:
    """Raises ``DataDirError`` when the directory is a backup: nobody changes it."""
    if os.path.lexists(os.path.join(real, BACKUP_NAME)):
        raise DataDirError(f"{real} is a backup. Restore it into a new directory: `actord restore {real} DATA_DIR`.")


def _refuse_foreign(real: str) -> None:
    """A directory without a manifest has to be empty but for what an interrupted first start leaves."""
    names = set(os.listdir(real)) - {"lock", "manifest.json.tmp", TOKENS_NAME, "lost+found"}
    if "shards" in names:
        if os.listdir(os.path.join(real, "shards")):
            raise DataDirError(
                f"{real} holds shards but no manifest.json. Restore manifest.json from a backup of this directory."
            )
        names.discard("shards")
    if names:
        some = ", ".join(sorted(names)[:3])
        raise DataDirError(f"{real} is not empty and not a data directory ({some}). Choose an empty or a new one.")


def _check_room(real: str, wanted: int) -> None:
    state = os.statvfs(real)
    room = state.f_bavail * state.f_frsize
    if room < wanted:
        raise DataDirError(
            f"{real} has {room} bytes of room, and the ballast of its shards alone takes {wanted}. "
            "Make room, or lower storage.ballast."
        )


def _refuse_network(real: str) -> None:
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            mounts = file.read()
    except FileNotFoundError:  # not Linux, or no /proc: nothing is known
        return
    kind = filesystem_of(real, mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        raise DataDirError(
            f"{real} is on a network file system ({kind}), which can't keep data safe. Use a local disk."
        )


def filesystem_of(path: str, mounts: str) -> str:
    """The type of the file system that holds the absolute ``path``; ``mounts`` is the text of /proc/self/mounts.

    The empty string when no line matches.
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[1]).rstrip("/")
        # A later mount on the same point covers the earlier one.
        if (path == point or path.startswith(point + "/")) and len(point) >= best:
            best, kind = len(point), fields[2]
    return kind
