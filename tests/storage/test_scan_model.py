"""Ranges of a store against a dict, with keys that are awkward on purpose."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from actord.storage import folding
from actord.storage.api import Batch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.stores import open_store
from tests.support.lots import cases

KEYS = st.one_of(
    st.sampled_from(["a", "b", "aa", "a\0", "a\0a", "\0", "ä", "z\uffff", "\U0001f600", "\uffff", "\U0010ffff"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4),
)
VALUES = st.binary(max_size=30)
CHANGES = st.dictionaries(st.integers(1, 3), st.dictionaries(KEYS, st.none() | VALUES, max_size=6), max_size=3)
BATCHES = st.lists(st.tuples(CHANGES, st.sets(st.integers(1, 3), max_size=1)), min_size=1, max_size=6)
RANGE = st.fixed_dictionaries(
    {
        "start": st.none() | KEYS,
        "start_after": st.booleans(),
        "end": st.none() | KEYS,
        "reverse": st.booleans(),
        "limit": st.none() | st.integers(0, 6),
        "limit_bytes": st.none() | st.integers(0, 60),
    }
)


@pytest.fixture(scope="module", autouse=True)
def _often_folded() -> Iterator[None]:
    """So that a part of the values is in ``kv``, and a part in each half of ``redo``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "MOST_ENTRIES", 9)
        patch.setattr(folding, "STEP", 2)
        patch.setattr(folding, "AT_ONCE", 0)
        yield


def expected(rows: dict[str, bytes], *, start, start_after, end, reverse, limit, limit_bytes):
    inside = sorted(rows.items(), key=lambda row: row[0].encode(), reverse=reverse)
    if start is not None:
        low = start.encode()
        inside = [row for row in inside if row[0].encode() > low or (row[0] == start and not start_after)]
    if end is not None:
        inside = [row for row in inside if row[0].encode() < end.encode()]
    taken: list[tuple[str, bytes]] = []
    for row in inside:
        if len(taken) == limit or (limit_bytes is not None and sum(len(v) for _, v in taken) > limit_bytes):
            return taken, False
        taken.append(row)
    return taken, True


@settings(max_examples=cases(30), deadline=None)
@given(batches=BATCHES, ranges=st.lists(RANGE, min_size=1, max_size=8), end=st.sampled_from(["", "closed", "killed"]))
def test_scan_equals_a_sorted_dict(batches, ranges, end):
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "0000.db")
        model: dict[int, dict[str, bytes]] = {1: {}, 2: {}, 3: {}}
        for seq, (changes, cleared) in enumerate(batches, 1):
            batch = Batch(seq)
            batch.kv, batch.cleared = changes, cleared
            store.write(batch)
            for actor in cleared:
                model[actor].clear()
            for actor, items in changes.items():
                for key, value in items.items():
                    if value is None:
                        model[actor].pop(key, None)
                    else:
                        model[actor][key] = value
        if end:
            store.close() if end == "closed" else store.abandon()
            store = open_store(Path(folder) / "0000.db")
        try:
            for actor, rows in model.items():
                for options in ranges:
                    assert store.scan(actor, **options) == expected(rows, **options)
                for key, value in rows.items():
                    assert store.read(actor, key) == value
        finally:
            store.abandon()
