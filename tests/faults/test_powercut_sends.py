"""Power cuts under two workers whose actors send to each other, by replay of all that both did to their files.

At every point, whatever each of the two shards has lost: money under way and money in balances is what was there at the
beginning, nothing has come that was not sent or has come twice, and what was acknowledged was sent.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from actord.codec import decode
from actord.errors import ActordError
from actord.shards.slots import slot_of, slot_range
from actord.storage.datadir import open_data_dir, shard_paths
from actord.storage.sqlite import SqliteStore

from tests.faults import powercut
from tests.faults.sends_workload import ACCOUNTS, CHECKPOINT_BYTES, OPENED, PHASES, SHARDS

pytestmark = pytest.mark.skipif(bool(powercut.unavailable()), reason=powercut.unavailable())

WORKLOAD = os.path.join(os.path.dirname(__file__), "sends_workload.py")
SEED = 5
STATES = int(os.environ.get("ACTORD_TEST_POWERCUT_POINTS", "80"))
_SENT = re.compile(rb'\{"sent":"([^"]+)","from":"([^"]+)"\}')


@pytest.fixture
def scratch() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=powercut.scratch_parent()) as directory:
        yield directory


class Audit:
    def __init__(self, log: powercut.Log, identity: str) -> None:
        self.identity = identity
        self.acknowledged: list[str] = []
        self.under_way: set[int] = set()  # how many messages the states had
        self._made: dict[int, int] = {}
        for event in log.events:
            if isinstance(event, powercut.Send):
                marks = [mark.decode() for mark, _ in _SENT.findall(event.data)]
                self._made[id(event)] = len(marks)
                self.acknowledged += marks

    def acks(self, send: powercut.Send) -> int:
        return self._made.get(id(send), 0)

    def check(self, directory: str, state: powercut.State) -> str | None:
        promised = set(self.acknowledged[: state.ack_count])
        try:
            with ExitStack() as stack:
                stores = []
                for shard in range(SHARDS):
                    path = shard_paths(directory, shard)[0]
                    if not os.path.exists(path) and not promised:
                        return None  # before the shard was made
                    stores.append(
                        SqliteStore.open(
                            path,
                            shard=shard,
                            identity=self.identity,
                            slots=slot_range(shard, SHARDS),
                            checkpoint_wal=CHECKPOINT_BYTES,
                            page_cache=1024 * 1024,
                            lock_wait=0,
                        )
                    )
                    stack.callback(stores[-1].abandon)
                return self._judge(stores, promised)
        except ActordError as error:
            return f"can't be read: {error}"

    def _judge(self, stores: list[SqliteStore], promised: set[str]) -> str | None:
        money, opened = 0, 0
        sent: dict[str, list[object]] = {}
        came: dict[str, int] = {}
        for shard, store in enumerate(stores):
            for name in ACCOUNTS:
                slot = slot_of("Account", name)
                actor = store.find_actor(slot, "Account", name) if slot in slot_range(shard, SHARDS) else None
                rows = {} if actor is None else {key: decode(raw) for key, raw in store.scan(actor)[0]}
                money += rows.get("balance", 0)
                opened += "balance" in rows
                sent |= {key[4:]: value for key, value in rows.items() if key.startswith("out/")}
                came |= {key[3:]: times for key, times in rows.items() if key.startswith("in/")}
        waiting = 0
        for shard, store in enumerate(stores):
            for entry in store.list_messages(parked=False, after=0, limit=10_000):
                message = entry.message
                (amount, mark), _ = decode(message.args)
                other = stores[0 if slot_of("Account", message.name) in slot_range(0, SHARDS) else 1]
                noted = other is not store and other.was_received(shard, message.id)
                if noted != (mark in came):
                    return f"{mark} is on its way, and {noted=}, but it has come {came.get(mark, 0)} times"
                if not noted:
                    waiting += 1
                    money += amount
                if message.error is not None:
                    return f"{mark} is parked: {message.error}"
        self.under_way.add(waiting)
        twice = [mark for mark, times in came.items() if times != 1]
        if twice:
            return f"{twice[0]} has come {came[twice[0]]} times"
        if not came.keys() <= sent.keys():
            return f"{min(came.keys() - sent.keys())} has come and was not sent"
        if not promised <= sent.keys():
            return f"{min(promised - sent.keys())} was acknowledged and is lost"
        if money != OPENED * opened:
            return f"there are {money} instead of {OPENED * opened}, {waiting} messages under way"
        return None


def record(tmp_path):
    data, runtime = tmp_path / "data", tmp_path / "run"
    runtime.mkdir()
    directory = open_data_dir(str(data), shards=SHARDS, ballast=0)
    directory.close()
    log = powercut.record([sys.executable, WORKLOAD, str(data), str(runtime)], str(data))
    assert log.returncode == 0
    audit = Audit(log, directory.identity)
    assert len(audit.acknowledged) > sum(PHASES) * len(ACCOUNTS) // 2
    return log, audit


def replay(log, audit, scratch, most, kinds=powercut.KINDS):
    points = powercut.points_of(log, SEED, most, acks=audit.acks)
    return powercut.audit(
        powercut.states(log, SEED, acks=audit.acks, points=points, kinds=kinds), audit.check, scratch=scratch
    )


def test_no_power_cut_makes_or_loses_a_message(tmp_path, scratch):
    log, audit = record(tmp_path)
    total, wrong = replay(log, audit, scratch, STATES)
    assert wrong == []
    assert total > 100
    assert len(audit.under_way) > 3, "the states have to differ"
    # What the replay has to catch in the same trace: syncs that did not happen.
    unsynced = powercut.Log(log.initial, [event for event in log.events if not isinstance(event, powercut.Sync)], 0)
    total, wrong = replay(unsynced, audit, scratch, 20, kinds=("dropped", "torn"))
    assert wrong, f"a planted bug was not caught in {total} states"
