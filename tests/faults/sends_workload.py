"""A program for the power-cut replay: two workers, a shard each, whose actors send money to each other.

    sends_workload.py DATA RUNTIME

Transfers between a few accounts, many at a time; then one worker is killed, later both, and each time its successor
goes on with what was under way; at last they are drained.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import actord
import msgspec
import orjson
from actord.settings import App, Settings, Storage
from actord.shards.link import Link, Waiter
from actord.shards.slots import shard_of_slot, slot_of
from actord.shards.wire import CALL
from actord.storage.datadir import open_data_dir

PATIENCE_SECONDS = 60.0  # a worker that does not come up fails the recording, instead of keeping it for ever

SHARDS = 2
ACCOUNTS = [f"acct-{number}" for number in range(6)]
OPENED = 1_000
PHASES = (14, 10, 6)  # transfers of each account before the first kill, the second, and the end
CHECKPOINT_BYTES = 65_536
PROGRAM = Path(__file__).parent.parent / "system" / "programs" / "transfers.py"


class Answer(Waiter):
    def __init__(self) -> None:
        self.done: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def on_reply(self, status: int, body: bytes, head: bytes | None) -> None:
        self.done.set_result((status, body))

    def on_lost(self, begun: bool) -> None:
        self.done.set_result((503, b""))


def path_of(runtime: str, worker: int) -> str:
    return f"{runtime}/worker-{worker}.sock"


class Life:
    """One worker process, from its start to its end."""

    def __init__(self, data: str, runtime: str, index: int) -> None:
        self.path = path_of(runtime, index)
        settings = Settings(
            app=App(root=str(PROGRAM.parent), main=PROGRAM.name),
            storage=Storage(shards=SHARDS, ballast=0, checkpoint_wal=CHECKPOINT_BYTES),
        )
        directory = open_data_dir(data, shards=SHARDS, ballast=0)
        listener = socket.socket(socket.AF_UNIX)
        Path(self.path).unlink(missing_ok=True)
        listener.bind(self.path)
        listener.listen()
        self.control, theirs = socket.socketpair()
        with theirs, listener:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "actord.shards.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno(), listener.fileno()],
            )
            self.say(
                {
                    "boot": "worker",
                    "index": index,
                    "cpu": None,
                    "listen": listener.fileno(),
                    "own": [index],
                    "links": [{"path": path_of(runtime, number), "shards": [number]} for number in range(SHARDS)],
                    "shards": SHARDS,
                    "supervisor": os.getpid(),
                    "settings": msgspec.to_builtins(settings),
                    "runtime_dir": runtime,
                    "version": actord.__version__,
                    "data_dir": data,
                    "identity": directory.identity,
                }
            )
        directory.close()

    def say(self, message: dict[str, Any]) -> None:
        self.control.sendall(orjson.dumps(message) + b"\n")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)


class Driver:
    def __init__(self, runtime: str) -> None:
        self._links = [
            Link(path_of(runtime, n), caller="front-0", begun_path=f"{runtime}/begun-{n}") for n in range(SHARDS)
        ]
        for link in self._links:
            link.connect()

    async def call(self, name: str, method: str, *args: Any) -> None:
        answer = Answer()
        link = self._links[shard_of_slot(slot_of("Account", name), SHARDS)]
        deadline = int((monotonic() + 60) * 1000)
        link.submit(answer, CALL, "Account", name, method, 0, deadline, orjson.dumps(args))
        status, body = await answer.done
        if status not in (200, 503):
            raise SystemExit(f"{method} was answered {status}: {body!r}")

    async def transfers(self, phase: int, count: int) -> None:
        rng = random.Random(phase)

        async def of(giver: str) -> None:
            for number in range(count):
                taker = rng.choice([name for name in ACCOUNTS if name != giver])
                await self.call(giver, "transfer", taker, rng.randint(1, 9), f"{giver}/{phase}/{number}")

        await asyncio.gather(*(of(giver) for giver in ACCOUNTS))


async def run(data: str, runtime: str) -> Sequence[Life]:
    lives = [Life(data, runtime, index) for index in range(SHARDS)]
    driver = Driver(runtime)
    await asyncio.gather(*(driver.call(name, "open", OPENED) for name in ACCOUNTS))
    await driver.transfers(0, PHASES[0])
    lives[1].kill()
    lives[1] = Life(data, runtime, 1)
    await driver.transfers(1, PHASES[1])
    for life in lives:
        life.kill()
    lives = [Life(data, runtime, index) for index in range(SHARDS)]
    await driver.transfers(2, PHASES[2])
    await asyncio.sleep(1.0)  # what is under way arrives; the replay needs no particular end
    return lives


def main() -> None:
    data, runtime = sys.argv[1:]
    lives = asyncio.run(asyncio.wait_for(run(data, runtime), PATIENCE_SECONDS))
    for life in lives:
        life.say({"drain": 30})
    sys.exit(max(life.process.wait(60) for life in lives))


if __name__ == "__main__":
    main()
