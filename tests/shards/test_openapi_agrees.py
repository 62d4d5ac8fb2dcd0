"""What the document says of an argument, a validator of JSON schemas and the binder agree about, value by value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NamedTuple, Required, TypedDict
from uuid import UUID

import jsonschema
import pytest
from actord import StatefulActor
from actord.errors import ActorArgumentError
from actord.shards.openapi import describe
from actord.shards.registry import ActorType, Program
from msgspec import Meta


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Line:
    item: str
    count: int = 1


class Order(TypedDict, total=False):
    number: Required[int]
    lines: list[Line]


class Point(NamedTuple):
    x: float
    y: float = 0.0


ANNOTATIONS: list[Any] = [
    *(int, float, bool, str, bytes, None, int | None, int | float, int | str, Any),
    *(
        list,
        list[int],
        dict,
        dict[str, int],
        dict[int, str],
        tuple[int, str],
        tuple[int, ...],
        set[str],
        frozenset[int],
    ),
    *(Literal["a", "b", 1], Colour, Colour | None, Level, Line, Order, Point, list[Line]),
    *(datetime, Annotated[datetime, Meta(tz=True)], date, time, timedelta, Decimal, UUID),
    Annotated[int, Meta(ge=1, le=10)],
    Annotated[str, Meta(min_length=1, max_length=3, pattern="^[a-z]+$")],
    Annotated[list[int], Meta(max_length=1)],
    Annotated[float, Meta(gt=0, multiple_of=0.5)],
    *(Sequence[int], Mapping[str, float]),
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, -1, 11, 2**70, 1.0, 1.5, 0.5, -0.5, 1e300),
    *("", "a", "b", "abc", "abcd", "A", "red", "1", "YWI=", "1.50", "8c2f3f0e-6b0b-4d55-9f0a-2f3c2f3f0e6b"),
    *("2026-01-31", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00", "12:00:00", "12:00:00Z", "PT1S"),
    *([], [1], [1, 2], [1, 1], ["a"], [1, "a"], [1, "a", 2], [1.5], [1.5, 2.5], [None]),
    *({}, {"a": 1}, {"a": "x"}, {"1": "x"}, {"a": 1.5}, {"count": 1}),
    *({"item": "x"}, {"item": "x", "count": 2}, {"item": "x", "count": "2"}, {"item": 1}, {"item": "x", "other": 1}),
    *({"number": 1}, {"number": 1, "lines": [{"item": "x"}]}, {"number": 1, "lines": [1]}, [{"item": "x"}]),
]
# Schemas of these say no more than that they are strings.
TEXTS = {bytes, datetime, time, timedelta, Decimal}
INTEGERS = (int, int | None, int | str, Level, Literal["a", "b", 1], Annotated[int, Meta(ge=1, le=10)])


def expected_to_differ(annotation: Any, value: Any) -> bool:
    """Where JSON schema can't say what the binder does, or says less."""
    if annotation is Decimal and type(value) in (int, float):
        return True  # taken, and not described: a float is no good price
    if isinstance(value, float) and value.is_integer():
        return annotation in INTEGERS  # 1.0 is an integer of JSON schema, and a float here
    if annotation in TEXTS and isinstance(value, str):
        return True
    if annotation == frozenset[int]:
        return value == [1, 1]  # what comes twice is taken once
    return annotation == dict[int, str] and isinstance(value, dict)  # keys of JSON are strings


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=str)
def test_what_the_document_allows_is_what_the_binder_takes(annotation: Any) -> None:
    class Taker(StatefulActor):
        async def take(self, value: Any) -> None: ...

    Taker.take.__annotations__["value"] = annotation
    type_ = ActorType(Taker, "TAKER")
    found = describe(Program("test", [type_], None))
    body = found["paths"]["/actors/Taker/{name}/take"]["post"]["requestBody"]["content"]["application/json"]
    validator = jsonschema.Draft202012Validator(
        {**body["schema"], "components": found["components"]}, format_checker=jsonschema.FormatChecker()
    )
    seen = set()
    for value in VALUES:
        for form in ({"value": value}, [value]):
            try:
                type_.methods["take"].binder.from_json(json.dumps(form).encode())
                taken = True
            except ActorArgumentError:
                taken = False
            seen.add(taken)
            if not expected_to_differ(annotation, value):
                assert validator.is_valid(form) == taken, form
    assert seen == ({True} if annotation is Any else {True, False})
