"""The bytes on disk. A change of a line here is a change of the format, which old data directories will not survive."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from actord.codec import decode, encode

from tests.sdk.codec_values import same

GOLDEN: list[tuple[Any, str]] = [
    (None, "c0"),
    (True, "c3"),
    (False, "c2"),
    (5, "05"),
    (-1, "ff"),
    (123456, "ce0001e240"),
    (2**64 - 1, "cfffffffffffffffff"),
    (-(2**63), "d38000000000000000"),
    (2**64, "c70910010000000000000000"),
    (-(2**63) - 1, "c70910ff7fffffffffffffff"),
    (1.5, "cb3ff8000000000000"),
    (-0.0, "cb8000000000000000"),
    (float("inf"), "cb7ff0000000000000"),
    (float("nan"), "cb7ff8000000000000"),
    ("aä", "a361c3a4"),
    (b"ab", "c4026162"),
    (bytearray(b""), "c70011"),
    (bytearray(b"ab"), "d5116162"),
    ([1, []], "920190"),
    ({"ok": True, "balance": 5}, "82a26f6bc3a762616c616e636505"),
    ((), "91c70001"),
    ((1, ("a",)), "93c700010192c70001a161"),
    ({7}, "92c7000207"),
    (frozenset({7}), "92c7000307"),
    ({1: "a", "b": None}, "95c7000401a161a162c0"),
    (datetime(2024, 2, 29, 12, 30, 59, 999999), "c70c1207e8021d0c1e3b000f423f00"),
    (datetime(2024, 2, 29, tzinfo=UTC, fold=1), "c70c1207e8021d0000000000000081"),
    (datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-1))), "c7141207e801010000000000000002ffffffff296c5c00"),
    (
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "X")),
        "c7151207e80101000000000000000300000000d693a40058",
    ),
    (datetime(2024, 1, 1, tzinfo=ZoneInfo("UTC")), "c70f1207e801010000000000000004555443"),
    (date(2024, 2, 29), "d61307e8021d"),
    (time(23, 59, 59, 1), "d714173b3b0000000100"),
    (timedelta(days=-1, microseconds=1), "c70c15ffffffff0000000000000001"),
    (Decimal("1.10"), "d616312e3130"),
    (Decimal("-1E+5"), "c705162d31452b35"),
    (Decimal("sNaN12"), "c70616734e614e3132"),
    (UUID("12345678-1234-5678-1234-567812345678"), "d81712345678123456781234567812345678"),
]


@pytest.mark.parametrize(("value", "golden"), GOLDEN, ids=lambda v: repr(v)[:40])
def test_the_bytes_of_a_value_never_change(value: Any, golden: str) -> None:
    assert encode(value).hex() == golden
    assert same(decode(bytes.fromhex(golden)), value)
