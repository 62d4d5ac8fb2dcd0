"""A child of the supervisor that only keeps its side of the control line: ``fake_child.py BEHAVIOUR EVENTS FD``.

It reports what happens to it as datagrams to the socket EVENTS, so that a test can wait for it. BEHAVIOUR is a list of
words joined by commas, or ``-``:

    mute          answers no ping
    slow          never becomes ready
    stays         does not leave when it is told to drain
    forks         has a child of its own, which does not look at the control line
    fatal         reports that the program does not load, in each life
    fatal-second  the same, in its second life only
    dies          ends before it is ready
    babbles       says nonsense at SIGUSR1
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import sys
import time
from typing import Any

from actord.shards.control import ControlChannel, boot_child

BEHAVIOUR = set(sys.argv[1].split(","))
EVENTS = sys.argv[2]
PROGRAM = {
    "name": "fake",
    "front_door": False,
    "routes": [],
    "types": [
        {
            "type": "Account",
            "binding": "ACCOUNT",
            "methods": [
                {
                    "name": "debit",
                    "signature": "(amount: int)",
                    "parameters": [{"name": "amount", "annotation": "int", "required": True}],
                    "doc": "",
                }
            ],
        }
    ],
}


def main() -> int:
    sock, boot = boot_child(int(sys.argv[3]))
    who = f"{boot['boot']}-{boot['index']}"
    events = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    events.connect(EVENTS)

    def tell(event: str, **more: Any) -> None:
        events.send(json.dumps({"who": who, "pid": os.getpid(), "event": event, **more}).encode())

    life = 1
    marker = f"{EVENTS}.{who}"
    if os.path.exists(marker):
        with open(marker) as file:
            life = int(file.read()) + 1
    with open(marker, "w") as file:
        file.write(str(life))

    listen = boot["listen"] if isinstance(boot["listen"], list) else [boot["listen"]]
    sockets = [stat.S_ISSOCK(os.fstat(fd).st_mode) for fd in listen]
    tell("boot", life=life, boot=boot, sockets=sockets, stdin=os.readlink("/proc/self/fd/0"))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda n, _: tell(signal.Signals(n).name))
    if "babbles" in BEHAVIOUR:
        signal.signal(signal.SIGUSR1, lambda *_: os.write(sock.fileno(), b"nonsense\n"))
    if "forks" in BEHAVIOUR:
        child = os.fork()
        if child == 0:
            while True:
                time.sleep(3600)
        tell("forked", child=child)
    if "dies" in BEHAVIOUR:
        return 3
    if "fatal" in BEHAVIOUR or ("fatal-second" in BEHAVIOUR and life == 2):
        words = {"message": "the program does not load:\n  line 2", "exit": 78}
        sock.sendall(json.dumps({"fatal": words}).encode() + b"\n")
        return 78
    return asyncio.run(serve(sock, tell))


async def serve(sock: socket.socket, tell: Any) -> int:
    leave = asyncio.Event()

    def on_message(message: dict[str, Any]) -> None:
        if "ping" in message and "mute" not in BEHAVIOUR:
            channel.send({"pong": message["ping"]})
        if "drain" in message:
            tell("drain", limit=message["drain"])
            if "stays" not in BEHAVIOUR:
                leave.set()

    channel = ControlChannel(on_message, leave.set)
    sock.setblocking(False)
    await channel.attach(sock)
    if "slow" in BEHAVIOUR:
        await leave.wait()
        return 0
    channel.send({"ready": True, "pid": os.getpid(), "program": PROGRAM})
    tell("ready")
    await leave.wait()
    tell("leaves")
    return 0


if __name__ == "__main__":
    sys.exit(main())
