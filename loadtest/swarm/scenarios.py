"""The scenarios: a locustfile, whose classes are what `make load` runs and what locust's page lets one choose.

Each note in the ledger is what the audit compares afterwards: the balance of an account, the orders of a cart, the
messages of a room. Names begin with ``--run``, which is new for each run: what an actor held before is 0.
"""

from __future__ import annotations

import json
import random
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from actord.loadtest.swarm.actors import ActorSocket, ActorUser, Reply
from actord.loadtest.swarm.ledger import Ledger
from gevent.event import Event
from locust import events, task
from websockets.exceptions import ConnectionClosed

LEDGER = Ledger()
PATIENCE_SECONDS = 30.0
ITEMS = [f"item-{number}" for number in range(30)]
ROOM_OF = 10  # people to a room


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _options(parser: Any) -> None:
    parser.add_argument("--run", default=secrets.token_hex(4), help="begins the names of this run's actors")
    parser.add_argument("--names", type=int, default=1000, help="how many accounts and carts there are")
    parser.add_argument("--think", type=float, default=0.0, help="seconds that a user waits between two tasks")
    parser.add_argument("--ledger", default="", include_in_web_ui=False, help="folder for what was answered")


@events.init.add_listener  # type: ignore[untyped-decorator]
def _keep(environment: Any, **_: Any) -> None:
    """Write the ledger at the very end: when locust is told to quit, its users are not yet stopped."""
    folder = environment.parsed_options.ledger

    @events.quit.add_listener  # type: ignore[untyped-decorator]
    def write(**_: Any) -> None:
        if folder:
            LEDGER.write(Path(folder, f"ledger-{secrets.token_hex(8)}.json"))


class Scenario(ActorUser):
    """What the scenarios below share."""

    abstract = True

    def name(self) -> str:
        """One of the run's names."""
        options = self.environment.parsed_options
        return f"{options.run}-{random.randrange(options.names)}"

    def move(self, name: str, amount: int) -> Reply:
        """Deposit (or, below 0, debit) an amount, with a note of what the answer says."""
        change = LEDGER.begin("Account", name, amount)
        method = "deposit" if amount > 0 else "debit"
        reply = self.actor("Account", name).call(method, amount=abs(amount))
        if reply.applied == "no":
            change.settle(0)
        elif reply.ok:
            change.settle(amount if amount > 0 or reply.value["ok"] else 0)
        return reply


class Accounts(Scenario):
    """Deposits and debits, evenly over all accounts: a write for each call, but for debits that are refused."""

    @task(1)
    def deposit(self) -> None:
        self.move(self.name(), 10)

    @task(9)
    def debit(self) -> None:
        self.move(self.name(), -1)


class HotAccount(Accounts):
    """The same with one account for all users."""

    def name(self) -> str:
        return f"{self.environment.parsed_options.run}-hot"


class Mixed(Scenario):
    """Nine reads for each write."""

    @task(90)
    def balance(self) -> None:
        self.actor("Account", self.name()).call("balance")

    @task(5)
    def deposit(self) -> None:
        self.move(self.name(), 1)

    @task(5)
    def debit(self) -> None:
        self.move(self.name(), -1)


class ColdNames(Scenario):
    """Every call goes to an actor that did not exist before."""

    @task
    def open(self) -> None:
        self.move(f"{self.environment.parsed_options.run}-cold-{secrets.token_hex(8)}", 1)


class Shopper(Scenario):
    """One shopper and one cart: fills it, looks, takes back, checks out. The limits of the cart are normal outcomes."""

    def on_start(self) -> None:
        self.customer = f"{self.environment.parsed_options.run}-{secrets.token_hex(8)}"
        self.cart = self.actor("Cart", self.customer, expect=("too_many", "empty"))

    @task(6)
    def add(self) -> None:
        self.cart.call("add", item=random.choice(ITEMS), count=random.randint(1, 3))

    @task(2)
    def look(self) -> None:
        self.cart.call("lines")

    @task(1)
    def remove(self) -> None:
        self.cart.call("remove", item=random.choice(ITEMS))

    @task(1)
    def check_out(self) -> None:
        change = LEDGER.begin("Cart", self.customer, 1)
        reply = self.cart.call("check_out")
        if reply.ok:
            change.settle(1)
        elif reply.applied == "no":
            change.settle(0)


class Chatter(Scenario):
    """One person in a room of ten. A message is answered when it comes back, durable and numbered, to who said it."""

    people = 0

    def on_start(self) -> None:
        self.room = f"{self.environment.parsed_options.run}-room-{Chatter.people // ROOM_OF}"
        Chatter.people += 1
        self.socket: ActorSocket | None = None
        self.last = 0
        self.waits_for, self.came = "", Event()

    def on_stop(self) -> None:
        if self.socket is not None:
            self.socket.close()

    @task
    def say(self) -> None:
        with suppress(OSError, ConnectionClosed):  # counted as failures already
            if self.socket is None or self.socket.closed:
                self.last = 0
                self.socket = self.actor("Room", self.room).socket(self.heard, query="?name=load")
            self.waits_for = secrets.token_hex(8)
            self.came.clear()
            change = LEDGER.begin("Room", self.room, 1)
            with self.timed("WS", "Room.message"):
                self.socket.send(json.dumps({"id": self.waits_for, "text": "hello"}))
                if not self.came.wait(PATIENCE_SECONDS):
                    raise TimeoutError(f"no message came back; closed: {self.socket.closed or 'no'}")
            change.settle(1)

    def heard(self, frame: str | bytes) -> None:
        """Messages come once each, in their order, without a gap, from the moment of the greeting on."""
        for message in json.loads(frame).get("messages", ()):
            if self.last and message["number"] != self.last + 1:
                LEDGER.fault(f"a room's message {message['number']} came after {self.last}")
            self.last = message["number"]
            if message["id"] == self.waits_for:
                self.came.set()
