"""A reload loses no call of clients that call workers themselves, though nothing of theirs is tried again."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

from actord.client import AsyncClient, Client

from tests.support.deploys import Deployed
from tests.support.server import until

RELOADS = 20 if os.environ.get("ACTORD_TEST_LONG") else 2


class Marks:
    """What was done, from all threads: actor -> marks."""

    def __init__(self) -> None:
        self.made: dict[str, set[str]] = {}
        self.failed: list[Any] = []
        self.count = 0
        self.stop = threading.Event()
        self._lock = threading.Lock()

    def done(self, mark: str, result: Any, *names: str) -> None:
        with self._lock:
            self.count += 1
            if result[0] != 1:
                self.failed.append((mark, result))
            for name in names:
                self.made.setdefault(name, set()).add(mark)


def one(client: Any, number: int, count: int) -> tuple[Any, tuple[str, ...]]:
    """A call: of one actor, of a chain over both workers, or one that takes its time."""
    mark, a, b, c = f"{number}-{count}", f"a{count % 5}", f"b{count % 3}", f"c{count % 7}"
    match count % 3:
        case 0:
            return client.actor("Account", c).add(mark), (mark, c)
        case 1:
            return client.actor("Account", a).pay(mark, b, c), (mark, a, b, c)
        case _:
            return client.actor("Account", b).slow(mark, 0.005), (mark, b)


def threads_of(url: str, marks: Marks, client: Client) -> list[threading.Thread]:
    def run(number: int) -> None:
        count = 0
        while not marks.stop.is_set():
            count += 1
            try:
                result, (mark, *names) = one(client, number, count)
                marks.done(mark, result, *names)
            except Exception as error:
                marks.failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    return threads


def loop_of(url: str, marks: Marks) -> threading.Thread:
    async def caller(client: AsyncClient, number: int) -> None:
        count = 0
        while not marks.stop.is_set():
            count += 1
            try:
                call, (mark, *names) = one(client, number, count)
                marks.done(mark, await call, *names)
            except Exception as error:
                marks.failed.append(error)

    async def run() -> None:
        async with AsyncClient(url, direct=True, idempotent=False, retries=0) as client:
            await asyncio.gather(*(caller(client, number) for number in range(10, 18)))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    return thread


def test_reloads_under_direct_calls_lose_none_and_do_none_twice(tmp_path: Path) -> None:
    deployed = Deployed(tmp_path, **{"server.direct": True})
    server, marks = deployed.server, Marks()
    url = f"http://127.0.0.1:{server.port}"
    try:
        with Client(url, direct=True, idempotent=False, retries=0) as client:
            threads = [*threads_of(url, marks, client), loop_of(url, marks)]
            try:
                for number in range(2, RELOADS + 2):
                    before, workers = marks.count, deployed.workers()
                    deployed.version(number)
                    deployed.reload()
                    assert deployed.versions() == {number}
                    assert not deployed.workers() & workers
                    until(lambda before=before: marks.count > before + 50, "clients to go on")  # type: ignore[misc]
            finally:
                marks.stop.set()
                for thread in threads:
                    thread.join(60)
            assert marks.failed == []
            for name, made in marks.made.items():
                found = client.actor("Account", name).marks()
                assert found.keys() >= made
                assert {mark: times for mark, times in found.items() if times != 1} == {}
        assert server.unexpected() == []
        assert server.stop() == 0
        assert not list((Path(server.data_dir) / "run").glob("*"))
    finally:
        deployed.close()
