"""The units of configs/ under systemd itself, with their whole sandbox: one service for all tests of this module.

It is the first process of a namespace (``tests/support/manager.py``), which takes root: elsewhere these tests skip.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import pages, sessions
from tests.support.manager import PATIENCE_SECONDS, Manager, why_not

ROOT = Path(__file__).parent.parent.parent
UNIT = "actord.service"
# What a test needs that a stranger's machine need not have: its words in a file, and a watchdog for the impatient.
DROP_IN = """\
[Service]
StandardOutput=append:/opt/words
StandardError=append:/opt/words
ExecStopPost=+/bin/sh -c 'echo $SERVICE_RESULT >>/opt/results'
WatchdogSec=2s
RestartSec=100ms
"""


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


class Service:
    """The server of ``examples/account.py``, as the units start it."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.port, self.other_port = free_ports()
        program = manager.base / "opt/program"
        program.mkdir()
        shutil.copy(ROOT / "examples" / "account.py", program)
        (program / "actord.toml").write_text('main = "account.py"\n[server]\nworkers = 1\n')
        # Readable for root alone: the service gets it as a credential.
        (manager.base / "etc/actord").mkdir(0o700)
        made = manager.run(
            *("/opt/actord/bin/actord", "token", "new", "--scope", "@door:call", "--file", "/etc/actord/tokens.json")
        )
        assert made.returncode == 0, made.stderr
        self.token = made.stdout.strip()
        for kind in ("service", "socket"):
            text = (ROOT / "configs" / f"actord.{kind}").read_text()
            text = text.replace("#LoadCredential=", "LoadCredential=").replace("#Environment=", "Environment=")
            manager.add(f"actord.{kind}", text.replace("/srv/actord", "/opt/program").replace(":8000", f":{self.port}"))
        manager.add(f"{UNIT}.d/test.conf", DROP_IN)
        assert manager.ctl("daemon-reload").returncode == 0

    def show(self, name: str) -> str:
        return self.manager.show(UNIT, name)[name]

    @property
    def pid(self) -> int:
        """The main process, as its own namespace counts."""
        return int(self.show("MainPID"))

    def deposit(self) -> int:
        """A durable call; the money in the account after it. Waits while the service is away: the socket is there."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/accounts/alice/deposit",
            b'{"amount": 1}',
            {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
                return int(json.load(response)["balance"])
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{error}: {error.read().decode()}") from None

    def words(self) -> str:
        return (self.manager.base / "opt/words").read_text()

    def results(self) -> list[str]:
        """How each of its lives ended, in systemd's words."""
        return (self.manager.base / "opt/results").read_text().split()

    def run(self, script: str) -> str:
        return self.manager.run("sh", "-c", script).stdout

    def worker(self) -> int:
        return int(self.run("pgrep -f actord.shards.worker").split()[0])

    def kill(self, pid: int, number: signal.Signals) -> None:
        assert self.manager.run("kill", f"-{number.name.removeprefix('SIG')}", str(pid)).returncode == 0


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    why = why_not()
    if why:
        pytest.skip(why)
    # Not pytest's folder: the service's user has to get there.
    base = Path(tempfile.mkdtemp(prefix="actord-systemd-"))
    base.chmod(0o755)
    manager = Manager(base, user="actord")
    try:
        if not manager.starts():
            pytest.skip("systemd does not come up in a namespace here")
        yield Service(manager)
    finally:
        manager.close()
        shutil.rmtree(base)


def test_it_is_started_by_its_first_client_and_says_how_it_is(service: Service) -> None:
    assert service.manager.ctl("start", "actord.socket").returncode == 0
    assert service.show("ActiveState") == "inactive"
    assert service.deposit() == 1
    assert (service.show("ActiveState"), service.show("SubState")) == ("active", "running")
    assert re.fullmatch(r"account: (\d+ calls/s, )?[01] instances?, 1 shard", service.show("StatusText"))
    assert f"listening on http://127.0.0.1:{service.port}" in service.words()


def test_the_sandbox_is_on_and_the_server_works_in_it(service: Service) -> None:
    status = dict(line.split(":\t", 1) for line in service.run(f"cat /proc/{service.pid}/status").splitlines())
    assert (status["NoNewPrivs"], status["Seccomp"], int(status["CapBnd"], 16)) == ("1", "2", 0)
    assert set(status["Uid"].split()) == {"64991"}
    # Its worker is pinned, and its commits are synced by the kernel's own asynchronous I/O.
    mask = next(
        line for line in service.run(f"cat /proc/{service.worker()}/status").splitlines() if "Cpus_allowed:" in line
    )
    assert int(mask.split()[1].replace(",", ""), 16).bit_count() == 1
    assert "fsyncs run in a thread" not in service.words()
    assert service.run("stat -c '%a %U' /var/lib/actord /run/actord").split() == ["700", "actord"] * 2


def test_tokens_come_as_a_credential_that_workers_do_not_see(service: Service) -> None:
    assert service.run("stat -c '%a %U' /etc/actord/tokens.json").split() == ["600", "root"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"http://127.0.0.1:{service.port}/-/openapi.json", timeout=PATIENCE_SECONDS)
    assert "CREDENTIALS_DIRECTORY" in service.run(f"cat /proc/{service.pid}/environ")
    assert "CREDENTIALS_DIRECTORY" not in service.run(f"cat /proc/{service.worker()}/environ")


def test_a_restart_refuses_nobody_and_loses_nothing(service: Service) -> None:
    before = service.deposit()
    assert service.manager.ctl("restart", "--no-block", UNIT).returncode == 0
    assert [service.deposit() for _ in range(20)] == list(range(before + 1, before + 21))
    service.manager.until(lambda: service.show("ActiveState") == "active")


def test_a_reload_that_is_refused_fails_and_changes_nothing(service: Service) -> None:
    pid, worker, before = service.pid, service.worker(), service.deposit()
    program = service.manager.base / "opt/program/account.py"
    good = program.read_text()
    program.write_text("import nothing_of_this_name\n")
    assert service.manager.ctl("reload", UNIT).returncode != 0
    assert (service.pid, service.worker(), service.show("ActiveState")) == (pid, worker, "active")
    assert "The reload was refused" in service.words()
    program.write_text(good)
    assert service.deposit() == before + 1


def test_a_worker_that_hangs_starves_the_watchdog(service: Service) -> None:
    before, pid = service.deposit(), service.pid
    service.kill(service.worker(), signal.SIGSTOP)
    service.manager.until(lambda: service.show("NRestarts") == "1")
    assert service.deposit() == before + 1
    assert service.pid != pid
    assert service.results() == ["success", "watchdog"]


def test_what_can_not_work_is_not_tried_again(service: Service) -> None:
    program = service.manager.base / "opt/program/account.py"
    good = program.read_text()
    program.write_text("import nothing_of_this_name\n")
    assert service.manager.ctl("restart", UNIT).returncode != 0
    assert (service.show("ActiveState"), service.show("ExecMainStatus")) == ("failed", "78")
    program.write_text(good)
    assert service.manager.ctl("start", UNIT).returncode == 0
    assert service.deposit() > 1


def test_the_page_installs_a_service_that_survives(service: Service) -> None:
    """The commands of docs/service.md, word for word, but for the port; each says what the page shows."""
    manager = service.manager
    page = pages.ROOT / "docs" / "service.md"
    (manager.base / "srv/.curlrc").write_text("silent\nshow-error\n")
    path = 'export PATH="$0:$PATH" CURL_HOME=/srv; '
    for block in pages.blocks(page, "console"):
        for command, expected in sessions.commands(block):
            words = command.replace(":8000", f":{service.other_port}")
            done = manager.run("bash", "-c", f"{path}cd / && {words} 2>&1", "/opt/actord/bin")
            assert sessions.fits(expected, done.stdout), f"{block}: `{command}` says\n{done.stdout}"
            assert done.returncode == 0, command
            if command.startswith("actord init"):
                project = manager.base / "srv/shop/actord.toml"
                project.write_text(project.read_text().replace("[server]", f"[server]\nport = {service.other_port}"))
    assert manager.ctl("stop", "shop.socket", "shop.service").returncode == 0


def test_a_stop_is_clean(service: Service) -> None:
    assert service.manager.ctl("stop", "actord.socket", UNIT).returncode == 0
    assert (service.show("ActiveState"), service.show("Result")) == ("inactive", "success")
    assert list((service.manager.base / "lib/actord/shards").glob("*.clean"))
    assert not (service.manager.base / "run").exists()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", service.port), timeout=30)
