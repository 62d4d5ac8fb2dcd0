"""The promises of actord.codec: equal and type-exact, or refused with the path."""

from __future__ import annotations

import decimal
import enum
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

import ormsgpack
import pytest
from actord.codec import DEPTH_MAX, check_size, decode, encode
from actord.errors import CodecError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sdk.codec_values import EVERY_TYPE, keys, same, values
from tests.support.lots import cases


@given(values)
@settings(max_examples=cases(200), deadline=None)
def test_any_value_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize("value", EVERY_TYPE, ids=repr)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: {"k": v}, lambda v: (0, v), lambda v: {1: v}])
def test_every_type_comes_back_at_every_place(value: Any, wrap: Any) -> None:
    assert same(decode(encode(wrap(value))), wrap(value))


@given(st.dictionaries(keys, st.integers(), max_size=12))
@settings(deadline=None)
def test_a_dict_keeps_any_scalar_keys_in_their_order(value: dict[Any, int]) -> None:
    assert same(decode(encode(value)), value)


def test_same_tells_apart_what_equality_does_not() -> None:
    assert same(float("nan"), float("nan"))
    pairs = [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ([1], (1,)),
        (b"a", bytearray(b"a")),
        ({1}, frozenset({1})),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (Decimal("1.0"), Decimal("1.00")),
        (datetime(2024, 1, 1, fold=0), datetime(2024, 1, 1, fold=1)),
        (time(1, tzinfo=UTC), time(1, tzinfo=timezone(timedelta(0), "X"))),
        ({1: "a"}, {True: "a"}),
    ]
    assert not [pair for pair in pairs if same(*pair)]


def test_plain_values_are_the_bytes_of_plain_msgpack() -> None:
    for value in (123456, {"ok": True, "balance": 5}, [1.5, "a", b"b", None, {"c": []}]):
        assert encode(value) == ormsgpack.packb(value)


def test_what_comes_back_is_a_copy() -> None:
    value = {"items": [1]}
    data = encode(value)
    decode(data)["items"].append(2)
    assert decode(data) == value


def test_decimals_do_not_depend_on_the_context_of_the_caller() -> None:
    value = Decimal("1.23456789E+50")
    with decimal.localcontext(decimal.Context(prec=2, capitals=0, traps=[])):
        data = encode(value)
        assert str(decode(data)) == "1.23456789e+50"
        with pytest.raises(CodecError):
            decode(b"\xd4\x16x")
    assert data == encode(value)
    assert same(decode(data), value)


@pytest.mark.parametrize("data", [bytearray(b"\x91\xc0"), memoryview(b"\x91\xc0")])
def test_decode_takes_any_buffer(data: Any) -> None:
    assert decode(data) == [None]


# -- refusals


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    pass


class Zone(tzinfo):
    def utcoffset(self, dt: datetime | None) -> timedelta:
        return timedelta(0)


@dataclass
class Point:
    x: int


Pair = namedtuple("Pair", "a b")


class AnyDict(dict):  # type: ignore[type-arg]
    pass


FOREIGN = [
    object(),
    Number.ONE,
    Text("a"),
    AnyDict(),
    OrderedDict(a=1),
    Point(1),
    Pair(1, 2),
    1j,
    range(3),
    memoryview(b"abc"),
    type,
    len,
    datetime(2024, 1, 1, tzinfo=Zone()),
    timezone(timedelta(0), "\ud800"),
    "\ud800",
]


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda v: type(v).__name__)
def test_anything_else_is_refused_with_its_path(foreign: Any) -> None:
    for value, path in [
        (foreign, "$"),
        ([0, foreign], "$[1]"),
        ({"items": [1, 2, 3, {"owner": foreign}]}, "$.items[3].owner"),
        ({"a b": {"": foreign}}, '$["a b"][""]'),
        ({1: (foreign,)}, "$[1][0]"),
        ([b"bytes beside it", foreign], "$[1]"),
        ([bytearray(b"x"), foreign], "$[1]"),
    ]:
        with pytest.raises(CodecError) as caught:
            encode(value)
        assert caught.value.detail.startswith(path + ": ")


def test_a_foreign_member_of_a_set_is_refused_with_its_path() -> None:
    with pytest.raises(CodecError, match=r"^\$\.tags\{\}: .*Number"):
        encode({"tags": {"a", Number.ONE}})


@pytest.mark.parametrize(
    "key", [(1,), frozenset(), Number.ONE, Text("a"), Pair(1, 2), 1j, "\ud800"], ids=lambda v: type(v).__name__
)
def test_a_key_that_is_no_scalar_is_refused(key: Any) -> None:
    with pytest.raises(CodecError, match=r"^\$\.a\[0\]: a key "):
        encode({"a": [{key: 1}]})


def test_a_value_inside_an_endless_int_key_is_named_without_its_digits() -> None:
    with pytest.raises(CodecError, match=r"^\$\[a long int\]: "):
        encode({10**5000: object()})


def test_cycles_are_refused_and_named() -> None:
    items: list[Any] = []
    items.append(items)
    by_key: dict[str, Any] = {}
    by_key["me"] = [by_key]
    through_tuple: list[Any] = []
    through_tuple.append((through_tuple,))
    odd: dict[Any, Any] = {}
    odd[1] = odd
    for value, path in [
        (items, r"\$\[0\]"),
        (by_key, r"\$\.me\[0\]"),
        (through_tuple, r"\$\[0\]\[0\]"),
        (odd, r"\$\[1\]"),
    ]:
        with pytest.raises(CodecError, match=f"^{path}: a cycle"):
            encode(value)


def test_one_object_in_two_places_is_no_cycle() -> None:
    shared = [1]
    assert decode(encode({1: shared, 2: shared})) == {1: [1], 2: [1]}


WRAPPERS = {
    "list": lambda v: [v],
    "dict": lambda v: {"k": v},
    "tuple": lambda v: (v,),
    "frozenset": lambda v: frozenset([v]),
    "odd dict": lambda v: {1: v},
}


def nest(wrapper: Any, depth: int) -> Any:
    value: Any = 7
    for _ in range(depth):
        value = wrapper(value)
    return value


@pytest.mark.parametrize("name", WRAPPERS)
def test_containers_nest_as_deep_as_promised_and_no_deeper(name: str) -> None:
    deepest = nest(WRAPPERS[name], DEPTH_MAX)
    data = encode(deepest)
    assert encode(decode(data)) == data
    for depth in (DEPTH_MAX + 1, 5000):
        with pytest.raises(CodecError, match="nested more than 255 deep"):
            encode(nest(WRAPPERS[name], depth))


def test_check_size_names_the_path_and_the_limit() -> None:
    check_size(b"12", 2)
    with pytest.raises(CodecError, match=r"^\$\.a: 3 bytes encoded, over the limit of 2$"):
        check_size(b"123", 2, "$.a")


def test_uuid_subclasses_are_refused() -> None:
    class Id(UUID):
        pass

    with pytest.raises(CodecError, match=r"^\$\.id: "):
        encode({"id": Id(int=1)})
