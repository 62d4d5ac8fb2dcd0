"""Rooms under kill -9 of their worker: what was delivered, in which order, how often. Audited from what is stored."""

from __future__ import annotations

import os
import random
import re
import threading
import time

from tests.support.server import Server
from tests.support.websockets import CLOSE, Socket

LONG = bool(os.environ.get("ACTORD_TEST_LONG"))
KILLS = 40 if LONG else 4
CLIENTS = 6
PER_ROUND = 150


class Client(threading.Thread):
    """Sends numbered messages, and keeps what comes back until the socket ends or it is told to leave."""

    def __init__(self, server: Server, room: str, user: str) -> None:
        super().__init__(daemon=True)
        self.user = user
        self.room = room
        self.socket = Socket(("127.0.0.1", server.port), f"/actors/Room/{room}?user={user}")
        self.sent = 0
        self.seen: list[tuple[int, str]] = []
        self.end: tuple[int, str] | None = None
        self.arrived = threading.Condition()
        self.start()

    def run(self) -> None:
        while True:
            got = self.socket.receive()
            with self.arrived:
                if got is None or got.opcode is CLOSE:
                    self.end = (1006, "") if got is None else (got.code, got.reason)
                    self.arrived.notify_all()
                    return
                seq, _, rest = got.data.decode().partition(" ")
                self.seen.append((int(seq), rest))
                self.arrived.notify_all()

    def send(self) -> None:
        try:
            self.socket.text(f"message {self.sent}")
        except OSError:
            return  # it was closed: the reader says with which code
        self.sent += 1

    def wait_own(self, number: int) -> bool:
        """Until the own message has come back; False when the socket has ended."""
        wanted = f"{self.user} message {number}"
        with self.arrived:
            assert self.arrived.wait_for(
                lambda: self.end is not None or any(rest == wanted for _, rest in self.seen[-2_000:]), 30
            ), f"{self.user} waited in vain for {number}"
        return self.end is None


def test_no_message_is_lost_doubled_or_out_of_order_while_workers_are_killed(serve):
    """Busy clients have messages under way when their worker is killed: such a message is done, or it closes its own
    socket with 1012 and is the last of it. Quiet ones send while the worker is away, and stay for ever.
    """
    server = serve("rooms.py", settings={"server.workers": 1, "server.restart_delay_max": 0.1})
    draw = random.Random(11)
    quiet = [Client(server, f"room{number % 2}", f"quiet{number}") for number in range(CLIENTS)]
    gone: list[Client] = []
    busy: list[Client] = []
    for _ in range(KILLS):
        while len(busy) < CLIENTS:
            number = len(gone) + len(busy)
            busy.append(Client(server, f"room{number % 2}", f"busy{number}"))
        worker = server.worker_of(0)
        for client in quiet:
            assert client.sent == 0 or client.wait_own(client.sent - 1), f"{client.user} was closed: {client.end}"
        due = draw.randrange(PER_ROUND * CLIENTS)
        for number in range(PER_ROUND * CLIENTS):
            busy[number % CLIENTS].send()
            if number == due:
                time.sleep(draw.random() * 0.004)  # somewhere in the middle of its work; nothing waits for this
                server.kill_child(worker)
            if number >= due:
                quiet[number % CLIENTS].send()
        gone += [client for client in busy if not client.wait_own(client.sent - 1)]
        busy = [client for client in busy if client not in gone]
    for client in quiet + busy:
        assert client.wait_own(client.sent - 1), f"{client.user} was closed: {client.end}"
        client.socket.close(1000)
        client.join(30)
        assert client.end == (1000, "")
    print(f"{KILLS} kills: {len(gone)} sockets closed with 1012, {len(busy) + len(quiet)} never")
    audit(server, quiet + busy + gone)
    assert server.unexpected(r"was ended by SIGKILL; it is started again$") == []


def audit(server: Server, clients: list[Client]) -> None:
    for name in {client.room for client in clients}:
        stored: list[str] = []
        while page := server.result("Room", name, "history", len(stored)):
            stored += page
        mine = {client.user: client for client in clients if client.room == name}
        counts = dict.fromkeys(mine, 0)
        for entry in stored:  # each user's messages, exactly once and in order
            user, number = re.fullmatch(r"(\w+) message (\d+)", entry).groups()
            assert int(number) == counts[user], f"{entry} is not the next of {user}, which is {counts[user]}"
            counts[user] += 1
        for user, client in mine.items():
            assert client.end is not None
            if client.end[0] == 1000:
                assert counts[user] == client.sent
            else:
                assert client.end == (1012, "The worker was lost while a message was handled.")
                assert counts[user] <= client.sent
            # What came back is what is stored, under the same number, without a repetition.
            numbers = [seq for seq, _ in client.seen]
            assert numbers == sorted(set(numbers))
            assert all(stored[seq - 1] == rest for seq, rest in client.seen)
        codes = sorted(f"{client.user} {client.end[0]}" for client in mine.values() if client.end)
        assert server.result("Room", name, "closed") == codes, "every socket that was let in was closed once"
        assert server.result("Room", name, "count") == 0
