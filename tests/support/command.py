"""The real command in a process of its own, and a real server of a program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support import warm
from tests.support.processes import PATIENCE_SECONDS, wait_until_gone

COMMAND = [sys.executable, "-P", "-m", "actord.server.cli"]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("ACTORD_")}


def actord(
    *words: str | Path, cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, in a process that is warm (see ``warm``)."""
    given = [str(word) for word in words]
    environment = {**CLEAN, **(environ or {})}
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        code = warm.run(given, str(cwd or Path.cwd()), environment, str(out), str(err), PATIENCE_SECONDS)
        return subprocess.CompletedProcess(given, code, out.read_text(), err.read_text())


class ActordServer:
    """``actord serve`` (or another command) that is ready; ``url`` is its address. Close it with ``stop``."""

    def __init__(self, *words: str | Path, stderr: Path, environ: Mapping[str, str] | None = None) -> None:
        self._stderr = stderr
        with open(stderr, "ab") as words_to:
            self.process = subprocess.Popen(
                [*COMMAND, *map(str, words)],
                env={**CLEAN, **(environ or {})},
                stdout=subprocess.PIPE,
                stderr=words_to,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    @property
    def words(self) -> str:
        return self._stderr.read_text()

    def children(self) -> dict[str, int]:
        """Names such as ``worker-0`` -> process id, as they are now."""
        found: dict[str, int] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                line = (entry / "cmdline").read_text().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == self.process.pid and "-m" in line:
                role = line[line.index("-m") + 1].rpartition(".")[2]
                found[f"{role}-{sum(name.startswith(role) for name in found)}"] = int(entry.name)
        return found

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """POST ``body`` as JSON, or GET without one; returns the status and the decoded answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; returns the exit code once every child has gone."""
        children = self.children()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(PATIENCE_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
        for pid in children.values():
            wait_until_gone(pid)
        return code
