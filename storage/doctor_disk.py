"""The disk under a data directory: what kind of file system it is, how long a sync takes, how much room there is.

1. What is measured is what a commit waits for: 4 KiB written over what is there already, then ``fdatasync``, as in a
   write-ahead log that has been used before. It takes a quarter of a second at most.
2. The file that this needs has no name (``O_TMPFILE``), or loses it at once: nothing is left, whatever happens.
3. What is judged is told apart from how it was found out, so that tests can put any disk before the judge.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

from actord.errors import DataDirError
from actord.storage.datadir import NETWORK_FILE_SYSTEMS, filesystem_of, read_manifest, shard_paths
from actord.storage.findings import Check

PROBE_BYTES = 1024 * 1024
PROBE_WRITE_BYTES = 4096
PROBES = 100
PROBE_SECONDS = 0.25
QUICK_SECONDS = 0.00002  # no flush of a cache that forgets is as quick
SLOW_SECONDS = 0.02  # a turning disk
LOW_ROOM_BYTES = 1 << 30
NO_ROOM_BYTES = 64 * 1024 * 1024
LOW_ROOM_SHARE = 0.05

_MEMORY = frozenset({"tmpfs", "ramfs"})
_OWN_PROMISES = frozenset({"overlay", "aufs", "virtiofs", "vboxsf", "prl_fs", "vfat", "exfat", "ntfs", "ntfs3"})


class Disk(NamedTuple):
    """``cache``: "write back" for a disk that may forget what was not flushed, "write through" for one that does not,
    as the kernel says; empty when it does not say."""

    kind: str
    device: str = ""
    options: frozenset[str] = frozenset()
    cache: str = ""


def disk_checks(path: str) -> list[Check]:
    """Look at the file system that holds the folder ``path``; at the ballast, too, if it is a data directory."""
    real = os.path.realpath(path)
    disk = disk_of(real)
    checks = [judge_kind(disk), _sync(real, disk), _room(real)]
    with contextlib.suppress(DataDirError):
        checks.append(_ballast(real, read_manifest(real).shards))
    return checks


# -- what kind it is


def disk_of(real: str) -> Disk:
    """The disk under a path, as far as the system tells."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            mounts = file.read()
    except OSError:
        return Disk("")
    kind = filesystem_of(real, mounts)
    number = os.stat(real).st_dev
    lines = [line.split(" ") for line in mounts.splitlines()]
    here = [fields for fields in lines if len(fields) > 3 and fields[2] == kind and _is_device(fields[1], number)]
    device, options = (here[-1][0], frozenset(here[-1][3].split(","))) if here else ("", frozenset[str]())
    return Disk(kind, device, options, _cache_of(number))


def _is_device(point: str, number: int) -> bool:
    try:
        return os.stat(point.replace("\\040", " ")).st_dev == number
    except OSError:
        return False


def _cache_of(number: int) -> str:
    base = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    for place in ("queue", "../queue"):  # a partition has that of its disk
        with contextlib.suppress(OSError), open(f"{base}/{place}/write_cache") as file:
            return file.read().strip()
    return ""


def judge_kind(disk: Disk) -> Check:
    facts = {"kind": disk.kind, "device": disk.device, "write_cache": disk.cache}
    on = f"{disk.kind} on {disk.device}" if disk.device.startswith("/") else disk.kind
    if not disk.kind:
        return Check("file system", "note", "It can't be found out which one it is.", facts=facts)
    if disk.kind in NETWORK_FILE_SYSTEMS:
        return Check(
            "file system",
            "problem",
            f"{disk.kind}: a network file system promises too little about syncs and locks. A server refuses it.",
            "Use a local disk.",
            facts,
        )
    if disk.options & {"nobarrier", "barrier=0"}:
        return Check(
            "file system",
            "problem",
            f"{on}, mounted without barriers: a power cut can take what was acknowledged.",
            "Mount it without nobarrier and barrier=0.",
            facts,
        )
    if "ro" in disk.options:
        return Check(
            "file system",
            "problem",
            f"{on}, which can only be read. After an error of the disk the kernel mounts it so.",
            "Look into the system's log (dmesg).",
            facts,
        )
    if disk.kind in _MEMORY:
        return Check(
            "file system", "note", f"{on}: memory. Everything is gone when the machine stops.", "Use a disk.", facts
        )
    if disk.kind in _OWN_PROMISES or disk.kind.startswith("fuse"):
        layer = disk.kind in ("overlay", "aufs")
        what = "the layer of a container, gone with it" if layer else "not made for databases; syncs may promise less"
        todo = "Use a volume of its own, on ext4, XFS or another local file system."
        return Check("file system", "note", f"{on}: {what}.", todo, facts)
    return Check("file system", "ok", on, facts=facts)


# -- how long a sync takes


def _sync(real: str, disk: Disk) -> Check:
    try:
        return judge_sync(measure_syncs(real), disk)
    except OSError as error:
        return Check(
            "sync",
            "note",
            f"It can't be measured: {error.strerror}.",
            "Run this as the user that the server runs as, on a disk with room.",
        )


def measure_syncs(folder: str) -> list[float]:
    """How long each of some syncs took, in seconds. Raises ``OSError`` where no file can be made."""
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # a file system without files that have no name
        fd, name = tempfile.mkstemp(prefix=".actord-doctor-", dir=folder)
        os.unlink(name)
    try:
        os.pwrite(fd, os.urandom(PROBE_BYTES), 0)
        os.fsync(fd)
        block = os.urandom(PROBE_WRITE_BYTES)
        took: list[float] = []
        began = perf_counter()
        while len(took) < PROBES and (perf_counter() - began < PROBE_SECONDS or len(took) < 3):
            os.pwrite(fd, block, len(took) * PROBE_WRITE_BYTES % PROBE_BYTES)
            before = perf_counter()
            os.fdatasync(fd)
            took.append(perf_counter() - before)
        return took
    finally:
        os.close(fd)


def judge_sync(took: Sequence[float], disk: Disk) -> Check:
    middle, longest = statistics.median(took), max(took)
    facts = {"median_ms": round(middle * 1000, 4), "longest_ms": round(longest * 1000, 4), "syncs": len(took)}
    rate = 1 / middle
    words = (
        f"A commit waits about {_ms(middle)} for the disk (the longest of {len(took)} took {_ms(longest)}), so a shard "
        f"commits up to {_round(rate):,} times a second, with as many calls in each as are waiting."
    )
    if disk.kind in _MEMORY:
        return Check("sync", "ok", "Memory: there is nothing to wait for, and nothing that lasts.", facts=facts)
    if middle < QUICK_SECONDS and disk.cache != "write through":
        return Check(
            "sync",
            "note",
            f"A sync takes {_ms(middle)}, which is quicker than a disk that keeps its word, unless its cache has a "
            "battery. A power cut may take what was acknowledged.",
            "Find out whether the disk, its controller or the host of this machine (cache=unsafe) ignores flushes. "
            "Only a power cut shows it for certain.",
            facts,
        )
    if middle > SLOW_SECONDS:
        return Check(
            "sync",
            "note",
            f"{words} That is slow: a turning disk, or a busy one.",
            "Use an SSD of this machine.",
            facts,
        )
    return Check("sync", "ok", words, facts=facts)


def _ms(seconds: float) -> str:
    ms = seconds * 1000
    return f"{ms:.3f} ms" if ms < 0.1 else f"{ms:.2g} ms" if ms < 100 else f"{ms:,.0f} ms"


def _round(number: float) -> int:
    """Two digits that mean something."""
    return int(float(f"{number:.2g}"))


# -- how much room there is


def _room(real: str) -> Check:
    state = os.statvfs(real)
    return judge_room(state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize, state.f_favail, state.f_files)


def judge_room(free: int, size: int, free_files: int, files: int) -> Check:
    """``files``: as many as the file system can hold; 0 when it has no limit."""
    facts = {"free_bytes": free, "size_bytes": size, "free_files": free_files}
    words = f"{_bytes(free)} free of {_bytes(size)}"
    more = "Make room before the disk is full: writes are answered 507 then."
    if free < NO_ROOM_BYTES:
        return Check("room", "problem", f"{words}.", more, facts)
    if files and free_files < 1_000:
        return Check("room", "problem", f"{words}, but room for {free_files} more files only.", "Remove files.", facts)
    if free < min(LOW_ROOM_BYTES, size) or free < size * LOW_ROOM_SHARE:
        return Check("room", "note", f"{words}.", more, facts)
    return Check("room", "ok", words, facts=facts)


def _ballast(real: str, shards: int) -> Check:
    sizes = []
    for number in range(shards):
        try:
            sizes.append(os.lstat(shard_paths(real, number)[1]).st_blocks * 512)
        except OSError:
            sizes.append(-1)
    return judge_ballast(sizes)


def judge_ballast(sizes: Sequence[int]) -> Check:
    """``sizes`` in bytes by shard: 0 for one that was let go, -1 where there is none."""
    held = [size for size in sizes if size > 0]
    facts = {"held": len(held), "shards": len(sizes), "bytes": sum(held)}
    gone, none = sizes.count(0), sizes.count(-1)
    if gone:
        return Check(
            "ballast",
            "note",
            f"{gone} of {len(sizes)} shards have let theirs go: the disk was full.",
            "Make room; the server takes it again by itself.",
            facts,
        )
    if none:
        return Check(
            "ballast",
            "note",
            f"{none} of {len(sizes)} shards have none: on a full disk nothing could be deleted.",
            "Set storage.ballast, if it is 0; the next start takes it.",
            facts,
        )
    return Check("ballast", "ok", f"{_bytes(sum(held))} are held for a full disk", facts=facts)


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"
