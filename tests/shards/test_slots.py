"""The hash is written into every data directory: it must never change."""

from __future__ import annotations

from collections import Counter

import pytest
from actord.shards.slots import SLOTS, shard_of_slot, slot_of, slot_range

PINNED: dict[tuple[str, str], int] = {
    ("Account", "alice"): 202,
    ("Account", "bob"): 561,
    ("Account", ""): 794,
    ("Account", "0"): 994,
    ("Account", "1"): 1018,
    ("account", "alice"): 9,
    ("Room", "lobby"): 236,
    ("Room", "a/b:c+d e"): 154,
    ("Room", "日本語"): 133,
    ("Room", "😀"): 703,
    ("A", "x" * 512): 102,
    ("A" * 32, "z"): 457,
}


@pytest.mark.parametrize(("key", "slot"), PINNED.items())
def test_the_slot_of_a_key_never_changes(key: tuple[str, str], slot: int) -> None:
    assert slot_of(*key) == slot


def test_the_hash_remembers_no_more_than_a_few_types_and_stays_the_same_without_its_memory() -> None:
    expected = slot_of("Late", "x")
    for i in range(5_000):
        slot_of(f"Type{i}", "x")
    assert slot_of("Late", "x") == expected
    assert slot_of("Type4999", "x") == slot_of("Type4999", "x")


def test_names_are_compared_byte_for_byte() -> None:
    assert len({slot_of("Room", name) for name in ("é", "e\u0301", "É", "e", "E")}) > 1


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 5, 7, 8, 16, 100, 1023, 1024])
def test_ranges_cover_every_slot_once_and_differ_by_at_most_one(shards: int) -> None:
    ranges = [slot_range(shard, shards) for shard in range(shards)]
    assert [slot for part in ranges for slot in part] == list(range(SLOTS))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1
    for shard, part in enumerate(ranges):
        assert {shard_of_slot(slot, shards) for slot in part} == {shard}


@pytest.mark.parametrize("pattern", ["{}", "user-{}", "{:08}", "k{}x"])
def test_numbered_names_spread_evenly(pattern: str) -> None:
    for count in (100, 10_000):
        found = Counter(shard_of_slot(slot_of("Account", pattern.format(i)), 2) for i in range(count))
        assert abs(found[0] - count / 2) < 5 * (count / 4) ** 0.5
