"""The facts about the machine without which a figure means nothing: cores, kernel, versions, disk."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import psutil

PACKAGES = ("actord", "uvloop", "httptools", "apsw", "orjson", "fastapi", "uvicorn", "asyncpg", "pydantic")
# File systems that keep nothing on a disk: a flush there costs nothing and proves nothing.
VOLATILE = {"tmpfs", "ramfs"}


def file_system(directory: Path) -> str:
    """The type of the file system that holds ``directory``, such as ``ext4``."""
    mounts = [(Path(part.mountpoint), part.fstype) for part in psutil.disk_partitions(all=True)]
    path = directory.resolve()
    # The longest mount point above the path holds it; of several mounts on one point the last is on top.
    holding = [(len(point.parts), i, kind) for i, (point, kind) in enumerate(mounts) if path.is_relative_to(point)]
    return max(holding)[2] if holding else "unknown"


def facts(directory: Path) -> dict[str, object]:
    """What the report states about the machine; ``directory`` is where the systems keep their data."""
    return {
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": file_system(directory),
        "load_at_start": round(os.getloadavg()[0], 2),
        "wrk": _first_line("wrk", "-v"),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": _first_line("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(*command: str) -> str | None:
    """The first line that a program prints about itself; wrk prints its version with an exit status of 1."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    return lines[0].strip() if lines else None
