"""What the service manager is told, and the sockets that it hands over: over real sockets and real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from actord.server import notify
from actord.server.notify import Notifier

from tests.support.datagrams import Datagrams


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Datagrams]:
    with Datagrams(str(tmp_path / "notify")) as one:
        yield one


def test_without_a_manager_nothing_is_sent_and_nothing_fails() -> None:
    notifier = Notifier({})
    assert not notifier
    notifier.ready("x")
    notifier.status("y")
    notifier.feed()
    notifier.stopping(1)


def test_the_variables_leave_the_environment(manager: Datagrams) -> None:
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
    assert Notifier(environ).watchdog == 4.0
    assert environ == {"A": "b"}


def test_the_great_changes_are_told_with_their_fields(manager: Datagrams) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    notifier.ready("it\nserves")
    assert manager.next() == ["READY=1", "STATUS=it serves"]
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    reloading, moment, status = manager.next()
    assert (reloading, status) == ("RELOADING=1", "STATUS=Reloading")
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.ready()
    assert manager.next() == ["READY=1"]
    notifier.stopping(2.5)
    assert manager.next() == [
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=7500000",
        "STATUS=Finishing what runs, for at most 2.5 s",
    ]


def test_a_status_is_told_when_it_is_another_one(manager: Datagrams) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    notifier.status("a")
    notifier.status("a")
    notifier.status("b")
    assert [manager.next(), manager.next()] == [["STATUS=a"], ["STATUS=b"]]
    assert manager.empty()


def test_an_abstract_address_is_reached() -> None:
    with Datagrams(f"@actord-test-{os.getpid()}") as manager:
        Notifier({"NOTIFY_SOCKET": manager.address}).ready()
        assert manager.next() == ["READY=1"]


def test_the_watchdog_is_fed_in_half_of_its_time(manager: Datagrams, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(notify, "monotonic", lambda: now)
    notifier = Notifier({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "8000000"})
    notifier.ready()
    assert manager.next() == ["READY=1"]
    fed = []
    while now < 140.0:
        now += 1.9  # as whoever calls it at least every quarter
        notifier.feed()
        if not manager.empty():
            assert manager.next() == ["WATCHDOG=1"]
            fed.append(now)
    gaps = [late - early for early, late in zip([100.0, *fed], fed, strict=False)]
    assert 1.9 < min(gaps) <= max(gaps) <= 4.0


def test_a_watchdog_of_another_process_is_not_ours(manager: Datagrams) -> None:
    assert (
        Notifier({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "8000000", "WATCHDOG_PID": "1"}).watchdog is None
    )
    assert Notifier({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "soon"}).watchdog is None
    assert Notifier({"WATCHDOG_USEC": "8000000"}).watchdog is None


def test_a_manager_that_does_not_read_holds_nobody_up(manager: Datagrams) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    for number in range(1_000):  # more than any queue of datagrams takes
        notifier.status(str(number))
    assert notifier


def test_a_manager_that_went_away_is_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.ready()
    notifier.status("a")
    assert not notifier
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_an_address_of_an_unknown_kind_is_told_and_left(caplog: pytest.LogCaptureFixture) -> None:
    assert not Notifier({"NOTIFY_SOCKET": "vsock:2:1"})
    assert "vsock:2:1" in caplog.text


# -- sockets that are handed over: a process of its own, since they begin at descriptor 3

TAKE = """
import os, sys
from actord.server import inherited
from actord.server.exits import StartError
try:
    found = inherited.take(os.environ)
except StartError as error:
    sys.exit(str(error))
kept = [name for name in os.environ if name.startswith("LISTEN_")]
print([(one.name, one.url(), one.host, os.get_inheritable(one.sock.fileno())) for one in found], kept)
"""


def take(*socks: socket.socket, pid: str = "$$", **environ: str) -> subprocess.CompletedProcess[str]:
    """Hand sockets to a process as a service manager does."""
    moves = "".join(f" {index}<&{sock.fileno()}" for index, sock in enumerate(socks, 3))
    script = f'LISTEN_PID={pid} exec "$0" -c "$1"{moves}'
    return subprocess.run(
        ["bash", "-c", script, sys.executable, TAKE],
        pass_fds=[sock.fileno() for sock in socks],
        env={**os.environ, "LISTEN_FDS": str(len(socks)), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def high(sock: socket.socket) -> socket.socket:
    """The same socket with a number that none of those to be handed over has."""
    with sock:
        import fcntl

        return socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 50))


def tcp(family: socket.AddressFamily = socket.AF_INET, address: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((address, 0))
    sock.listen()
    return high(sock)


def test_sockets_of_every_kind_are_taken_in_their_order(tmp_path: Path) -> None:
    local, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    local.bind(str(tmp_path / "s"))
    abstract.bind(f"\0actord-{os.getpid()}")
    local.listen()
    abstract.listen()
    with tcp() as v4, tcp(socket.AF_INET6, "::1") as v6, high(local) as unix, high(abstract) as hidden:
        done = take(v4, v6, unix, hidden, LISTEN_FDNAMES="web:web6:")
        urls = [f"http://127.0.0.1:{v4.getsockname()[1]}", f"http://[::1]:{v6.getsockname()[1]}"]
        urls += [f"unix:{tmp_path / 's'}", f"unix:@actord-{os.getpid()}"]
    names, hosts = ["web", "web6", "unknown", "unknown"], ["127.0.0.1", "::1", "", ""]
    expected = list(zip(names, urls, hosts, [False] * 4, strict=True))
    assert (done.stdout, done.stderr) == (f"{expected} []\n", "")


def test_sockets_for_another_process_are_not_taken() -> None:
    with tcp() as sock:
        assert take(sock, pid="1").stdout == "[] []\n"


def test_what_can_not_be_served_is_refused_with_words() -> None:
    with high(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as datagrams:
        assert "is no stream socket" in take(datagrams, LISTEN_FDNAMES="a").stderr
    with high(socket.socket()) as deaf:
        assert "(a) that the service manager handed over does not listen" in take(deaf, LISTEN_FDNAMES="a").stderr
    assert "is no socket" in take(LISTEN_FDS="1").stderr
    assert "no number" in take(LISTEN_FDS="one").stderr
