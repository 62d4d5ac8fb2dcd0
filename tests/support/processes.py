"""Waiting for processes and for what they report: always for the event itself, with a generous bound."""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from actord.settings import Settings

from tests.support import run_supervisor, warm

PATIENCE_SECONDS = 60.0


def wait_until_gone(pid: int) -> None:
    """Return when no process has this number any more; it need not be a child of ours."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(PATIENCE_SECONDS * 1000), f"process {pid} is still there"
    finally:
        os.close(fd)


class FakeServer:
    """A real supervisor process over fake children, and the children's reports."""

    def __init__(
        self,
        tmp_path: Path,
        settings: Settings,
        *,
        front: str = "-",
        worker: str = "-",
        environ: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> None:
        """``environ``: beside the test's own. ``before``: a command that runs the supervisor's."""
        self._path = tmp_path / f"events-{time.monotonic_ns()}"
        self._events = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._events.bind(str(self._path))
        self._reports: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        # The kernel keeps ten datagrams; the eleventh would hold up a child.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.seen: list[dict[str, Any]] = []
        words = [msgspec.json.encode(settings).decode(), front, worker, str(self._path)]
        environment = {**os.environ, **(environ or {})}
        # A session of its own, as under a terminal: Ctrl-C goes to the process group.
        self.process: subprocess.Popen[bytes] | warm.Running
        if before:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-P", run_supervisor.__file__, *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=environment,
            )
        else:
            self.process = warm.Running(run_supervisor.main, words, environment)

    def until(self, event: str, who: str = "", count: int = 1) -> dict[str, Any]:
        """Read reports until ``event`` was seen ``count`` times from here on; returns the last one."""
        return self.until_true(lambda report: report["event"] == event and who in ("", report["who"]), count)

    def until_true(self, fits: Callable[[dict[str, Any]], bool], count: int = 1) -> dict[str, Any]:
        while True:
            report = self._reports.get(timeout=PATIENCE_SECONDS)
            self.seen.append(report)
            if fits(report):
                count -= 1
                if count == 0:
                    return report

    def url(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; returns the exit code and what stood on standard output and standard error."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b'{"event": "end", "who": ""}', str(self._path))  # behind everything that was reported
        self.until("end")
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()

    def _read(self) -> None:
        while report := self._events.recv(1 << 20):
            self._reports.put(json.loads(report))

    def events(self, event: str) -> list[dict[str, Any]]:
        return [report for report in self.seen if report["event"] == event]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        self._events.shutdown(socket.SHUT_RD)  # ends the thread
        self._reader.join()
        self._events.close()
