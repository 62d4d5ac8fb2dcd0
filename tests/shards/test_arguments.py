"""A body becomes arguments, or a refusal that names the parameter, before the turn starts."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, Optional, TypedDict
from uuid import UUID

import pytest
from actord import StatefulActor, codec

from tests.sdk.codec_values import EVERY_TYPE, same
from tests.support.harness import MSGPACK, PAIR, Answer, Core


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class Shape:
    name: str
    points: list[Point]


class Options(TypedDict, total=False):
    fast: bool
    level: int


class Foreign:
    """Nothing that can be made from JSON."""


class Taker(StatefulActor):
    """Every method answers the ``repr`` of what it got."""

    async def plain(self, a, b=2):  # type: ignore[no-untyped-def]
        return repr((a, b))

    async def nothing(self) -> str:
        return "()"

    async def number(self, amount: int | float) -> str:
        return repr(amount)

    async def integer(self, n: int) -> str:
        return repr(n)

    async def floating(self, x: float) -> str:
        return repr(x)

    async def text(self, s: str, n: int = 0) -> str:
        return repr((s, n))

    async def optional(self, s: Optional[str] = None) -> str:  # noqa: UP045
        return repr(s)

    async def point(self, p: Point) -> str:
        return repr(p)

    async def shape(self, shape: Shape) -> str:
        return repr(shape)

    async def options(self, options: Options) -> str:
        return repr(options)

    async def literal(self, mode: Literal["on", "off", 3]) -> str:
        return repr(mode)

    async def colour(self, colour: Colour) -> str:
        return repr(colour)

    async def moment(self, when: datetime) -> str:
        return repr(when)

    async def day(self, day: date) -> str:
        return repr(day)

    async def span(self, span: timedelta) -> str:
        return repr(span)

    async def money(self, amount: Decimal) -> str:
        return repr(amount)

    async def uuid(self, id: UUID) -> str:
        return repr(id)

    async def data(self, blob: bytes) -> str:
        return repr(blob)

    async def nested(self, table: dict[str, list[Point]]) -> str:
        return repr(table)

    async def by_number(self, table: dict[int, str]) -> str:
        return repr(table)

    async def variadic(self, first: int, *rest: int, **more: str) -> str:
        return repr((first, rest, more))

    async def keyword_only(self, a: int = 1, *, when: datetime, b: Decimal = Decimal(0)) -> str:
        return repr((a, when, b))

    async def positional_only(self, a: int, /, b: int = 2) -> str:
        return repr((a, b))

    async def foreign(self, thing: Foreign) -> str:
        return repr(type(thing))

    async def unresolvable(self, thing: NoSuchName, n: int = 0) -> str:  # type: ignore[name-defined]  # noqa: F821
        return repr((thing, n))

    async def anything(self, value: Any) -> Any:
        return value


async def send(method: str, body: bytes, flags: int = 0) -> Answer:
    return await Core(Taker).send("a", method, body, flags=flags)


MOMENT = "datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)"


@pytest.mark.parametrize(
    ("method", "body", "result"),
    [
        ("plain", '{"a": 1}', "(1, 2)"),
        ("plain", '{"b": 1, "a": [2]}', "([2], 1)"),
        ("plain", "[1]", "(1, 2)"),
        ("plain", "[null, null]", "(None, None)"),
        ("plain", ' \n\t{"a": 1}', "(1, 2)"),
        ("plain", '{"a": 1} \n', "(1, 2)"),
        ("nothing", "", "()"),
        ("nothing", "{}", "()"),
        ("nothing", "[]", "()"),
        ("nothing", "null", "()"),
        ("nothing", " ", "BadRequest"),
        ("number", '{"amount": 5}', "5"),
        ("number", '{"amount": 5.5}', "5.5"),
        ("integer", "[-7]", "-7"),
        ("integer", f"[{10**40}]", str(10**40)),
        ("anything", f"[{-(10**40)}]", str(-(10**40))),
        ("floating", "[5]", "5.0"),
        ("text", '{"s": "\\u00e4\\ud83d\\ude00"}', "('ä😀', 0)"),
        ("optional", "[null]", "None"),
        ("optional", '["x"]', "'x'"),
        ("optional", "", "None"),
        ("point", '{"p": {"x": 1}}', "Point(x=1, y=0)"),
        ("shape", '[{"name": "n", "points": [{"x": 1, "y": 2}]}]', "Shape(name='n', points=[Point(x=1, y=2)])"),
        ("options", '[{"fast": true}]', "{'fast': True}"),
        ("literal", '["on"]', "'on'"),
        ("literal", "[3]", "3"),
        ("colour", '["blue"]', "<Colour.BLUE: 'blue'>"),
        ("moment", '["2024-01-02T03:04:05Z"]', MOMENT),
        ("moment", ' ["2024-01-02T03:04:05Z"]', MOMENT),
        ("day", '["2024-02-29"]', "datetime.date(2024, 2, 29)"),
        ("span", '["PT90S"]', "datetime.timedelta(seconds=90)"),
        ("money", '["1.10"]', "Decimal('1.10')"),
        ("uuid", '["12345678-1234-5678-1234-567812345678"]', "UUID('12345678-1234-5678-1234-567812345678')"),
        ("data", '["AQI="]', r"b'\x01\x02'"),
        ("nested", '[{"k": [{"x": 1}]}]', "{'k': [Point(x=1, y=0)]}"),
        ("by_number", '[{"1": "a"}]', "{1: 'a'}"),
        ("variadic", "[1, 2, 3]", "(1, (2, 3), {})"),
        ("variadic", '{"first": 1, "x": "y"}', "(1, (), {'x': 'y'})"),
        ("keyword_only", '{"when": "2024-01-02T03:04:05Z"}', f"(1, {MOMENT}, Decimal('0'))"),
        ("keyword_only", '{"a": 5, "when": "2024-01-02T03:04:05Z", "b": "1.5"}', f"(5, {MOMENT}, Decimal('1.5'))"),
        ("positional_only", "[1]", "(1, 2)"),
        ("positional_only", "[1, 3]", "(1, 3)"),
        ("unresolvable", '{"thing": {"any": 1}}', "({'any': 1}, 0)"),
    ],
)
async def test_json_bodies_become_arguments(method: str, body: str, result: str) -> None:
    answer = await send(method, body.encode())
    if result == "BadRequest":
        assert (answer.status, answer.name) == (400, "BadRequest")
    else:
        assert answer.status == 200, answer
        assert str(answer.value) == result


@pytest.mark.parametrize(
    ("method", "body", "words"),
    [
        ("plain", "", "the argument 'a' is missing"),
        ("plain", "{}", "the argument 'a' is missing"),
        ("plain", "[]", "the argument 'a' is missing"),
        ("plain", '{"a": 1, "c": 2}', "'c'"),
        ("plain", "[1, 2, 3]", "at most 2"),
        ("nothing", "[1]", "at most 0"),
        ("nothing", '{"x": 1}', "'x'"),
        ("number", '{"amount": "5"}', "'amount'"),
        ("number", '{"amount": true}', "'amount'"),
        ("integer", "[1.5]", "'n'"),
        ("integer", '["1"]', "'n'"),
        ("text", '["x", "y"]', "'n'"),
        ("point", '{"p": {}}', "'p'.*`x`"),
        ("point", '{"p": {"x": "1"}}', "'p'.*p.x"),
        ("shape", '[{"name": "n", "points": [{"x": 1}, {"x": null}]}]', r"'shape'.*shape.points\[1\].x"),
        ("options", '[{"fast": 1}]', "'options'.*options.fast"),
        ("literal", '["maybe"]', "'mode'"),
        ("colour", '["green"]', "'colour'"),
        ("moment", '["tomorrow"]', "'when'"),
        ("money", '["a lot"]', "'amount'"),
        ("uuid", '["x"]', "'id'"),
        ("data", '["???"]', "'blob'"),
        ("variadic", "[]", "'first'"),
        ("variadic", '["x"]', "'first'"),
        ("variadic", '[1, 2, "x"]', "'rest'"),
        ("variadic", '{"first": 1, "k": 5}', "'more'|'k'"),
        ("keyword_only", "", "'when' is missing"),
        ("keyword_only", "{}", "'when'"),
        ("keyword_only", '{"when": 5}', "'when'"),
        ("positional_only", '{"a": 1}', "'a'"),
        ("positional_only", '["x"]', "'a'"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_by_the_parameters_name(method: str, body: str, words: str) -> None:
    core = Core(Taker)
    answer = await core.send("a", method, body.encode())
    assert (answer.status, answer.name, answer.applied) == (400, "ActorArgumentError", "no"), answer
    assert f"Taker.{method}" in answer.detail
    assert re.search(words, answer.detail), answer.detail
    assert core.activations() == {}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"[1,]",
        b"nonsense",
        b'"text"',
        b"5",
        b"true",
        b'{"a": "\xff"}',
        b'{"\xff": 1}',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"a": 1} {"a": 2}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 5_000 + b"]" * 5_000,
        b"\0",
        b'{"a": 1e999}',
    ],
)
@pytest.mark.parametrize("method", ["plain", "variadic", "nothing"])
async def test_what_is_no_json_is_a_bad_request_and_reaches_nobody(body: bytes, method: str) -> None:
    core = Core(Taker)
    answer = await core.send("a", method, body)
    assert (answer.status, answer.applied) == (400, "no"), answer
    assert answer.name in ("BadRequest", "ActorArgumentError")
    assert core.activations() == {}


async def test_deep_json_within_reason_is_taken() -> None:
    answer = await send("anything", b"[" * 100 + b"]" * 100)
    assert answer.status == 200


async def test_a_parameter_of_a_class_that_json_can_not_make_takes_nothing() -> None:
    answer = await send("foreign", b"[5]")
    assert answer.name == "ActorArgumentError"
    assert "'thing'" in answer.detail
    assert "Foreign" in answer.detail


@pytest.mark.parametrize("value", EVERY_TYPE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("flags", [MSGPACK, MSGPACK | PAIR])
async def test_msgpack_keeps_every_type_there_and_back(value: Any, flags: int) -> None:
    body = codec.encode([[], {"value": value}] if flags & PAIR else {"value": value})
    answer = await send("anything", body, flags)
    assert same(codec.decode(answer.body), value)
    assert answer.head == b"Content-Type: application/msgpack\r\n"


@pytest.mark.parametrize(
    ("method", "value", "result"),
    [
        ("moment", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), MOMENT),
        ("money", Decimal("1.10"), "Decimal('1.10')"),
        ("integer", 2**70, str(2**70)),
        ("by_number", {1: "a"}, "{1: 'a'}"),
        ("data", b"\x01", r"b'\x01'"),
        ("point", {"x": 1}, "Point(x=1, y=0)"),
        ("colour", "red", "<Colour.RED: 'red'>"),
    ],
)
async def test_msgpack_arguments_are_checked_against_the_annotations(method: str, value: Any, result: str) -> None:
    answer = await send(method, codec.encode([value]), MSGPACK)
    assert codec.decode(answer.body) == result
    wrong = await send(method, codec.encode([None]), MSGPACK)
    assert wrong.value["name"] == "ActorArgumentError"


@pytest.mark.parametrize("body", [b"\xc1", b"\x93\x01", codec.encode("text"), codec.encode({1: 2}), b"\x80\x80"])
async def test_damaged_msgpack_is_refused(body: bytes) -> None:
    answer = await send("anything", body, MSGPACK)
    assert answer.status == 400
    assert answer.value["applied"] == "no"


PAIRS = ([], [[], {}, 0], [{}, []], [(), {}], ([], {}), {1: []}, None, [[1], {"value": 1}], [[1, 2], {}], [[], {1: 2}])


@pytest.mark.parametrize("body", [b"", b"\xc1", *map(codec.encode, PAIRS)])
async def test_a_pair_that_is_none_is_refused(body: bytes) -> None:
    answer = await send("anything", body, MSGPACK | PAIR)
    assert answer.status == 400
    assert answer.value["applied"] == "no"


async def test_an_annotation_that_can_not_be_resolved_leaves_the_others_checked() -> None:
    class Odd(StatefulActor):
        async def take(self, number: int, thing: "OnlyForTypeCheckers") -> Any:  # type: ignore[name-defined]  # noqa: F821, UP037
            return [number, thing]

    core = Core(Odd)
    assert await core.value("x", "take", 1, {"any": "thing"}) == [1, {"any": "thing"}]
    refused = await core.call("x", "take", "one", 2)
    assert (refused.status, refused.name) == (400, "ActorArgumentError")
    assert "'number'" in refused.detail
