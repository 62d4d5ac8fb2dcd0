"""Fronts that share a listening socket, as two acceptors in one loop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from actord.server.accepting import Acceptor


class Front:
    """An acceptor, and how many connections it got."""

    def __init__(self, listening: socket.socket) -> None:
        self.count = 0
        front = self

        class Taken(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                front.count += 1
                self.transport = transport

        self.acceptor = Acceptor(listening.dup(), Taken)


@pytest.fixture(params=["tcp", "unix"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    sock = socket.socket(socket.AF_UNIX if request.param == "unix" else socket.AF_INET)
    sock.bind(str(tmp_path / "s") if request.param == "unix" else ("127.0.0.1", 0))
    sock.listen(100)
    yield sock
    sock.close()


def come(listening: socket.socket, count: int) -> list[socket.socket]:
    clients = [socket.socket(listening.family) for _ in range(count)]
    for client in clients:
        client.connect(listening.getsockname())
    return clients


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - each iteration of the loop is looked at
            await asyncio.sleep(0)


def test_connections_that_come_at_once_are_shared(listening: socket.socket) -> None:
    async def run() -> tuple[int, int]:
        clients = come(listening, 40)
        one, other = Front(listening), Front(listening)
        await until(lambda: one.count + other.count == 40)
        one.acceptor.close()
        other.acceptor.close()
        for client in clients:
            client.close()
        return one.count, other.count

    assert asyncio.run(run()) == (20, 20)


def test_after_its_end_a_front_takes_nothing_and_the_others_do(listening: socket.socket) -> None:
    async def run() -> tuple[int, int]:
        one, other = Front(listening), Front(listening)
        one.acceptor.close()
        one.acceptor.close()
        clients = come(listening, 3)
        await until(lambda: other.count == 3)
        other.acceptor.close()
        for client in clients:
            client.close()
        return one.count, other.count

    assert asyncio.run(run()) == (0, 3)


def test_a_front_without_descriptors_goes_on_when_it_has_some(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actord.server.accepting.PAUSE_SECONDS", 0.01)
    real, failures = socket.socket.accept, [errno.EMFILE, errno.ECONNABORTED, errno.EAGAIN]

    def accept(self: socket.socket) -> Any:
        if failures:
            number = failures.pop(0)
            raise OSError(number, os.strerror(number))
        return real(self)

    async def run() -> int:
        monkeypatch.setattr("socket.socket.accept", accept)
        front = Front(listening)
        clients = come(listening, 1)
        await until(lambda: front.count == 1)
        front.acceptor.close()
        clients[0].close()
        return front.count

    assert asyncio.run(run()) == 1
