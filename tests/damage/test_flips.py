"""Single bit flips: each is harmless for what is read, or noticed. The long version: ``python -m tests.damage``."""

from __future__ import annotations

import os
from typing import Any

import pytest
from actord.storage import doctor_rows, reads, schema

from tests.damage import flips

FLIPS = int(os.environ.get("ACTORD_TEST_FLIPS", "100"))


def test_every_bit_flip_is_harmless_or_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    result = flips.run(FLIPS, seed=20)
    with capsys.disabled():
        print(f"\n{result.table()}\ndetection rate {result.rate:.3f} of {result.flips - result.harmless} flips")
    assert result.missed == []
    assert result.rate == 1.0
    assert result.flips == FLIPS
    assert result.detected > FLIPS // 5
    assert result.harmless > FLIPS // 20


def test_the_same_seed_makes_the_same_flips() -> None:
    first, second = flips.run(10, seed=3), flips.run(10, seed=3)
    assert first.by_kind == second.by_kind


def test_checksums_that_are_not_looked_at_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: rows are believed. Then flips in values are missed, and counted as such."""

    class Anything(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = int.__hash__

    def believed(*_: Any) -> int:
        return Anything()

    monkeypatch.setattr(doctor_rows, "crc32", believed)
    monkeypatch.setattr(reads, "crc32", believed)
    monkeypatch.setattr(schema, "meta_sum", lambda name, value: schema.crc32(b""))
    assert flips.run(50, seed=1).missed != []
