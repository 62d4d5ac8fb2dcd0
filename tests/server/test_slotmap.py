"""``GET /-/map``: any client can find the owner of a name with what stands in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from actord.server.slotmap import SlotMap
from actord.shards.slots import SLOTS, shard_of_slot, slot_of

from tests.support.front_process import FrontProcess


def links(workers: int, shards: int, *, direct: bool = True) -> list[dict[str, Any]]:
    return [
        {"path": f"w{index}", "shards": list(range(index, shards, workers))}
        | ({"direct": f"/run/direct-{index}.sock"} if direct else {})
        for index in range(workers)
    ]


def document(slots: SlotMap) -> Any:
    return json.loads(slots.respond([])[2])


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("shards", [1, 4, 7, 1024])
def test_every_slot_is_the_worker_s_that_owns_its_shard(workers: int, shards: int) -> None:
    workers = min(workers, shards)
    found = document(SlotMap(links(workers, shards), shards, "e", "t"))
    owner = {
        slot: worker["worker"]
        for worker in found["workers"]
        for first, last in worker["slots"]
        for slot in range(first, last + 1)
    }
    assert owner == {slot: shard_of_slot(slot, shards) % workers for slot in range(SLOTS)}
    assert sum(last - first + 1 for worker in found["workers"] for first, last in worker["slots"]) == SLOTS


def test_the_hash_is_the_one_that_the_map_describes() -> None:
    """Written from the words of the map alone; ``slot_of`` itself is pinned by tests/shards/test_slots.py."""
    assert document(SlotMap(links(1, 1), 1, "e", "t"))["hash"] == {
        "of": "type, one NUL byte, name, in UTF-8",
        "steps": ["crc32 (IEEE)", "times 2654435761 modulo 2^32", "shift right by 22 bits"],
        "slots": 1024,
    }
    for type_, name in [("Account", "alice"), ("Room", "日本語"), ("A", "x" * 512), ("Account", "a/b c%2F")]:
        mixed = crc32(f"{type_}\0{name}".encode()) * 2654435761 % 2**32
        assert mixed >> 22 == slot_of(type_, name)


def test_without_direct_calls_there_is_no_address_and_no_ticket() -> None:
    found = document(SlotMap(links(2, 2, direct=False), 2, "e", "t"))
    assert found["ticket"] is None
    assert [worker["direct"] for worker in found["workers"]] == [None, None]


def test_who_may_not_call_everything_gets_the_map_without_addresses_and_ticket_under_a_tag_of_its_own() -> None:
    slots = SlotMap(links(2, 2), 2, "e", "t")
    _, head, body = slots.respond([], ticket=False)
    found = json.loads(body)
    assert found == document(slots) | {"ticket": None, "workers": [w | {"direct": None} for w in found["workers"]]}
    assert b'ETag: "e"' not in head
    assert slots.respond([("if-none-match", '"e"')], ticket=False)[0] == 200
    assert slots.respond([("if-none-match", '"e-public"')])[0] == 200


def test_a_front_answers_the_map_with_its_epoch_and_says_when_it_is_the_same(tmp_path: Path) -> None:
    with FrontProcess(tmp_path, start_workers=False) as front, front.connect() as client:
        client.get("/-/map")
        answer = client.answer()
        tag = answer.headers["etag"]
        assert (answer.status, tag) == (200, f'"{answer.json["epoch"]}"')
        assert answer.headers["cache-control"] == "private, no-cache"
        client.get("/-/map", f'If-None-Match: "other", {tag}\r\n')
        client.get("/-/map", 'If-None-Match: "other"\r\n')
        client.send(b"POST /-/map HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        same, other, posted = client.answers(3)
        assert (same.status, same.body, same.headers["etag"]) == (304, b"", tag)
        assert other.status == 200
        assert posted.status == 405
