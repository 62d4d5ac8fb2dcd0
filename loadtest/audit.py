"""The accounts behind a system under test, and the proof that every answered debit was written.

Promises:
1. Each debit that this module or wrk makes is noted, so what the balances must be is known at any time.
2. ``audit`` reads all balances and compares: at least the answered debits are gone (nothing acknowledged was lost, no
   answer came without its write), and at most what wrk had under way when it stopped, or what failed, on top of them.

This client is Python and slow on purpose of being exact; it runs only outside the timed cells.
"""

from __future__ import annotations

import http.client
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from actord.loadtest.measure import WrkResult

NAMES = 10_000
OPENING_BALANCE = 1_000_000_000
CLIENTS = 16
HOT = "acct-1"


class AuditError(Exception):
    """A system answered a plain call in a way that no audit can be built on."""


@dataclass(slots=True)
class Ledger:
    """How many debits of 1 were made on all accounts: ``answered`` surely written, ``uncertain`` perhaps."""

    answered: int = 0
    uncertain: int = 0

    def add(self, run: WrkResult, connections: int) -> None:
        """Note a run of wrk. What was under way at its end, or ended in an error, may or may not have been written."""
        self.answered += run.answered
        self.uncertain += connections + sum(run.errors.values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """``written`` debits were found; right when between ``answered`` and ``answered + uncertain``."""

    what: str
    answered: int
    uncertain: int
    written: int

    @property
    def holds(self) -> bool:
        return self.answered <= self.written <= self.answered + self.uncertain

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"holds": self.holds}


class Book(ABC):
    """What the accounts of one system must hold, and how they are read.

    ``names``: how many accounts. ``READING``: what asking for one balance takes out of it.
    """

    READING = 0

    def __init__(self, names: int | None = None) -> None:
        self.names = NAMES if names is None else names
        self.ledger = Ledger()

    @abstractmethod
    def open(self) -> None:
        """Put the opening balance on each name, once. Raises AuditError when one does not hold exactly that."""

    @abstractmethod
    def total(self) -> int:
        """The sum of all balances."""

    @abstractmethod
    def balance(self, name: str) -> int:
        """The balance of one name."""

    @abstractmethod
    def debit_one_by_one(self, times: int) -> None:
        """So many debits of the hot name on one connection, each sent when the one before it was answered."""

    def audit(self) -> Verdict:
        """Compare all balances with the ledger."""
        answered, uncertain = self.ledger.answered, self.ledger.uncertain
        written = self.names * OPENING_BALANCE - self.total()
        return Verdict("all accounts, whole run", answered, uncertain, written)

    def audit_hot(self, before: int, run: WrkResult, connections: int) -> Verdict:
        """Compare one run on the hot name with its balance; ``balance`` gave ``before`` just ahead of the run."""
        own = Ledger()
        own.add(run, connections)
        written = before - self.READING - self.balance(HOT)
        return Verdict(f"hot name, {connections} connections", own.answered, own.uncertain, written)


class Accounts(Book):
    """Client of one system's accounts at ``/actors/Account/{name}/{method}`` on 127.0.0.1, or below another prefix.

    A system is asked for a balance by a debit of 1, which the ledger notes: all have that method.
    """

    READING = 1

    def __init__(self, port: int, prefix: str = "/actors/Account/", names: int | None = None) -> None:
        super().__init__(names)
        self.port = port
        self.prefix = prefix

    def answers(self) -> bool:
        """Whether a debit of an account that nobody opened is answered; it writes nothing."""
        try:
            with closing(self._connect(2)) as connection:
                self._call(connection, "nobody", "debit", 1)
        except (OSError, AuditError, http.client.HTTPException):
            return False
        return True

    def open(self) -> None:
        def deposit(connection: http.client.HTTPConnection, name: str) -> int:
            return _balance(self._call(connection, name, "deposit", OPENING_BALANCE))

        wrong = [value for value in self._each(deposit) if value != OPENING_BALANCE]
        if wrong:
            raise AuditError(f"{len(wrong)} accounts do not open with {OPENING_BALANCE}, such as one with {wrong[0]}")

    def total(self) -> int:
        found = self._each(lambda connection, name: self._debit(connection, name) + 1)
        self.ledger.answered += len(found)
        return sum(found)

    def balance(self, name: str) -> int:
        with closing(self._connect()) as connection:
            found = self._debit(connection, name)
        self.ledger.answered += 1
        return found + 1

    def debit_one_by_one(self, times: int) -> None:
        with closing(self._connect()) as connection:
            for _ in range(times):
                self._debit(connection, HOT)
        self.ledger.answered += times

    def _connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def _each(self, ask: Callable[[http.client.HTTPConnection, str], int]) -> list[int]:
        """Ask for every name, on CLIENTS connections."""

        def share(first: int) -> list[int]:
            with closing(self._connect()) as connection:
                return [ask(connection, f"acct-{i}") for i in range(first, self.names + 1, CLIENTS)]

        with ThreadPoolExecutor(CLIENTS) as pool:
            return [value for part in pool.map(share, range(1, CLIENTS + 1)) for value in part]

    def _debit(self, connection: http.client.HTTPConnection, name: str) -> int:
        """Debit 1; the new balance. Raises AuditError when the account refuses."""
        reply = self._call(connection, name, "debit", 1)
        if not isinstance(reply, dict) or reply.get("ok") is not True:
            raise AuditError(f"a debit of {name} was refused: {reply!r}")
        return _balance(reply)

    def _call(self, connection: http.client.HTTPConnection, name: str, method: str, amount: int) -> Any:
        body = json.dumps({"amount": amount})
        connection.request("POST", f"{self.prefix}{name}/{method}", body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        text = reply.read()
        if reply.status != 200:
            raise AuditError(f"{method} of {name} was answered {reply.status}: {text[:300].decode(errors='replace')}")
        return json.loads(text)


def _balance(reply: Any) -> int:
    """The balance in a reply: the bare number, or the member of that name."""
    value = reply.get("balance") if isinstance(reply, dict) else reply
    if not isinstance(value, int):
        raise AuditError(f"a call was answered without a balance: {reply!r}")
    return value
