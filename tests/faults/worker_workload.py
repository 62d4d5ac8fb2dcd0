"""A program for the power-cut replay: drives real workers over their own unix link, and no other process of a server.

    worker_workload.py DATA RUNTIME [VARIANT]

Deposits into a few ledgers, many at a time; then the worker is killed, its successor recovers, takes more, and is
drained. Deposit number k of a ledger has the mark ``NAME/k`` and the amount k; every second one has its mark as
idempotency key too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import actord
import msgspec
import orjson
from actord.settings import Actors, App, Settings, Storage
from actord.shards.link import Link, Waiter
from actord.shards.wire import CALL, CALLX
from actord.storage.datadir import open_data_dir

PATIENCE_SECONDS = 60.0  # a worker that does not come up fails the recording, instead of keeping it for ever

LEDGERS = [f"ledger-{number}" for number in range(5)]
FIRST_LIFE, SECOND_LIFE = 42, 9  # deposits for each ledger
AT_ONCE = 3  # of each ledger
CHECKPOINT_BYTES = 65_536
PROGRAM = Path(__file__).parent.parent / "system" / "programs" / "ledger.py"
VARIANTS = Path(__file__).parent.parent / "support" / "worker_variant.py"


def is_keyed(number: int) -> bool:
    return number % 2 == 0


class Deposit(Waiter):
    def __init__(self) -> None:
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def on_reply(self, status: int, body: bytes, head: bytes | None) -> None:
        self.done.set_result(status)

    def on_lost(self, begun: bool) -> None:
        self.done.set_result(503)


class Life:
    """One worker process, from its start to its end."""

    def __init__(self, data: str, runtime: str, variant: str) -> None:
        self.path = f"{runtime}/worker-0.sock"
        settings = Settings(
            actors=Actors(),
            app=App(root=str(PROGRAM.parent), main=PROGRAM.name),
            storage=Storage(shards=1, ballast=0, checkpoint_wal=CHECKPOINT_BYTES),
        )
        directory = open_data_dir(data, shards=1, ballast=0)
        listener = socket.socket(socket.AF_UNIX)
        Path(self.path).unlink(missing_ok=True)
        listener.bind(self.path)
        listener.listen()
        self.control, theirs = socket.socketpair()
        entry = [str(VARIANTS)] if variant else ["-m", "actord.shards.worker"]
        with theirs, listener:
            self.process = subprocess.Popen(
                [sys.executable, "-P", *entry, str(theirs.fileno())],
                pass_fds=[theirs.fileno(), listener.fileno()],
                env=os.environ | {"ACTORD_TEST_VARIANT": variant},
            )
            boot = {
                "boot": "worker",
                "index": 0,
                "cpu": None,
                "listen": listener.fileno(),
                "own": [0],
                "links": [{"path": self.path, "shards": [0]}],
                "shards": 1,
                "supervisor": os.getpid(),
                "settings": msgspec.to_builtins(settings),
                "runtime_dir": runtime,
                "version": actord.__version__,
                "data_dir": data,
                "identity": directory.identity,
            }
            self.say(boot)
        directory.close()

    def say(self, message: dict[str, Any]) -> None:
        self.control.sendall(orjson.dumps(message) + b"\n")

    def drain(self) -> int:
        self.say({"drain": 30})
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)


async def deposits(life: Life, runtime: str, first: int, count: int) -> None:
    link = Link(life.path, caller="front-0", begun_path=f"{runtime}/begun-{life.process.pid}")
    link.connect()
    for start in range(first, first + count, AT_ONCE):
        waiting = []
        for name in LEDGERS:
            for number in range(start, min(start + AT_ONCE, first + count)):
                deposit = Deposit()
                body = orjson.dumps([f"{name}/{number}", number])
                deadline = int((monotonic() + 60) * 1000)
                if is_keyed(number):
                    extras = {"key": f"{name}/{number}"}
                    link.submit(deposit, CALLX, "Ledger", name, "deposit", extras, 0, deadline, body)
                else:
                    link.submit(deposit, CALL, "Ledger", name, "deposit", 0, deadline, body)
                waiting.append(deposit.done)
        for status in await asyncio.gather(*waiting):
            if status != 200:
                raise SystemExit(f"a deposit was answered {status}")
    link.close()


def main() -> None:
    data, runtime, *rest = sys.argv[1:]
    variant = rest[0] if rest else ""
    life = Life(data, runtime, variant)
    asyncio.run(asyncio.wait_for(deposits(life, runtime, 1, FIRST_LIFE), PATIENCE_SECONDS))
    life.kill()
    life = Life(data, runtime, variant)
    asyncio.run(asyncio.wait_for(deposits(life, runtime, FIRST_LIFE + 1, SECOND_LIFE), PATIENCE_SECONDS))
    sys.exit(life.drain())


if __name__ == "__main__":
    main()
