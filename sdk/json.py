"""JSON at the edge: method results out, bodies in. What a method returns, a parameter with that annotation takes.

What JSON lacks is written as msgspec writes and reads it:

* tuple, set, frozenset, named tuple: array. bytes, bytearray: base64 string (standard alphabet, padded).
* datetime, date, time: ISO 8601 string, ``Z`` for UTC, offsets to the minute. timedelta: ISO 8601 duration, ``PT1.5S``.
  UUID, Decimal: string.
* dataclass, TypedDict, ``msgspec.Struct``: object. Enum: its value. Subclasses of str, int, float, list, dict: as their
  base.
* int of any size: an exact integer, up to the interpreter's limit of about 4,300 digits.
* Keys that are no str: None ``null``, bool ``true`` / ``false``, other scalars as their text. Nothing keeps two keys
  from becoming the same.

Refused, with ``CodecError`` and the path of the culprit: nan and infinities (JSON has none), lone surrogates, cycles,
nesting beyond the interpreter's limit (about 1,000), and any other type.

The other way nothing is guessed: integers of any size (to the same limit) are exact, NaN and Infinity are no JSON, and
numbers beyond a double are refused; of a key that comes twice the last counts. What is no JSON is ``BadRequest``, which
says where.

Why not orjson: it turns integers beyond 64 bits into floats, and nested tuples beyond some hundreds of levels, a cycle
for one, overrun its stack and kill the process (3.13.0). msgspec knows neither and is about as fast.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import orjson
from actord.errors import BadRequest, CodecError
from actord.refusal import Refused, check_text, path_step, type_name

DEPTH_MAX = 1000

_SAFE = frozenset({type(None), bool, int, str})
_FLAT = _SAFE | {float}
_NESTED = frozenset({list, tuple, dict})
_LEAVES = (bytes, bytearray, datetime, date, time, timedelta, UUID, Decimal)


def dumps(value: Any) -> bytes:
    """``value`` as JSON. Raises ``CodecError``, naming the path of what has none."""
    try:
        data = _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        _find_fault(value)
        raise CodecError(f"$: {error}") from None
    # nan and infinities become null: where there is a null, look for its cause. (rfind costs a third of find.)
    if data.rfind(b"null") >= 0 and value is not None and not _is_finite(value):
        _find_fault(value)
    return data


def loads(data: bytes | bytearray | memoryview | str) -> Any:
    """The value of a JSON text. Raises ``BadRequest``."""
    try:
        return _decode(data)
    except RecursionError:
        raise BadRequest("The body is not valid JSON: it is nested too deep.") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRequest(f"The body is not valid JSON: {_reason(data, error)}") from None


def _reason(data: bytes | bytearray | memoryview | str, error: Exception) -> str:
    """orjson's words, which name line and column of a fault; msgspec's for what only msgspec refuses."""
    if not data:
        return "it is empty."
    if isinstance(error, msgspec.ValidationError):
        return "a number is out of range."
    try:
        orjson.loads(data)
    except ValueError as better:
        return f"{better}."
    return f"{error}."


def _to_json(value: Any) -> Any:
    """What msgspec can write in place of a value, or of a key, that it can't."""
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, bool):  # only as keys
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError


_encode = msgspec.json.Encoder(enc_hook=_to_json).encode
_decode = msgspec.json.Decoder().decode


def _is_finite(value: Any) -> bool:
    """False when ``value`` holds nan or an infinity, or something that only ``_find_fault`` looks into."""
    todo = [value]
    while todo:
        value = todo.pop()
        kind = type(value)
        if kind in _NESTED:
            members = value.values() if kind is dict else value
            kinds = set(map(type, members))
            if float in kinds and not all(isfinite(m) for m in members if type(m) is float):
                return False
            if not kinds <= _FLAT:
                todo += [m for m in members if type(m) not in _FLAT]
        elif not (kind in _SAFE or (kind is float and isfinite(value))):
            return False
    return True


# -- naming the culprit, once it is known that there may be one


class _Node(NamedTuple):
    value: Any
    step: str
    parent: _Node | None
    depth: int


def _find_fault(value: Any) -> None:
    """Raise ``CodecError`` for the first thing in ``value`` that has no JSON. Without recursion: it may be a cycle."""
    todo = [_Node(value, "", None, 0)]
    while todo:
        node = todo.pop()
        try:
            if node.depth > DEPTH_MAX:
                raise Refused(_too_deep(node))
            children = [_Node(member, step, node, node.depth + 1) for step, member in _members(node.value)]
        except Refused as refused:
            above: _Node | None = node
            while above is not None:
                refused.path.append(above.step)
                above = above.parent
            raise CodecError(refused.detail()) from None
        todo += reversed(children)


def _too_deep(node: _Node) -> str:
    seen = set()
    above: _Node | None = node
    while above is not None:
        if id(above.value) in seen:
            return "a cycle: the value contains itself"
        seen.add(id(above.value))
        above = above.parent
    return f"nested more than {DEPTH_MAX} deep"


def _members(value: Any) -> Iterable[tuple[str, Any]]:
    """The steps and values inside ``value``. Raises ``Refused`` when it has no JSON itself."""
    if value is None or isinstance(value, (bool, *_LEAVES)):
        return ()
    if isinstance(value, enum.Enum):
        return (("", value.value),)
    if isinstance(value, str):
        check_text(value)
        return ()
    if isinstance(value, float):
        if not isfinite(value):
            raise Refused(f"JSON has no {float(value)}")
        return ()
    if isinstance(value, dict):
        return _dict_members(value)
    if isinstance(value, (list, tuple)):
        return ((f"[{i}]", item) for i, item in enumerate(value))
    if isinstance(value, (set, frozenset)):
        return (("{}", item) for item in value)
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        return ((path_step(shown), getattr(value, name)) for shown, name in names)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return ((path_step(f.name), getattr(value, f.name)) for f in dataclasses.fields(value))
    try:
        _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(value, int):
            raise Refused(f"an integer of {value.bit_length()} bits: {error}") from None
        raise Refused(f"a value of type {type_name(type(value))} has no JSON") from None
    return ()


def _dict_members(value: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, member in value.items():
        if isinstance(key, str):
            check_text(key)
        else:
            try:
                _encode({key: None})
            except (TypeError, ValueError, RecursionError):
                raise Refused(f"a key of type {type_name(type(key))} has no JSON") from None
        yield path_step(key), member
