"""A real file system that loses its power: ext4 on a loop device, shut down without a flush of its journal.

``EXT4_IOC_SHUTDOWN`` with ``NOLOGFLUSH`` aborts the journal at once: what was not synced is gone, and every later call
fails with EIO. Then the server is killed, the file system mounted again (its journal is replayed) and served again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import math
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

from tests.history.audit import audit_run
from tests.history.recorder import History, deposits, registers
from tests.support.server import Server

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
NOLOGFLUSH = 2
DISK_MIB = 64
SETTINGS = {
    "server.workers": 2,
    "storage.shards": 2,
    "storage.checkpoint_wal": 131_072,
    "storage.ballast": 262_144,
    "server.restart_delay_max": 0.1,
}


class Disk:
    """An ext4 of its own at ``path``."""

    def __init__(self, folder: Path) -> None:
        self.image, self.path = folder / "disk.img", folder / "disk"
        self.path.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(DISK_MIB * 1024 * 1024)
        _run("mkfs.ext4", "-q", "-F", str(self.image))
        self.mount()

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self.image), str(self.path))

    def umount(self) -> None:
        """Processes that were killed may still be letting go of their files: tried again for as long as that takes."""
        end = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return _run("umount", str(self.path))
            except OSError as error:
                if "busy" not in str(error) or time.monotonic() > end:
                    raise
            time.sleep(0.05)

    def power_off(self) -> None:
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        finally:
            os.close(fd)


BUSY_SECONDS = 20.0


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def disk() -> Iterator[Disk]:
    with tempfile.TemporaryDirectory() as folder:
        made = Disk(Path(folder))
        try:
            yield made
        finally:
            with contextlib.suppress(OSError):
                made.umount()


@functools.cache
def unavailable() -> str:
    """Why no such disk can be had here; empty when it can."""
    if os.geteuid() != 0:
        return "mounting a file system needs root"
    if shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        return "mkfs.ext4 is not installed"
    try:
        with disk() as made:
            made.power_off()
    except OSError as error:
        return f"no ext4 on a loop device that can be shut down: {error}"
    return ""


def rounds(count: int, successes: int, go_on=lambda: True) -> tuple[int, History, list[str]]:
    """Load, power cut, mount, start, audit. Returns the number of rounds, the last history and what was wrong."""
    with disk() as made:
        server = Server("books.py", made.path / "data", settings=SETTINGS)
        floors: dict[int, int] = {}
        total = History()
        try:
            server.start()
            for number in range(count):
                if number and not go_on():
                    return number, total, []
                keys = [f"{number}-{key}" for key in range(6)]
                history = asyncio.run(_until_the_power_goes(server, made, number, keys, successes))
                made.umount()
                made.mount()
                since = server.mark()
                server.start()
                wrong = audit_run(history, server, keys, least=successes, since=since, floors=floors)
                total.operations += history.operations
                total.count += history.count
                if wrong:
                    return number + 1, total, wrong
        finally:
            server.close()
    return count, total, []


async def _until_the_power_goes(server: Server, made: Disk, number: int, keys: list[str], successes: int) -> History:
    history = History()
    stop = asyncio.Event()
    port = server.port
    clients = [asyncio.create_task(deposits(history, port, keys, n, stop)) for n in range(12)]
    clients.append(asyncio.create_task(registers(history, port, [f"{number}-r"], 20, stop)))
    await history.successes(successes)
    off = monotonic()
    made.power_off()
    stop.set()
    killing = asyncio.create_task(asyncio.to_thread(_end, server))
    await asyncio.gather(*clients, killing)
    # Nobody hears an answer of a machine without power. (These can be wrong, too: an fsync that is under way when the
    # shutdown comes may return 0 although its blocks were never entered into the file.)
    for operation in history.operations:
        if operation.outcome == "ok" and operation.returned > off:
            operation.outcome, operation.returned, operation.value = "unknown", math.inf, None
    return history


def _end(server: Server) -> None:
    server.kill()
