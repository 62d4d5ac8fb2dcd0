"""One instance for each name, one call at a time, one owner for each shard."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

import pytest
from actord.shards.slots import shard_of_slot, slot_of

from tests.support.client import Client
from tests.support.server import Server, shards_of

NAMES = [f"cold {number}" for number in range(10)]
CLIENTS, CALLS = 100, 5


def test_100_clients_on_10_cold_names_make_10_activations_and_never_interleave(serve, tmp_path):
    notes = tmp_path / "notes"
    server = serve("probe.py", settings={"server.workers": 2}, environment={"ACTORD_TEST_NOTES": str(notes)})

    async def client(number: int, go: asyncio.Event) -> list[tuple[str, int]]:
        connection = Client(server.port)
        await connection.call("Narrow", "x", "open")  # connected; nothing of Probe is touched
        await go.wait()
        answers = []
        for call in range(CALLS):
            name = NAMES[(number + call) % len(NAMES)]
            reply = await connection.call("Probe", name, "slow_add", 1)
            assert reply.status == 200
            answers.append((name, reply.json()))
        connection.close()
        return answers

    async def run() -> list[tuple[str, int]]:
        go = asyncio.Event()
        clients = [asyncio.create_task(client(number, go)) for number in range(CLIENTS)]
        go.set()
        return [answer for answers in await asyncio.gather(*clients) for answer in answers]

    sums = defaultdict(list)
    for name, total in asyncio.run(run()):
        sums[name].append(total)
    for name in NAMES:
        assert sorted(sums[name]) == list(range(1, CLIENTS * CALLS // len(NAMES) + 1)), "an update was lost"
    lines = [line.split(" ", 1) for line in notes.read_text().splitlines()]
    built = Counter(rest.rpartition(" ")[0] for word, rest in lines if word == "built")
    assert built == dict.fromkeys(NAMES, 1)
    inside: dict[str, bool] = defaultdict(bool)
    for word, rest in lines:
        if word in ("enter", "leave"):
            assert inside[rest] is (word == "leave"), f"two turns of {rest} at a time"
            inside[rest] = word == "enter"
    assert sum(word == "enter" for word, _ in lines) == CLIENTS * CALLS


@pytest.mark.parametrize("workers", [(4, 1, 3, 2)])
def test_another_number_of_workers_keeps_all_data_and_one_owner_for_each_shard(workers, serve):
    names = [f"n{number}" for number in range(40)]
    server = serve("probe.py", settings={"storage.shards": 4, "server.workers": workers[0]})
    for round_, count in enumerate(workers, 1):
        if round_ > 1:
            server.settings["server.workers"] = count
            server.start()
        owned = {child.pid: shards_of(child.pid) for child in server.children("worker")}
        assert len(owned) == count
        assert sorted(shard for shards in owned.values() for shard in shards) == [0, 1, 2, 3]
        for name in names:
            assert server.result("Probe", name, "add", 1) == round_
            owner = server.result("Probe", name, "pid")
            assert shard_of_slot(slot_of("Probe", name), 4) in owned[owner]
        assert server.stop() == 0


def test_more_workers_than_shards_are_not_started(serve):
    server = serve("probe.py", settings={"storage.shards": 1, "server.workers": 2})
    assert len(server.children("worker")) == 1
    assert any("1 shards" in record["message"] for record in server.log)


def test_a_second_server_on_the_directory_is_refused_and_the_first_goes_on(serve, tmp_path):
    first = serve("probe.py")
    second = Server("probe.py", tmp_path / "data").start(wait=False)
    try:
        assert second.wait() == 75
        said = second.text()
        assert str(first.pid) in said, said
        assert str(tmp_path / "data") in said
        assert "Traceback" not in said
    finally:
        second.close()
    assert first.result("Probe", "a", "add", 1) == 1
    assert first.unexpected() == []


def test_the_next_server_starts_at_once_after_a_clean_stop_and_after_a_kill(serve):
    server = serve("probe.py", settings={"server.workers": 2})
    markers = [server.data_dir / "shards" / f"{shard:04d}.db.clean" for shard in range(2)]
    server.result("Probe", "a", "add", 1)
    assert not any(marker.exists() for marker in markers)
    assert server.stop() == 0
    assert all(marker.exists() for marker in markers)
    server.start()
    assert server.result("Probe", "a", "add", 1) == 2
    server.kill()
    assert not any(marker.exists() for marker in markers)
    since = server.mark()
    server.start()
    assert server.result("Probe", "a", "add", 1) == 3
    assert any("recovering" in record["message"] for record in server.log[since:])
