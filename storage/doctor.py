"""The examination of a data directory on which no server runs: what is damaged, and what is merely worth knowing.

1. Nothing is written or created, and no log is folded in: what is found can be looked at again. The lock of the
   directory is shared while it lasts, so no server starts meanwhile; where one runs, nothing is read.
2. Everything that a start or a read checks is checked, and what only a look at the whole can show: frames of the log,
   every page (SQLite's ``integrity_check``, indexes included), the checksum of every row, rows that belong to nobody,
   commit numbers that do not follow each other.
3. One shard that can't be read does not keep the others from being examined.
4. A finding says what is wrong and what to do, in words for the person who has to do it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable

from actord.errors import DataDirError
from actord.storage import audit, datadir, trash
from actord.storage.doctor_shard import examine_shard
from actord.storage.files import is_symlink
from actord.storage.findings import RESTORE, Finding, Progress, Report
from actord.storage.stopped import kept_out

LOW_ROOM_BYTES = 64 * 1024 * 1024

_SHARD_FILE = re.compile(r"(\d{4})(\.db(-wal|\.lock|\.clean)?|\.ballast)")
_DATABASE = re.compile(r"(\d{4})\.db")


def examine(
    path: str,
    *,
    slot_of: Callable[[str, str], int],
    slot_range: Callable[[int, int], range],
    deep: bool = False,
    progress: Progress = lambda what, part: None,
) -> Report:
    """Examine the data directory at ``path``.

    ``slot_of`` and ``slot_range`` say which slot a key has and which slots a shard has. ``deep``: also SQLite's check
    of each actor's SQL database. ``progress`` is told what is being examined and how much of it is done, 0 to 1.
    Raises ``DataDirError`` for what is no data directory or can't be read, ``DataDirLocked`` when a server has it.
    """
    real = os.path.realpath(path)
    try:
        names = os.listdir(real)
        files = os.listdir(os.path.join(real, "shards")) if "shards" in names else []
    except OSError as error:
        raise DataDirError(f"{path} can't be read as a data directory: {error}.") from error
    found = sorted(int(match[1]) for name in files if (match := _DATABASE.fullmatch(name)))
    if "manifest.json" not in names and not found:
        raise DataDirError(f"{path} is not a data directory: it has no manifest.json.")
    with kept_out(real, "Stop it first, or examine a copy."):
        report = Report(path=real)
        manifest = _examine_manifest(real, report)
        numbers = sorted({*found, *(range(manifest.shards) if manifest is not None else ())})
        report.shards = len(numbers)
        for number in numbers:
            shards = manifest.shards if manifest is not None else len(found)
            if number >= shards:
                report.findings.append(
                    Finding("damage", f"shards/{number:04d}.db", f"The manifest knows {shards} shards only.", RESTORE)
                )
                continue
            examine_shard(
                report,
                number,
                identity=None if manifest is None else manifest.identity,
                slot_of=slot_of,
                slots=None if manifest is None else slot_range(number, shards),
                deep=deep,
                progress=progress,
            )
        _examine_leftovers(real, files, report)
        _examine_room(real, numbers, report)
        return report


def _examine_manifest(real: str, report: Report) -> datadir.Manifest | None:
    path = os.path.join(real, "manifest.json")
    if is_symlink(path):
        report.findings.append(
            Finding("damage", "manifest.json", "It is a symbolic link.", "Put the file itself there.")
        )
    try:
        manifest = datadir.read_manifest(real)
    except DataDirError as error:
        report.findings.append(
            Finding(
                "damage",
                "manifest.json",
                f"{error.detail}",
                "Restore manifest.json from a copy of this directory; a new one would not fit.",
            )
        )
        return None
    report.identity = manifest.identity
    if manifest.sum is None:
        report.findings.append(Finding("note", "manifest.json", "It has no checksum: an older version wrote it."))
    return manifest


def _examine_leftovers(real: str, files: list[str], report: Report) -> None:
    known = {"manifest.json", "lock", "shards", "run", datadir.TOKENS_NAME, datadir.BACKUP_NAME, audit.NAME}
    known |= {trash.NAME, "lost+found"}
    if os.path.lexists(os.path.join(real, datadir.RESHARD_NAME)):
        known |= {datadir.RESHARD_NAME, "reshard", "shards.old"}
        report.findings.append(
            Finding(
                "damage",
                datadir.RESHARD_NAME,
                "It is on its way to another number of shards, and that was interrupted.",
                "Run `actord reshard` again: it goes on where it was.",
            )
        )
    for name in sorted(set(os.listdir(real)) - known):
        report.findings.append(Finding("note", name, "This file is none of actord's, or an interrupted start left it."))
    for name in sorted(files):
        if not _SHARD_FILE.fullmatch(name):
            report.findings.append(
                Finding("note", f"shards/{name}", "It was left by an interrupted step, or is none of actord's.")
            )


def _examine_room(real: str, numbers: list[int], report: Report) -> None:
    state = os.statvfs(real)
    room = state.f_bavail * state.f_frsize
    if room < LOW_ROOM_BYTES:
        report.findings.append(
            Finding("note", "", f"The disk has {room // 1024:,} KiB of room left.", "Make room before it is full.")
        )
    for number in numbers:
        path = datadir.shard_paths(real, number)[1]
        try:
            state_of = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISREG(state_of.st_mode) and state_of.st_size == 0:
            report.findings.append(
                Finding(
                    "note",
                    f"shards/{number:04d}.ballast",
                    "The ballast is let go: the disk was full.",
                    "The next start takes it again if there is room.",
                )
            )
