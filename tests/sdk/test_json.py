"""The promises of actord.json: what JSON can't say is refused with its path, what it can say is exact."""

from __future__ import annotations

import dataclasses
import enum
import json
import subprocess
import sys
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, TypedDict
from uuid import UUID

import msgspec
import pytest
from actord.errors import BadRequest, CodecError
from actord.json import dumps, loads
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lots import cases


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    pass


class Count(int):
    pass


class Ratio(float):
    pass


class Movie(TypedDict):
    title: str


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = None


class Item(msgspec.Struct, rename="camel"):
    unit_price: Any
    note: Any = None


Pair = namedtuple("Pair", "a b")

NATURAL: list[tuple[Any, str]] = [
    (None, "null"),
    ({"account": "alice", "ok": True, "balance": 5}, '{"account":"alice","ok":true,"balance":5}'),
    ((1, (2,)), "[1,[2]]"),
    ({1}, "[1]"),
    (frozenset({1}), "[1]"),
    (Pair(1, None), "[1,null]"),
    (datetime(2024, 2, 29, 12, tzinfo=UTC), '"2024-02-29T12:00:00Z"'),
    (datetime(2024, 2, 29, 12, tzinfo=timezone(timedelta(hours=1))), '"2024-02-29T12:00:00+01:00"'),
    (datetime(2024, 2, 29, 12, 0, 0, 5), '"2024-02-29T12:00:00.000005"'),
    (date(1, 1, 1), '"0001-01-01"'),
    (time(1, 2, 3), '"01:02:03"'),
    (timedelta(seconds=1.5), '"PT1.5S"'),
    (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    (Decimal("1.10"), '"1.10"'),
    (b"\xff\xfe\xfd\xfc", '"//79/A=="'),
    (bytearray(b"a"), '"YQ=="'),
    (Point(1, {2}), '{"x":1,"y":[2]}'),
    (Point(1), '{"x":1,"y":null}'),
    (Item(1.5), '{"unitPrice":1.5,"note":null}'),
    (Movie(title="M"), '{"title":"M"}'),
    (Color.RED, '"red"'),
    (Level.HIGH, "3"),
    ([Text("a"), Count(1), Ratio(0.5), OrderedDict(a=None)], '["a",1,0.5,{"a":null}]'),
    ({None: 1, True: 2, 3: 4, 1.5: 5, Level.HIGH: 6}, '{"null":1,"true":2,"3":6,"1.5":5}'),
    ({False: 1, Text("t"): 2, Color.RED: 3, Count(7): 4}, '{"false":1,"t":2,"red":3,"7":4}'),
    ({UUID(int=1): 1, date(2024, 1, 1): 2}, '{"00000000-0000-0000-0000-000000000001":1,"2024-01-01":2}'),
    (2**64, "18446744073709551616"),
    ({"deep": [-(10**200)]}, '{"deep":[-1' + "0" * 200 + "]}"),
    ("null", '"null"'),
    ({"null": [1.5, ["null"]], "t": (None, 2.0)}, '{"null":[1.5,["null"]],"t":[null,2.0]}'),
]


@pytest.mark.parametrize(("value", "expected"), NATURAL, ids=lambda v: repr(v)[:40])
def test_values_have_their_natural_json(value: Any, expected: str) -> None:
    assert dumps(value) == expected.encode()


@pytest.mark.parametrize(
    "value",
    [
        datetime(2024, 2, 29, 12, tzinfo=UTC),
        date(2024, 2, 29),
        time(1, 2, 3, 4),
        timedelta(days=-3, microseconds=1),
        UUID(int=7),
        Decimal("1.10"),
        b"\0\xff",
        Point(1, "a"),
        Item(2),
        Color.RED,
        frozenset({1, 2}),
        (1, "a"),
        2**80,
    ],
    ids=repr,
)
def test_what_a_method_returns_a_parameter_with_that_annotation_takes(value: Any) -> None:
    assert msgspec.json.decode(dumps(value), type=type(value)) == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(json_values)
@settings(max_examples=cases(150), deadline=None)
def test_any_json_value_comes_back_exact_and_the_standard_library_agrees(value: Any) -> None:
    data = dumps(value)
    assert repr(loads(data)) == repr(value) == repr(json.loads(data))


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
TUPLE_CYCLE: tuple[list[Any]] = ([],)
TUPLE_CYCLE[0].append(TUPLE_CYCLE)

REFUSED: list[tuple[Any, str]] = [
    (float("nan"), "$: JSON has no nan"),
    ([1.0, float("inf")], "$[1]: JSON has no inf"),
    ({"a": {"b c": (None, -float("inf"))}}, '$.a["b c"][1]: JSON has no -inf'),
    ({"a": [None, {"x": 1, "y": float("nan")}]}, "$.a[1].y: JSON has no nan"),
    (Point(None, float("nan")), "$.y: JSON has no nan"),
    (Item(None, [float("nan")]), "$.note[0]: JSON has no nan"),
    ({float("inf")}, "${}: JSON has no inf"),
    ([Ratio("nan")], "$[0]: JSON has no nan"),
    ({"a": [object()]}, "$.a[0]: a value of type object has no JSON"),
    ([1, 1j], "$[1]: a value of type complex has no JSON"),
    ({"a": {(1, 2): 3}}, "$.a: a key of type tuple has no JSON"),
    ({"a": "\ud800"}, "$.a: a str with a lone surrogate at index 0"),
    ({"a\ud800": 1}, "$: a str with a lone surrogate at index 1"),
    ([10**5000], "$[0]: an integer of 16610 bits: "),
]


@pytest.mark.parametrize(("value", "detail"), REFUSED, ids=[detail for _, detail in REFUSED])
def test_what_has_no_json_is_refused_with_its_path(value: Any, detail: str) -> None:
    with pytest.raises(CodecError) as caught:
        dumps(value)
    assert caught.value.detail.startswith(detail)


@pytest.mark.parametrize("value", [CYCLE, TUPLE_CYCLE, {"a": [1, CYCLE]}], ids=["list", "tuple", "in a dict"])
def test_cycles_are_refused_and_named(value: Any) -> None:
    with pytest.raises(CodecError, match="a cycle: the value contains itself"):
        dumps(value)


@pytest.mark.parametrize(
    "wrap", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}, lambda v: Point(v), lambda v: [None, v]]
)
def test_nesting_without_end_is_refused_and_kills_nothing(wrap: Any) -> None:
    value: Any = 1
    for _ in range(50_000):
        value = wrap(value)
    with pytest.raises(CodecError, match="nested more than 1000 deep"):
        dumps(value)


def test_tuples_nested_hundreds_deep_do_not_corrupt_memory() -> None:
    """In a process of its own, because this is where orjson loses it."""
    program = """
from actord.json import dumps, loads
for depth in (200, 400, 900):
    value = 1
    for _ in range(depth):
        value = (value, None)
    for _ in range(200):
        assert loads(dumps(value))
"""
    done = subprocess.run([sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# -- reading


@pytest.mark.parametrize("digits", [19, 20, 40, 4299])
@pytest.mark.parametrize("sign", ["", "-"])
def test_integers_of_any_size_are_exact(digits: int, sign: str) -> None:
    text = sign + "9" * digits
    assert loads(f'{{"n":[{text}]}}'.encode()) == {"n": [int(text)]}


NO_JSON: list[tuple[bytes, str]] = [
    (b"", "it is empty"),
    (b"   ", "line 1"),
    (b"NaN", "line 1 column 1"),
    (b"[1, Infinity]", "line 1 column 5"),
    (b"-Infinity", "line 1 column"),
    (b'{"a":1,}', "line 1 column 7"),
    (b"{'a':1}", "line 1 column 2"),
    (b'[1,\n"\xff"]', "not valid UTF-8"),
    (b'"\xed\xa0\x80"', "not valid UTF-8"),
    (b'"\xc0\xaf"', "not valid UTF-8"),
    (b'["a", "\\ud800"]', "surrogate"),
    (b'"\\udc00"', "surrogate"),
    (b"\xef\xbb\xbf{}", "byte order mark"),
    (b"\xff\xfe{\0}\0", "not valid JSON"),
    (b"[" * 10_000 + b"]" * 10_000, "nested too deep"),
    (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested too deep"),
    (b"[" * 1_000_000, "nested too deep"),
    (b"1" * 5000, "a number is out of range"),
    (b"1e400", "a number is out of range"),
    (b"01", "line 1 column 1"),
    (b"1 2", "line 1 column 3"),
    (b'"a\nb"', "line 1 column 3"),
    (b'"abc', "line 1 column"),
    (b"tru", "line 1 column"),
]


@pytest.mark.parametrize(("data", "detail"), NO_JSON, ids=lambda v: str(v[:20]))
def test_what_is_no_json_is_a_bad_request_that_says_where(data: bytes, detail: str) -> None:
    with pytest.raises(BadRequest) as caught:
        loads(data)
    assert caught.value.detail.startswith("The body is not valid JSON: ")
    assert detail in caught.value.detail


@given(st.binary(max_size=60) | st.text('[]{}",:0123456789.eE+-truefalsnN\\ud8', max_size=40).map(str.encode))
@settings(max_examples=cases(300), deadline=None)
def test_random_bytes_are_json_or_a_bad_request(data: bytes) -> None:
    try:
        value = loads(data)
    except BadRequest:
        return
    assert loads(dumps(value)) == value


def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    assert loads(b'{"a":1,"a":2}') == {"a": 2}
