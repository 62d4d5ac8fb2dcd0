"""Power cuts under a real worker, by replay of all that it did: what it acknowledged is there, turns are whole.

An acknowledgement is a reply that began to be written to the link's socket, in the same trace as the files.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator

import orjson
import pytest
from actord.codec import decode
from actord.errors import ActordError
from actord.shards.slots import SLOTS, slot_of
from actord.shards.wire import REPLY, BatchReader, WireError
from actord.storage.datadir import open_data_dir
from actord.storage.sqlite import SqliteStore

from tests.faults import powercut, worker_workload
from tests.system.programs import ledger

pytestmark = pytest.mark.skipif(bool(powercut.unavailable()), reason=powercut.unavailable())

WORKLOAD = os.path.join(os.path.dirname(__file__), "worker_workload.py")
SEED = 20_261_122
STATES = int(os.environ.get("ACTORD_TEST_POWERCUT_POINTS", "200"))
PER_LEDGER = worker_workload.FIRST_LIFE + worker_workload.SECOND_LIFE


@pytest.fixture
def scratch() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=powercut.scratch_parent()) as directory:
        yield directory


class Audit:
    """The replies in the trace, and what a state of the disk has to hold after so many of them."""

    def __init__(self, log: powercut.Log, identity: str) -> None:
        self.identity = identity
        self.acknowledged: list[tuple[str, int]] = []  # mark, number; in the order of the trace
        self._replies: dict[int, int] = {}
        self.commits: set[int] = set()
        readers: dict[tuple[int, str], BatchReader] = defaultdict(BatchReader)
        garbled = set()
        for event in log.events:
            if not isinstance(event, powercut.Send) or (event.pid, event.target) in garbled:
                continue
            try:
                frames = readers[event.pid, event.target].feed(event.data)
            except WireError:  # the control line, and other streams that are no link
                garbled.add((event.pid, event.target))
                continue
            replies = [decode_reply(frame) for frame in frames if frame[0] == REPLY]
            self._replies[id(event)] = len(replies)
            self.acknowledged += replies

    def acks(self, send: powercut.Send) -> int:
        return self._replies.get(id(send), 0)

    def check(self, directory: str, state: powercut.State) -> str | None:
        promised = dict(self.acknowledged[: state.ack_count])
        path = os.path.join(directory, "shards", "0000.db")
        if not os.path.exists(path) and not promised:
            return None  # before the shard was made
        try:
            store = SqliteStore.open(
                path,
                shard=0,
                identity=self.identity,
                slots=range(SLOTS),
                checkpoint_wal=worker_workload.CHECKPOINT_BYTES,
                page_cache=1024 * 1024,
                lock_wait=0,
            )
        except ActordError as error:
            return f"can't be opened: {error}"
        try:
            self.commits.add(store.commit_seq)
            found: dict[str, int] = {}
            for name in worker_workload.LEDGERS:
                actor = store.find_actor(slot_of("Ledger", name), "Ledger", name)
                rows = {} if actor is None else {key: decode(raw) for key, raw in store.scan(actor)[0]}
                count, total = rows.pop("count", 0), rows.pop("total", 0)
                marks = {key.removeprefix("mark/"): value for key, value in rows.items()}
                if sorted(number for number, _ in marks.values()) != list(range(1, count + 1)):
                    return f"{name} is torn: {count} counted, {len(marks)} marks"
                if total != sum(amount for _, amount in marks.values()):
                    return f"{name} is torn: its sum does not fit its marks"
                problem = None if actor is None else events_problem(name, store, actor, marks)
                if problem is not None:
                    return problem
                wrong = replies_differ(store, actor, marks)
                if wrong:
                    return f"{name}: {wrong}"
                found.update((mark, number) for mark, (number, _) in marks.items())
        except ActordError as error:
            return f"can't be read: {error}"
        finally:
            store.abandon()
        lost = [mark for mark, number in promised.items() if found.get(mark) != number]
        return f"{len(lost)} acknowledged deposits are lost, as {lost[0]}" if lost else None


def events_problem(name: str, store: SqliteStore, actor: int, marks: dict[str, list[int]]) -> str | None:
    """Each deposit emitted one event with its number; the newest are kept."""
    count = len(marks)
    expected = {number: mark for mark, (number, _) in marks.items() if number > count - ledger.EVENTS_KEPT}
    events = store.read_events(actor, after=0, batch=store.commit_seq, limit=1000, limit_bytes=1 << 20)
    found = {event.seq: orjson.loads(event.data) for event in events}
    if found != expected or store.event_log(actor) != (min(expected), count):
        return f"{name} is torn: {count} counted, its events are {store.event_log(actor)} and {found}"
    return None


def replies_differ(store: SqliteStore, actor: int | None, marks: dict) -> str | None:
    """A keyed deposit and its reply are there together, or neither is; and the reply is the deposit's."""
    keyed = {mark for mark, (_, amount) in marks.items() if worker_workload.is_keyed(amount)}
    keys = set() if actor is None else set(store.reply_keys(actor))
    if keys != keyed:
        return f"torn: {len(keyed)} keyed deposits, {len(keys)} replies"
    for key in keys:
        reply = store.read_reply(actor, key)
        assert reply is not None
        if orjson.loads(reply.body)["number"] != marks[key][0]:
            return f"the reply for {key} is another deposit's"
    return None


def decode_reply(frame: list) -> tuple[str, int]:
    _, _, status, body, _ = frame
    assert status == 200, body
    value = orjson.loads(body)
    return value["mark"], value["number"]


def record(tmp_path, variant: str = "") -> tuple[powercut.Log, Audit]:
    data, runtime = tmp_path / "data", tmp_path / "run"
    runtime.mkdir()
    directory = open_data_dir(str(data), shards=1, ballast=0)
    directory.close()
    argv = [sys.executable, WORKLOAD, str(data), str(runtime), *([variant] if variant else [])]
    log = powercut.record(argv, str(data))
    assert log.returncode == 0
    audit = Audit(log, directory.identity)
    assert len(audit.acknowledged) == PER_LEDGER * len(worker_workload.LEDGERS)
    return log, audit


def replay(log, audit, scratch, most, kinds=powercut.KINDS):
    points = powercut.points_of(log, SEED, most)
    return powercut.audit(
        powercut.states(log, SEED, acks=audit.acks, points=points, kinds=kinds), audit.check, scratch=scratch
    )


def test_no_power_cut_takes_back_a_reply_of_a_worker_nor_tears_a_turn(tmp_path, scratch):
    log, audit = record(tmp_path)
    total, wrong = replay(log, audit, scratch, STATES)
    assert wrong == []
    assert total > 100
    assert len(audit.commits) > 5, "the states have to differ"


@pytest.mark.parametrize("bug", ["no-sync", "reply-first"])
def test_the_replay_catches_a_worker_that_replies_before_its_sync(bug, tmp_path, scratch):
    log, audit = record(tmp_path, bug)
    total, wrong = replay(log, audit, scratch, 60, kinds=("dropped", "torn"))
    lost = [line for line in wrong if "acknowledged deposits are lost" in line]
    assert lost, (total, wrong)
