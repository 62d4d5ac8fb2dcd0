"""Pages of actors' SQL databases in a shard: whole, checked, of one actor alone, gone when they are given back."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from actord.errors import StoreCorrupt, StoreFull
from actord.storage import schema
from actord.storage.api import Batch
from actord.storage.pages import LAST_NUMBER

from tests.storage.stores import open_store, put

PAGE = 992  # what an actor's page of 1,024 bytes stores


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0000.db"


def write(store: Any, actor: int, pages: dict[int, bytes], *, count: int | None = None, clear: bool = False) -> None:
    batch = Batch(store.commit_seq + 1)
    if store.find_actor(actor, "Account", f"name-{actor}") is None:
        batch.actors.append((actor, actor, "Account", f"name-{actor}"))
    if pages:
        batch.pages[actor] = pages
    if count is not None:
        batch.page_counts[actor] = count
    if clear:
        batch.cleared.add(actor)
    store.write(batch)


def content(store: Any, actor: int) -> dict[int, bytes]:
    return {number: store.read_page(actor, number) for number in range(1, store.page_count(actor) + 1)}


def test_pages_come_back_as_written_also_after_a_restart(path):
    store = open_store(path)
    pages = {number: os.urandom(PAGE) for number in range(1, 40)}
    write(store, 7, pages, count=39)
    assert content(store, 7) == pages
    store.sync()
    store.close()
    store = open_store(path)
    assert content(store, 7) == pages
    store.abandon()


def test_an_actor_without_a_database_has_no_pages(path):
    store = open_store(path)
    put(store, {"a": b"1"}, actor=3)
    assert store.page_count(3) == 0
    assert store.read_page(3, 1) is None
    store.abandon()


def test_the_first_and_the_last_page_of_neighbours_are_kept_apart(path):
    store = open_store(path)
    for actor in (1, 2, 3):
        write(store, actor, {1: b"first %d" % actor, LAST_NUMBER: b"last %d" % actor})
    for actor in (1, 2, 3):
        assert store.page_count(actor) == LAST_NUMBER
        assert store.read_page(actor, LAST_NUMBER) == b"last %d" % actor
    write(store, 2, {}, clear=True)
    assert [store.page_count(actor) for actor in (1, 2, 3)] == [LAST_NUMBER, 0, LAST_NUMBER]
    assert store.read_page(3, 1) == b"first 3"
    store.abandon()


def test_pages_beyond_a_smaller_size_are_removed(path):
    store = open_store(path)
    write(store, 1, dict.fromkeys(range(1, 10), b"x" * PAGE), count=9)
    write(store, 1, {2: b"y" * PAGE}, count=4)
    assert store.page_count(1) == 4
    assert store.read_page(1, 2) == b"y" * PAGE
    assert store.read_page(1, 5) is None
    store.abandon()


def test_clearing_removes_keys_and_pages_before_the_new_ones_are_written(path):
    store = open_store(path)
    put(store, {"key": b"value"}, actor=1)
    write(store, 1, dict.fromkeys(range(1, 10), b"x" * PAGE), count=9)
    write(store, 1, {1: b"new"}, count=1, clear=True)
    assert content(store, 1) == {1: b"new"}
    assert store.scan(1)[0] == []
    store.abandon()


@pytest.mark.parametrize("damage", ["data", "sum", "moved"])
def test_a_damaged_page_is_never_returned(path, damage):
    store = open_store(path)
    write(store, 1, {1: bytes(PAGE), 2: bytes(PAGE)})
    statement = {
        "data": "UPDATE page SET data = CAST(zeroblob(991) || x'01' AS BLOB) WHERE id & 1",
        "sum": "UPDATE page SET sum = sum + 1 WHERE id & 1",
        "moved": "UPDATE page SET id = id + 2 WHERE id & 1",  # to page 3 of the same actor
    }[damage]
    store._conn.execute(statement)
    with pytest.raises(StoreCorrupt, match=rf"Page {3 if damage == 'moved' else 1} .*actor 1 .*checksum"):
        store.read_page(1, 3 if damage == "moved" else 1)
    assert store.read_page(1, 2) == bytes(PAGE)
    store.abandon()


def test_four_pages_fill_one_page_of_the_shard_without_overflow(path):
    store = open_store(path)
    write(store, 1, {number: os.urandom(PAGE) for number in range(1, 4001)}, count=4000)
    store.close()
    store = open_store(path)
    assert os.stat(path).st_size < (4000 / 4 + 50) * schema.PAGE_BYTES  # 50: the other tables, indexes, inner nodes
    store.abandon()


def test_a_full_disk_takes_no_pages_and_deletions_still_pass(path, monkeypatch):
    store = open_store(path)
    write(store, 1, dict.fromkeys(range(1, 2001), os.urandom(PAGE)), count=2000)
    store.maintain()
    limit = store._conn.pragma("page_count") + 20
    store._conn.pragma("max_page_count", limit)
    with pytest.raises(StoreFull):
        write(store, 1, {number: os.urandom(PAGE) for number in range(2001, 4001)}, count=4000)
    assert store.page_count(1) == 2000
    write(store, 1, {}, clear=True)
    assert store.page_count(1) == 0
    store.abandon()


def test_any_sequence_of_batches_leaves_what_the_last_ones_wrote(path):
    rng = random.Random(5)
    store = open_store(path)
    model: dict[int, dict[int, bytes]] = {actor: {} for actor in range(1, 6)}
    for actor in model:
        put(store, {"k": b"v"}, actor=actor)
    for step in range(300):
        batch = Batch(store.commit_seq + 1)
        for actor in rng.sample(sorted(model), 2):
            if rng.random() < 0.1:
                batch.cleared.add(actor)
                model[actor] = {}
            changed = {rng.randint(1, 30): rng.randbytes(PAGE) for _ in range(rng.randint(0, 5))}
            model[actor].update(changed)
            batch.pages[actor] = changed
            if rng.random() < 0.2:
                count = rng.randint(0, 30)
                model[actor] = {number: data for number, data in model[actor].items() if number <= count}
                batch.pages[actor] = {number: data for number, data in changed.items() if number <= count}
                batch.page_counts[actor] = count
        store.write(batch)
        if step % 50 == 49:
            store.sync()
            store.close()
            store = open_store(path)
        for actor, pages in model.items():
            assert store.page_count(actor) == max(pages, default=0)
            assert {n: data for n in range(1, 31) if (data := store.read_page(actor, n)) is not None} == pages
    store.abandon()
