"""A systemd of its own for a test: the first process of a process namespace, with its own mounts and control groups.

What the test's units do stays in there: ``/run``, ``/var/lib``, ``/etc``, ``/srv`` and ``/opt`` are private, and all of
it ends with its first process. ``/opt/actord`` has the package under test and what it needs: readable for the service's
user, and not below a home or /tmp, which the units' sandbox hides. It takes root; ``why_not`` says what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import actord

SYSTEMD = Path("/lib/systemd/systemd")
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.05
UNIT_STUBS = ("sysinit", "basic", "sockets", "shutdown", "network", "multi-user", "test")

_INIT = """\
set -e
mount --make-rprivate /
mount --make-rshared /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind {base}/lib /var/lib
mount --bind {base}/etc /etc
mount --bind {base}/opt /opt
mount --bind {base}/srv /srv
mount --bind {site} /opt/actord/site
mount --bind {python} /opt/actord/python
export container=test SYSTEMD_UNIT_PATH=/etc/systemd/system:{base}/units
exec {systemd} --system --unit=test.target --log-target=console --log-level=info --show-status=no
"""


def why_not() -> str:
    """Why it can't run here; empty when it can."""
    if os.geteuid() != 0:
        return "a systemd of its own takes root"
    for command in ("unshare", "nsenter", "systemctl"):
        if shutil.which(command) is None:
            return f"{command} is not installed"
    if not SYSTEMD.exists():
        return "systemd is not installed"
    tried = subprocess.run(
        [*_UNSHARE, "sh", "-c", "mount -t tmpfs t /sys/fs/cgroup && mount -t cgroup2 c /sys/fs/cgroup"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--cgroup", "--mount-proc", "--kill-child")


class Manager:
    """``base`` is a folder that every user may enter. ``user`` is a system user that exists in here alone."""

    def __init__(self, base: Path, user: str) -> None:
        self.base = base
        for folder in (
            "lib",
            "opt/actord/bin",
            "opt/actord/site",
            "opt/actord/python",
            "opt/actord/lib",
            "srv",
            "units",
        ):
            (base / folder).mkdir(parents=True)
        subprocess.run(["cp", "--archive", "/etc", str(base / "etc")], check=True)
        shutil.rmtree(base / "etc/systemd/system", ignore_errors=True)
        (base / "etc/systemd/system").mkdir(parents=True)
        with (base / "etc/passwd").open("a") as passwd:
            passwd.write(f"{user}:x:64991:64991::/var/lib/{user}:/usr/sbin/nologin\n")
        for name in UNIT_STUBS:
            (base / "units" / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        self._install()
        script = base / "init"
        script.write_text(
            _INIT.format(base=base, systemd=SYSTEMD, site=sysconfig.get_path("purelib"), python=sys.base_prefix)
        )
        self._log = (base / "log").open("wb")
        self._process = subprocess.Popen(
            [*_UNSHARE, "bash", str(script)], stdout=self._log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )

    def starts(self) -> bool:
        """Wait until it has started; False when it ends instead."""
        while self._process.poll() is None:
            if self._first() and self.ctl("is-system-running").stdout.strip() in ("running", "degraded"):
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _install(self) -> None:
        """The package as it is here, and a command that runs it: both found below /opt/actord alone."""
        package = self.base / "opt/actord/lib/actord"
        shutil.copytree(Path(actord.__file__).parent, package)
        for layer in ("configs", "server", "shards", "storage"):
            source = Path(__import__(f"actord.{layer}", fromlist=["__file__"]).__file__ or "").parent
            if not (package / layer).exists():
                shutil.copytree(source, package / layer)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        command = self.base / "opt/actord/bin/actord"
        command.write_text(
            f"#!/bin/sh\nexport PYTHONPATH=/opt/actord/lib:/opt/actord/site LD_LIBRARY_PATH=/opt/actord/python/lib\n"
            f'exec /opt/actord/python/bin/{version} -P -m actord.server.cli "$@"\n'
        )
        command.chmod(0o755)

    def add(self, name: str, text: str) -> None:
        path = self.base / "units" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``systemctl``, talking to this manager."""
        return self.run("systemctl", "--no-pager", *words)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Any command, in there."""
        first = self._first()
        assert first is not None, self.log()
        return subprocess.run(
            ["nsenter", "--target", str(first), "--mount", "--pid", "--cgroup", *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        told = self.ctl("show", unit, *(f"--property={one}" for one in properties)).stdout
        return dict(line.split("=", 1) for line in told.splitlines())

    def until(self, true: Callable[[], object]) -> None:
        """Wait until ``true()`` is."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not true():
            assert time.monotonic() < deadline, self.log()
            assert self._process.poll() is None, self.log()
            time.sleep(POLL_SECONDS)

    def log(self) -> str:
        return (self.base / "log").read_text(errors="replace")

    def _first(self) -> int | None:
        """The first process of the namespace, seen from here, once it is systemd."""
        try:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
                return int(children[0])
        except OSError:
            pass
        return None

    def close(self) -> None:
        """The end of its first process is the end of all the others; ``unshare`` sees to that."""
        self._process.kill()
        self._process.wait()
        self._log.close()
