"""A server under a service manager: what it tells, when it feeds the watchdog, and the sockets that it takes over.

The manager is the test itself, or ``systemd-socket-activate``; the children are fakes, which keep their side of the
control line alone. ``tests/system/test_systemd.py`` has all of it under systemd.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from actord.server import vitals
from actord.settings import Server, Settings

from tests.support.datagrams import Datagrams
from tests.support.processes import FakeServer

Start = Callable[..., FakeServer]
WATCHDOG_SECONDS = 0.4

needs_activate = pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not installed"
)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Datagrams]:
    with Datagrams(str(tmp_path / "notify")) as one:
        yield one


@pytest.fixture
def start(tmp_path: Path, manager: Datagrams) -> Iterator[Start]:
    servers: list[FakeServer] = []

    def begin(*, before: Sequence[str] = (), notify: bool = True, worker: str = "-", **server: object) -> FakeServer:
        options = {"port": 0, "workers": 2, "data_dir": str(tmp_path / "data"), **server}
        environ = {"RUNTIME_DIRECTORY": str(tmp_path)}
        if notify:
            environ |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": f"{WATCHDOG_SECONDS * 1e6:.0f}"}
        settings = Settings(server=Server(**options))  # type: ignore[arg-type]
        servers.append(FakeServer(tmp_path, settings, worker=worker, environ=environ, before=before))
        return servers[-1]

    yield begin
    for one in servers:
        one.close()


def test_a_life_is_told_from_its_beginning_to_its_end(start: Start, manager: Datagrams) -> None:
    server = start()
    manager.until_line("READY=1")
    assert manager.seen[-1] == ["READY=1", "STATUS=fake: 0 instances, 2 shards"]
    assert server.end()[0] == 0
    assert len(server.events("ready")) == 3
    manager.until_line("STOPPING=1")
    assert manager.seen[-1][1:] == ["EXTEND_TIMEOUT_USEC=35000000", "STATUS=Finishing what runs, for at most 30 s"]


def test_nobody_is_told_that_it_serves_while_a_process_starts(start: Start, manager: Datagrams) -> None:
    server = start(worker="slow")
    manager.until_line("STATUS=Starting: 1 of 3 processes are ready")
    server.process.kill()
    assert not any("READY=1" in lines for lines in manager.rest())


def test_a_reload_is_told_from_its_beginning_to_its_end_also_when_it_is_refused(
    start: Start, manager: Datagrams
) -> None:
    server = start(stuck_after=0.4)  # the fakes load no program: after this time they are given up
    manager.until_line("READY=1")
    manager.seen.clear()
    server.process.send_signal(signal.SIGHUP)
    manager.until_line("READY=1")
    told = [lines for lines in manager.seen if lines[0] != "WATCHDOG=1"]
    assert [lines[0] for lines in told] == ["RELOADING=1", "READY=1"]
    assert told[0][1].startswith("MONOTONIC_USEC=")
    assert told[1][1].startswith("STATUS=fake: 0 instances, 2 shards. The reload was refused: ")
    code, _, words = server.end()
    assert code == 0
    assert "The reload was refused" in words


def test_children_can_not_speak_to_the_manager(start: Start, manager: Datagrams) -> None:
    server = start()
    for child in (server.until("ready"), server.until("ready"), server.until("ready")):
        environ = Path(f"/proc/{child['pid']}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environ
        assert b"WATCHDOG_USEC" not in environ


def test_the_watchdog_is_fed_while_every_process_answers_and_no_longer(start: Start, manager: Datagrams) -> None:
    server = start(stuck_after=4 * WATCHDOG_SECONDS)
    manager.until_line("READY=1")
    victim = server.until("ready", "worker-1")["pid"]
    for _ in range(3):
        manager.until_line("WATCHDOG=1")
    manager.rest()
    os.kill(victim, signal.SIGSTOP)
    # It is replaced after 16 pings, each of which would feed the watchdog. The successor does, too.
    assert server.until("boot", "worker-1")["life"] == 2
    assert manager.rest().count(["WATCHDOG=1"]) <= 8
    manager.until_line("WATCHDOG=1")
    assert server.end()[0] == 0


def test_a_process_that_is_replaced_does_not_starve_the_watchdog(start: Start, manager: Datagrams) -> None:
    """The supervisor replaces it; a new start of everything would take the other shards away as well."""
    server = start()
    manager.until_line("READY=1")
    os.kill(server.until("ready", "worker-0")["pid"], signal.SIGKILL)
    server.until("ready", "worker-0")
    manager.until_line("WATCHDOG=1")
    assert server.end()[0] == 0


def test_sockets_between_the_processes_go_to_the_runtime_directory(start: Start, tmp_path: Path) -> None:
    server = start()
    folder = Path(server.until("boot")["boot"]["runtime_dir"])
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    server.url()
    assert server.end()[0] == 0
    assert not folder.exists()


# -- what its status says


def child(name: str, *, serves: bool = True, answers: bool = True, **load: int) -> Any:
    return SimpleNamespace(name=name, serves=serves, answers=answers, load=load)


def test_the_status_counts_and_names_who_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(vitals, "monotonic", lambda: now)
    workers = [child("worker-0", instances=1_000, calls=500), child("worker-1", instances=1, calls=0)]
    one = vitals.Vitals(workers, [child("front-0")], 3)
    assert not one.due()
    now += vitals.STATUS_SECONDS
    assert one.due()
    assert one.line("shop") == "shop: 100 calls/s, 1,001 instances, 3 shards"
    now += 10
    workers[0].load["calls"] = 20_500
    workers[1].load["calls"] = 10_000
    workers[1].answers = False
    assert one.line("shop") == "shop: 3,000 calls/s, 1,001 instances, 3 shards; worker-1 does not answer"
    assert not one.all_answer
    now += 10
    workers[0].load = {"instances": 7, "calls": 100, "damaged": 2}  # it began anew
    workers[1] = child("worker-1", serves=False)
    assert one.line("shop") == "shop: 10 calls/s, 7 instances, 3 shards, 2 of them damaged; worker-1 is being replaced"
    assert vitals.Vitals(workers, [child("front-0")], 3).starting() == "Starting: 2 of 3 processes are ready"


# -- socket activation


def activated(start: Start, *listen: str, **server: object) -> tuple[FakeServer, socket.socket]:
    """A supervisor that ``systemd-socket-activate`` starts, and the client that has made it start."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    words = [f"--listen={one.format(port=port)}" for one in listen]
    words += [f"--setenv={name}" for name in ("PYTHONPATH", "PATH") if name in os.environ]  # it hands on nothing else
    begun = start(before=["systemd-socket-activate", *words], notify=False, **server)
    while True:  # until it listens
        try:
            return begun, socket.create_connection(("127.0.0.1", port), timeout=30)
        except ConnectionRefusedError:
            assert begun.process.poll() is None


@needs_activate
def test_sockets_are_taken_over_shared_by_all_fronts_and_outlive_the_server(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    listen = ("127.0.0.1:{port}", str(path))
    server, waiting = activated(start, *listen, fronts=2, port=1, uds=str(tmp_path / "unused"))
    with waiting:
        port = waiting.getpeername()[1]
        assert [server.url(), server.url()] == [f"http://127.0.0.1:{port}", f"unix:{path}"]
        server.until("ready", count=4)
        fronts = [report["sockets"] for report in server.events("boot") if report["who"].startswith("front")]
        assert fronts == [[True, True], [True, True]]
        boots = [report["boot"]["settings"]["server"] for report in server.events("boot")]
        assert {(boot["host"], boot["port"], boot["uds"]) for boot in boots} == {("127.0.0.1", port, "")}
        assert not (tmp_path / "unused").exists()
        assert server.end()[0] == 0
    assert path.exists()  # it is the manager's


@needs_activate
def test_a_public_socket_that_is_handed_over_is_refused(start: Start) -> None:
    server, waiting = activated(start, "0.0.0.0:{port}")
    with waiting:
        code, _, words = server.wait()
    assert code == 78
    assert "reachable from other machines" in words
