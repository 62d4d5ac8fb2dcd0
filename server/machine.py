"""The machine that a server is to run on: its clock, limits, cores and memory, and the versions of what we stand on.

Nothing is changed, and what can't be found out is said to be so. What is judged is told apart from how it was found
out: each ``judge_...`` is a function of plain values.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import math
import os
import platform
import resource
import struct
import sys
import time
from pathlib import Path

import apsw
import psutil
from actord.settings import Settings
from actord.storage.findings import Check

WATCHED_SECONDS = 0.05  # how long the clock is looked at
STEP_SECONDS = 0.01
SLOW_CLOCK_SECONDS = 0.000001  # for one look at it
KERNEL = (4, 18)  # has the asynchronous fdatasync
SQLITE = (3, 51, 3)
SPARE_DESCRIPTORS = 1_024
PROCESS_BYTES = 120 * 1024 * 1024  # of a worker beside its instances; of a front
_CGROUP = Path("/sys/fs/cgroup")
_UNSYNCED = 0x40  # STA_UNSYNC of adjtimex(2)
_TIMEX_BYTES, _TIMEX_STATUS = 208, 40
_NO_LIMIT = 1 << 60


def machine_checks(settings: Settings | None = None, shards: int | None = None) -> list[Check]:
    """Look at this machine. ``settings`` are those of the server, else the defaults; ``shards`` those of its data."""
    settings = settings or Settings()
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    workers = settings.server.workers or cores
    if shards is not None:
        workers = min(workers, shards)
    return [
        judge_clock(clock_synced(), clock_moved(), clock_cost()),
        judge_cores(cores, quota, workers, fronts=settings.server.fronts),
        judge_governor(_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"), _driver()),
        judge_memory(
            psutil.virtual_memory().total,
            memory_limit(),
            workers * (settings.actors.memory_target + PROCESS_BYTES) + settings.server.fronts * PROCESS_BYTES,
        ),
        judge_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1], settings.http.connections + SPARE_DESCRIPTORS),
        judge_requests(_number("/proc/sys/fs/aio-nr"), _number("/proc/sys/fs/aio-max-nr"), workers),
        judge_versions(platform.release(), apsw.sqlite_lib_version(), sys.version_info[:3]),
    ]


# -- the clock


def clock_synced() -> bool | None:
    """Does the kernel know that somebody keeps its clock right? None where it can't be asked."""
    if struct.calcsize("P") != 8 or sys.platform != "linux":
        return None
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) == -1:
            return None
    except (AttributeError, OSError):
        return None
    status: int = struct.unpack_from("i", buffer, _TIMEX_STATUS)[0]
    return not status & _UNSYNCED


def clock_moved(seconds: float = WATCHED_SECONDS) -> float:
    """By how many seconds the clock was moved while it was looked at."""
    before = time.time() - time.monotonic()
    time.sleep(seconds)
    return time.time() - time.monotonic() - before


def clock_cost() -> float:
    """Seconds for one look at the monotonic clock."""
    looks = 1_000
    before = time.perf_counter()
    for _ in range(looks):
        time.monotonic()
    return (time.perf_counter() - before) / looks


def judge_clock(synced: bool | None, moved: float, cost: float, now: float | None = None) -> Check:
    now = time.time() if now is None else now
    facts = {"synchronised": synced, "moved_seconds": round(moved, 6), "look_ns": round(cost * 1e9)}
    if now < 1_735_689_600:  # 2025: before this was written
        return Check(
            "clock",
            "problem",
            f"It is {time.strftime('%Y-%m-%d', time.gmtime(now))} by this machine's clock. Alarms go by it.",
            "Set it, and have it kept right (chrony, systemd-timesyncd).",
            facts,
        )
    if abs(moved) > STEP_SECONDS:
        return Check(
            "clock",
            "note",
            f"It was moved by {moved:+.3f} s while it was looked at. Alarms go by it.",
            "Have it kept right by one program that moves it slowly (chrony, systemd-timesyncd).",
            facts,
        )
    if synced is False:
        return Check(
            "clock",
            "note",
            "Nobody keeps it right: alarms come as early or late as it is wrong.",
            "Run chrony or systemd-timesyncd; in a virtual machine its host may do it unseen.",
            facts,
        )
    if cost > SLOW_CLOCK_SECONDS:
        return Check(
            "clock",
            "note",
            f"A look at it takes {cost * 1e6:.1f} µs, which each call pays a few times.",
            "The kernel has a slow clock source: see /sys/devices/system/clocksource/clocksource0.",
            facts,
        )
    if synced is None:
        return Check("clock", "note", "Whether it is kept right can't be found out here.", facts=facts)
    return Check("clock", "ok", "kept right, and steady", facts=facts)


# -- cores and memory


def cpu_quota(root: Path = _CGROUP, own: str | None = None) -> float | None:
    """The cores' time that the control groups of this process leave it; None without a limit."""
    found = []
    for folder in _groups(root, own):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                found.append(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            given = int((folder / "cpu.cfs_quota_us").read_text())
            if given > 0:
                found.append(given / int((folder / "cpu.cfs_period_us").read_text()))
    return min(found, default=None)


def memory_limit(root: Path = _CGROUP, own: str | None = None) -> int | None:
    """The bytes that the control groups of this process leave it; None without a limit."""
    found = []
    for folder in _groups(root, own):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                found.append(int((folder / name).read_text()))
    return min((limit for limit in found if limit < _NO_LIMIT), default=None)


def _groups(root: Path, own: str | None) -> list[Path]:
    """The folders of our control groups and those above them, of both versions."""
    try:
        text = Path("/proc/self/cgroup").read_text() if own is None else own
    except OSError:
        return []
    folders = []
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        tops = [root] if not controllers else [root / controllers, *(root / one for one in controllers.split(","))]
        for top in tops:
            parts = [part for part in path.split("/") if part and part != ".."]
            folders += [top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return folders


def judge_cores(cores: int, quota: float | None, workers: int, *, fronts: int) -> Check:
    facts = {"cores": cores, "quota": quota, "workers": workers, "fronts": fronts}
    words = f"{_count(cores, 'core')} for {_count(workers, 'worker')} and {_count(fronts, 'front')}"
    if quota is not None and quota < min(workers, cores):
        fit = max(1, math.floor(quota))
        return Check(
            "cores",
            "note",
            f"{words}, but a control group allows the time of {quota:g}: beyond it all are stopped for a while.",
            f"Set server.workers = {fit} for a server whose data directory is not made yet, or raise the limit.",
            facts,
        )
    if workers > cores:
        return Check(
            "cores", "note", f"{words}: workers share cores, and are not tied to one.", "Fewer workers do more.", facts
        )
    return Check("cores", "ok", words, facts=facts)


def judge_governor(governor: str, driver: str) -> Check:
    facts = {"governor": governor, "driver": driver}
    if not governor:
        return Check("frequency", "ok", "not ours to choose: the host's, or fixed", facts=facts)
    if governor == "powersave" and driver not in ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp"):
        return Check(
            "frequency",
            "note",
            "The governor powersave keeps the cores at their lowest frequency.",
            "Choose schedutil or performance (cpupower frequency-set -g performance).",
            facts,
        )
    return Check("frequency", "ok", f"governor {governor}", facts=facts)


def judge_memory(total: int, limit: int | None, wanted: int) -> Check:
    there = total if limit is None else min(total, limit)
    facts = {"total_bytes": total, "limit_bytes": limit, "wanted_bytes": wanted}
    whose = "of this machine" if there == total else "that a control group allows"
    words = f"{_gib(there)} {whose}; full workers take up to {_gib(wanted)}"
    if wanted > there:
        return Check(
            "memory",
            "note",
            f"{words}: the kernel may kill one before it evicts instances.",
            "Lower runtime.memory_target, which each worker has for itself, or server.workers.",
            facts,
        )
    return Check("memory", "ok", words, facts=facts)


# -- limits and versions


def judge_files(hard: int, wanted: int) -> Check:
    endless = hard == resource.RLIM_INFINITY
    facts = {"limit": None if endless else hard, "wanted": wanted}
    if not endless and hard < wanted:
        return Check(
            "open files",
            "note",
            f"{hard:,} are allowed here, and http.connections needs {wanted:,}: more connections than that fail.",
            "Raise ulimit -n (LimitNOFILE= of a service; the units of `actord systemd` do), or lower http.connections.",
            facts,
        )
    return Check("open files", "ok", "no limit" if endless else f"{hard:,} are allowed", facts=facts)


def judge_requests(used: int | None, allowed: int | None, workers: int) -> Check:
    facts = {"used": used, "allowed": allowed}
    if used is None or allowed is None:
        return Check("kernel's syncs", "note", "no asynchronous I/O here: a thread of each worker syncs", facts=facts)
    if allowed - used < workers * 16:
        return Check(
            "kernel's syncs",
            "note",
            f"{used:,} of {allowed:,} requests of asynchronous I/O are taken: a thread of each worker syncs instead.",
            "Raise fs.aio-max-nr (sysctl).",
            facts,
        )
    return Check("kernel's syncs", "ok", f"{allowed - used:,} requests of asynchronous I/O are free", facts=facts)


def judge_versions(kernel: str, sqlite: str, python: tuple[int, ...]) -> Check:
    ours = {"actord": _version("actord"), "uvloop": _version("uvloop"), "apsw": _version("apsw")}
    facts = {"kernel": kernel, "sqlite": sqlite, "python": ".".join(map(str, python)), **ours}
    words = f"Linux {kernel}, Python {facts['python']}, SQLite {sqlite}, uvloop {ours['uvloop']}"
    if _numbers(sqlite) < SQLITE:
        return Check(
            "versions",
            "problem",
            f"{words}: SQLite before 3.51.3 can damage a database when its log begins anew.",
            "Install a newer apsw: it brings its own SQLite.",
            facts,
        )
    if _numbers(kernel)[:2] < KERNEL:
        return Check(
            "versions", "note", f"{words}: before Linux 4.18 a thread has to sync.", "A newer kernel is quicker.", facts
        )
    return Check("versions", "ok", words, facts=facts)


def _driver() -> str:
    return _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver")


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _number(path: str) -> int | None:
    text = _read(path)
    return int(text) if text.isdigit() else None


def _numbers(version: str) -> tuple[int, ...]:
    """``6.1.0-rc2`` as (6, 1, 0)."""
    found = []
    for part in version.split("-")[0].split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _gib(number: int) -> str:
    return f"{number / (1 << 30):,.1f} GiB"
