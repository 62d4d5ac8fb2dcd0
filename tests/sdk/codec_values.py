"""Values that the codec carries: strategies for them, and an equality that types, zones, signs and order must share."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import strategies as st


def same(a: Any, b: Any) -> bool:
    """Equal and of the same type, all the way down: 1 is not True, -0.0 is not 0.0, nan is nan, dicts have an order."""
    if type(a) is not type(b):
        return False
    if type(a) is float:
        return struct.pack(">d", a) == struct.pack(">d", b)
    if type(a) in (list, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if type(a) is dict:
        return len(a) == len(b) and all(
            same(ka, kb) and same(va, vb) for (ka, va), (kb, vb) in zip(a.items(), b.items(), strict=True)
        )
    if type(a) in (set, frozenset):
        rest = list(b)
        for member in a:
            twin = next((i for i, other in enumerate(rest) if same(member, other)), None)
            if twin is None:
                return False
            del rest[twin]
        return not rest
    if type(a) is Decimal:
        return str(a) == str(b)
    if type(a) in (datetime, time):
        fields = ("hour", "minute", "second", "microsecond", "fold")
        if type(a) is datetime and a.date() != b.date():
            return False
        return all(getattr(a, f) == getattr(b, f) for f in fields) and _same_zone(a.tzinfo, b.tzinfo)
    return bool(a == b)


def _same_zone(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if type(a) is ZoneInfo:
        return bool(a.key == b.key)
    if type(a) is timezone:
        return a == b and a.tzname(None) == b.tzname(None)
    return a is b


offsets = st.timedeltas(
    timedelta(hours=-24) + timedelta(microseconds=1), timedelta(hours=24) - timedelta(microseconds=1)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
zones = (
    st.none()
    | st.just(UTC)
    | st.builds(timezone, offsets)
    | st.builds(timezone, offsets, texts)
    | st.sampled_from(["Europe/Berlin", "America/St_Johns", "UTC", "Asia/Kathmandu"]).map(ZoneInfo)
)
folds = st.sampled_from([0, 1])
datetimes = st.builds(lambda d, z, f: d.replace(tzinfo=z, fold=f), st.datetimes(), zones, folds)
times = st.builds(lambda t, z, f: t.replace(tzinfo=z, fold=f), st.times(), zones, folds)
decimals = st.decimals() | st.sampled_from(
    [Decimal(t) for t in ("NaN", "-NaN123", "sNaN", "-sNaN7", "-0", "0E+17", "1E-999999", "1E+999999999999999999")]
)
integers = st.integers() | st.integers(60, 2000).flatmap(lambda n: st.integers(-(1 << n), 1 << n))
# sNaN has no hash, so it can't be a key
key_decimals = decimals.filter(lambda d: not d.is_snan())
keys = (
    st.none()
    | st.booleans()
    | integers
    | st.floats()
    | texts
    | st.binary(max_size=30)
    | datetimes
    | st.dates()
    | times
    | st.timedeltas()
    | key_decimals
    | st.builds(UUID, int=st.integers(0, (1 << 128) - 1))
)
scalars = keys | decimals | st.binary(max_size=300).map(bytearray)
hashables = st.recursive(
    keys, lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4), max_leaves=8
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(texts, inner, max_size=5)
        | st.dictionaries(keys, inner, max_size=5)
        | st.sets(hashables, max_size=5)
        | st.frozensets(hashables, max_size=5)
    ),
    max_leaves=25,
)

EVERY_TYPE: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**64 - 1,
    -(2**63),
    2**64,
    -(2**63) - 1,
    1.5,
    -0.0,
    float("inf"),
    float("-inf"),
    float("nan"),
    "",
    "ä\U0001f600\0",
    b"",
    b"\xc4" * 300,
    bytearray(b"ab"),
    [1, [2]],
    (),
    (1, (2,), []),
    {},
    {"a": 1, "b": {"c": None}},
    {1: "a", "1": "b", None: 2, 1.5: 3, b"k": 4},
    {date(2024, 2, 29): 1, Decimal("1.10"): 2, UUID(int=5): 3, 2**70: 4, time(1): 5, timedelta(1): 6},
    set(),
    {7},
    frozenset({(1,)}),
    datetime(1, 1, 1),
    datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30), "Here")),
    date(2024, 2, 29),
    time(23, 59, 59, 999999, tzinfo=timezone(timedelta(seconds=1, microseconds=1)), fold=1),
    timedelta(days=-1, microseconds=1),
    timedelta.min,
    timedelta.max,
    Decimal("1.10"),
    Decimal("-0E+3"),
    Decimal("sNaN12"),
    UUID("12345678-1234-5678-1234-567812345678"),
]
