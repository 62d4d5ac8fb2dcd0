"""The codec: Python values to bytes and back, equal and of the same type. Stored rows and msgpack bodies hold these
bytes, so **the format never changes**: new types get new numbers, and `tests/sdk/test_codec_golden.py` pins every byte.

Promises:

1. ``decode(encode(v))`` equals ``v`` with the same types throughout: None, bool, int of any size, float (nan,
   infinities, -0.0), str, bytes, bytearray, list, tuple, dict, set, frozenset, datetime, date, time (zone and fold
   kept), timedelta, Decimal, UUID. Keys of a dict are any of these scalars but bytearray; their order is kept. Members
   of sets are whatever of these can be hashed.
2. Anything else is refused, subclasses (enums, named tuples, ordered dicts, dataclasses ...) included, since their type
   would be lost: ``CodecError`` with the path of the culprit.
3. ``decode`` never runs anything and never raises anything but ``CodecError``, whatever the bytes.
4. Plain values (None, bool, 64-bit int, float, str, bytes, list, dict with str keys) take one C call each way.

Not guarded against: ``ormsgpack.Ext`` and ``ormsgpack.Fragment`` objects, which exist only to be taken at their word.

Containers nest at most 255 deep. How a path is spelt: ``refusal``.

The format is one MessagePack value. Maps have str keys only; integers are 64-bit; bin is bytes. The rest is ext types.
All integers in payloads are big-endian.

====  =========  =======================================================================================================
type  Python     payload
====  =========  =======================================================================================================
1     tuple      empty; the first item of an array, which is thereby a tuple of the items that follow
2     set        empty; likewise
3     frozenset  empty; likewise
4     dict       empty; likewise a dict with a key that is no str: key, value, key, value ...
16    int        beyond 64 bits: two's complement, as few bytes as hold it
17    bytearray  the bytes
18    datetime   u16 year, u8 month, u8 day, u8 hour, u8 minute, u8 second, u32 microsecond, zone
19    date       u16 year, u8 month, u8 day
20    time       u8 hour, u8 minute, u8 second, u32 microsecond, zone
21    timedelta  i32 days, u32 seconds, u32 microseconds, normalised as Python does
22    Decimal    ASCII text in scientific notation, as str() gives it
23    UUID       16 bytes
====  =========  =======================================================================================================

``zone`` is a byte, plus 0x80 when fold is 1, and its data: 0 naive · 1 ``timezone.utc`` · 2 fixed offset, i64
microseconds · 3 the same with its name in UTF-8 behind it · 4 ``ZoneInfo``, its key in UTF-8.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import ormsgpack
from actord.errors import CodecError
from actord.refusal import Refused, check_text, path_step, type_name
from ormsgpack import Ext

DEPTH_MAX = 255

_TUPLE, _SET, _FROZENSET, _DICT = 1, 2, 3, 4
_INT, _BYTEARRAY, _DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _UUID = range(16, 24)
_NAIVE, _UTC, _OFFSET, _NAMED_OFFSET, _ZONE = range(5)
_FOLD = 0x80

_OPTIONS = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
_packb = ormsgpack.packb
_unpackb = ormsgpack.unpackb

_I64 = struct.Struct(">q")
_DATE_FIELDS = struct.Struct(">HBB")
_TIME_FIELDS = struct.Struct(">BBBI")
_DATETIME_FIELDS = struct.Struct(">HBBBBBI")
_TIMEDELTA_FIELDS = struct.Struct(">iII")
_MICROSECOND = timedelta(microseconds=1)
# Text must not depend on the caller's decimal context, and bad text must not become NaN in one.
_DECIMAL_CONTEXT = Context(prec=28, rounding=ROUND_HALF_EVEN, capitals=1, traps=[InvalidOperation])

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_KEYS = _PLAIN | {datetime, date, time, timedelta, Decimal, UUID}
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


def encode(value: Any) -> bytes:
    """The bytes of ``value``. Raises ``CodecError``, naming the path of what can't be encoded."""
    if type(value) in _PLAIN:
        try:
            return _packb(value)
        except TypeError:  # an int beyond 64 bits, a lone surrogate
            pass
    try:
        data: bytes = _packb(value, _to_ext, _OPTIONS)
    except TypeError:
        return _encode_slowly(value)
    # ormsgpack writes bytearray and memoryview as bin, as it does bytes: look again when there may be one. The longer
    # forms of bin take at least 256 and 65,536 bytes. (To find an int is one memchr; `in` costs twice as much.)
    find = data.find
    may_hold_bin = find(0xC4) >= 0 or (len(data) > 256 and (find(0xC5) >= 0 or find(0xC6) >= 0))
    if may_hold_bin and _holds_foreign(value):
        return _encode_slowly(value)
    return data


def decode(data: bytes) -> Any:
    """The value of bytes that ``encode`` made. Raises ``CodecError`` for any others."""
    try:
        if len(data) == _SCALAR_BYTES[data[0]]:
            return _unpackb(data)
    except Exception:
        pass  # said better below
    if type(data) is not bytes:
        data = bytes(data)
    try:
        # An empty ext may begin a tuple, set or odd dict; anywhere else these two bytes only cost a second look.
        if data.find(0xC7) >= 0 and b"\xc7\x00" in data:
            value, end = _unpackb(b"\x92" + data + _END, ext_hook=_from_ext_or_marker)
            if type(value) in _MARKED:
                value = _lift(value, 1)
        else:
            value, end = _unpackb(b"\x92" + data + _END, ext_hook=_from_ext)
    except Exception as error:  # promise 3
        raise CodecError(f"not a value of this codec: {_cause(data, error)}") from None
    if type(end) is not int or end != _END_VALUE:
        raise CodecError("not a value of this codec: bytes follow the value")
    return value


def check_size(data: bytes, limit: int, path: str = "$") -> None:
    """Raise ``CodecError`` when encoded ``data`` is over ``limit`` bytes."""
    if len(data) > limit:
        raise CodecError(f"{path}: {len(data)} bytes encoded, over the limit of {limit}")


# ormsgpack does not notice bytes behind the value. So it reads an array of the value and of a number that nobody can
# guess: whatever follows the value takes the number's place.
_END_VALUE = int.from_bytes(os.urandom(8), "big") | 1 << 63
_END = b"\xcf" + _END_VALUE.to_bytes(8, "big")

# By first byte, how many bytes a whole scalar of a fixed size has; 0 for everything else.
_SCALAR_BYTES = [0] * 256
_SCALAR_BYTES[0x00:0x80] = [1] * 0x80  # small ints
_SCALAR_BYTES[0xE0:0x100] = [1] * 0x20
_SCALAR_BYTES[0xA0:0xC0] = range(1, 33)  # short str
for _first, _size in {0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9}.items():  # None, False, True, floats
    _SCALAR_BYTES[_first] = _size
for _first, _size in zip((*range(0xCC, 0xD0), *range(0xD0, 0xD4)), (2, 3, 5, 9) * 2, strict=True):  # ints
    _SCALAR_BYTES[_first] = _size


# -- encoding: scalars and containers that MessagePack lacks


def _zone(fold: int, zone: tzinfo | None) -> bytes:
    flag = _FOLD if fold else 0
    if zone is None:
        return bytes((flag | _NAIVE,))
    if zone is UTC:
        return bytes((flag | _UTC,))
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        name = zone.tzname(None)
        data = _I64.pack(offset // _MICROSECOND)
        if name == timezone(offset).tzname(None):
            return bytes((flag | _OFFSET,)) + data
        return bytes((flag | _NAMED_OFFSET,)) + data + name.encode()
    if type(zone) is ZoneInfo and zone.key is not None:
        return bytes((flag | _ZONE,)) + zone.key.encode()
    raise Refused(f"a time zone of type {type_name(type(zone))}; use datetime.timezone or a ZoneInfo with a key")


def _datetime_to_ext(v: datetime) -> Ext:
    fields = _DATETIME_FIELDS.pack(v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond)
    return Ext(_DATETIME, fields + _zone(v.fold, v.tzinfo))


def _time_to_ext(v: time) -> Ext:
    return Ext(_TIME, _TIME_FIELDS.pack(v.hour, v.minute, v.second, v.microsecond) + _zone(v.fold, v.tzinfo))


def _int_to_ext(v: int) -> Ext:
    magnitude = v if v >= 0 else ~v
    return Ext(_INT, v.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True))


_TUPLE_MARK, _SET_MARK, _FROZENSET_MARK, _DICT_MARK = (Ext(tag, b"") for tag in (_TUPLE, _SET, _FROZENSET, _DICT))

_SCALARS_TO_EXT: dict[type, Callable[[Any], Ext]] = {
    int: _int_to_ext,
    bytearray: lambda v: Ext(_BYTEARRAY, bytes(v)),
    datetime: _datetime_to_ext,
    date: lambda v: Ext(_DATE, _DATE_FIELDS.pack(v.year, v.month, v.day)),
    time: _time_to_ext,
    timedelta: lambda v: Ext(_TIMEDELTA, _TIMEDELTA_FIELDS.pack(v.days, v.seconds, v.microseconds)),
    Decimal: lambda v: Ext(_DECIMAL, _DECIMAL_CONTEXT.to_sci_string(v).encode()),
    UUID: lambda v: Ext(_UUID, v.bytes),
}
_MARKS: dict[type, Ext] = {tuple: _TUPLE_MARK, set: _SET_MARK, frozenset: _FROZENSET_MARK}
_TO_EXT: dict[type, Callable[[Any], Any]] = {
    **_SCALARS_TO_EXT,
    tuple: lambda v: [_TUPLE_MARK, *v],
    set: lambda v: [_SET_MARK, *v],
    frozenset: lambda v: [_FROZENSET_MARK, *v],
}


def _to_ext(value: Any) -> Any:
    convert = _TO_EXT.get(type(value))
    if convert is None:
        raise TypeError
    return convert(value)


def _holds_foreign(value: Any) -> bool:
    """Whether something in ``value`` has a type that ormsgpack takes for another."""
    kind = type(value)
    if kind not in _CONTAINERS:
        return kind not in _NATIVE
    members = value.values() if kind is dict else value
    kinds = set(map(type, members))
    if not kinds <= _NATIVE:
        return True
    return not kinds.isdisjoint(_CONTAINERS) and any(_holds_foreign(m) for m in members if type(m) in _CONTAINERS)


_NATIVE = (_PLAIN | _CONTAINERS | frozenset(_SCALARS_TO_EXT)) - {bytearray}


# -- encoding, the long way: what the fast way can't do, and the path of what nobody can


def _encode_slowly(value: Any) -> bytes:
    try:
        data: bytes = _packb(_lower(value, set()), None, _OPTIONS)
        return data
    except Refused as refused:
        raise CodecError(refused.detail()) from None
    except (TypeError, RecursionError, MemoryError) as error:
        raise CodecError(f"$: {error}") from None


def _lower(value: Any, parents: set[int]) -> Any:
    """``value`` in terms of what MessagePack has. ``parents`` are the ids of the containers around it."""
    kind = type(value)
    if kind in _PLAIN:
        if kind is str:
            check_text(value)
        elif kind is int and not -(1 << 63) <= value < 1 << 64:
            return _int_to_ext(value)
        return value
    convert = _SCALARS_TO_EXT.get(kind)
    if convert is not None:
        try:
            return convert(value)
        except UnicodeEncodeError:
            raise Refused("a time zone whose name holds a lone surrogate") from None
    if kind not in _CONTAINERS:
        raise Refused(f"a value of type {type_name(kind)} can't be encoded")
    if id(value) in parents:
        raise Refused("a cycle: the value contains itself")
    if len(parents) >= DEPTH_MAX:
        raise Refused(f"containers nested more than {DEPTH_MAX} deep")
    parents.add(id(value))
    lowered = _lower_dict(value, parents) if kind is dict else _lower_items(value, kind, parents)
    parents.remove(id(value))
    return lowered


def _lower_items(value: Iterable[Any], kind: type, parents: set[int]) -> list[Any]:
    lowered: list[Any] = [_MARKS[kind]] if kind is not list else []
    ordered = kind is list or kind is tuple
    for i, item in enumerate(value):
        try:
            lowered.append(_lower(item, parents))
        except Refused as refused:
            refused.path.append(f"[{i}]" if ordered else "{}")
            raise
    return lowered


def _lower_dict(value: dict[Any, Any], parents: set[int]) -> Any:
    pairs: list[Any] = [_DICT_MARK]
    for key, member in value.items():
        if type(key) not in _KEYS:
            raise Refused(f"a key of type {type_name(type(key))} can't be encoded")
        try:
            pairs.append(_lower(key, parents))
        except Refused as refused:
            refused.reason = f"a key can't be encoded: {refused.reason}"
            raise
        try:
            pairs.append(_lower(member, parents))
        except Refused as refused:
            refused.path.append(path_step(key))
            raise
    if all(type(key) is str for key in value):
        return dict(zip(pairs[1::2], pairs[2::2], strict=True))
    return pairs


# -- decoding


def _read_zone(data: bytes) -> tuple[int, tzinfo | None]:
    fold, kind = divmod(data[0], _FOLD)
    rest = data[1:]
    if kind == _ZONE:
        return fold, ZoneInfo(rest.decode())
    if kind == _OFFSET and len(rest) == 8:
        return fold, timezone(_I64.unpack(rest)[0] * _MICROSECOND)
    if kind == _NAMED_OFFSET:
        return fold, timezone(_I64.unpack(rest[:8])[0] * _MICROSECOND, rest[8:].decode())
    if kind in (_NAIVE, _UTC) and not rest:
        return fold, UTC if kind == _UTC else None
    raise ValueError("unknown kind of time zone")


def _read_datetime(data: bytes) -> datetime:
    fold, zone = _read_zone(data[_DATETIME_FIELDS.size :])
    year, month, day, hour, minute, second, microsecond = _DATETIME_FIELDS.unpack_from(data)
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _read_time(data: bytes) -> time:
    fold, zone = _read_zone(data[_TIME_FIELDS.size :])
    hour, minute, second, microsecond = _TIME_FIELDS.unpack_from(data)
    return time(hour, minute, second, microsecond, zone, fold=fold)


def _read_timedelta(data: bytes) -> timedelta:
    days, seconds, microseconds = _TIMEDELTA_FIELDS.unpack(data)
    return timedelta(days, seconds, microseconds)


def _read_decimal(data: bytes) -> Decimal:
    text = data.decode("ascii")
    value = Decimal(text, _DECIMAL_CONTEXT)
    if _DECIMAL_CONTEXT.to_sci_string(value) != text:  # Decimal() also reads spaces, underscores, other spellings
        raise ValueError("a Decimal in another notation")
    return value


_FROM_EXT: dict[int, Callable[[bytes], Any]] = {
    _INT: lambda data: int.from_bytes(data, "big", signed=True),
    _BYTEARRAY: bytearray,
    _DATETIME: _read_datetime,
    _DATE: lambda data: date(*_DATE_FIELDS.unpack(data)),
    _TIME: _read_time,
    _TIMEDELTA: _read_timedelta,
    _DECIMAL: _read_decimal,
    _UUID: lambda data: UUID(bytes=data),
}


class _Marker:
    """Stands first in a list that is to become something else."""

    __slots__ = ("kind",)

    def __init__(self, kind: type) -> None:
        self.kind = kind


_MARKERS = {_TUPLE: _Marker(tuple), _SET: _Marker(set), _FROZENSET: _Marker(frozenset), _DICT: _Marker(dict)}
_MARKED = frozenset({list, dict, _Marker})  # what _lift has to look at


def _from_ext(tag: int, data: bytes) -> Any:
    convert = _FROM_EXT.get(tag)
    if convert is None:
        raise ValueError(f"unknown ext type {tag}")
    return convert(data)


def _from_ext_or_marker(tag: int, data: bytes) -> Any:
    if not data and tag in _MARKERS:
        return _MARKERS[tag]
    return _from_ext(tag, data)


def _lift(value: Any, depth: int) -> Any:
    """Turn the marked lists inside ``value`` into what they stand for."""
    if depth > DEPTH_MAX:
        raise ValueError(f"containers nested more than {DEPTH_MAX} deep")
    if type(value) is dict:
        for key, member in value.items():
            if type(member) in _MARKED:
                value[key] = _lift(member, depth + 1)
        return value
    if type(value) is not list:
        raise ValueError("a marker that does not stand first in an array")
    if not value:
        return value
    kind = value[0].kind if type(value[0]) is _Marker else list
    if kind is not list:
        del value[0]
    if not _MARKED.isdisjoint(map(type, value)):
        for i, item in enumerate(value):
            if type(item) in _MARKED:
                value[i] = _lift(item, depth + 1)
    if kind is dict:
        return _lift_dict(value)
    return value if kind is list else kind(value)


def _lift_dict(pairs: list[Any]) -> dict[Any, Any]:
    keys = pairs[::2]
    if not _KEYS.issuperset(map(type, keys)):
        raise ValueError("a dict with a key that is no scalar")
    lifted = dict(zip(keys, pairs[1::2], strict=True))
    if len(lifted) != len(keys):
        raise ValueError("a dict with one key twice")
    return lifted


def _cause(data: bytes, error: Exception) -> str:
    """What went wrong; an exception inside an ext reaches us as "ext_hook failed" only, so read once more and look."""
    seen: list[str] = []

    def hook(tag: int, payload: bytes) -> Any:
        try:
            return _from_ext_or_marker(tag, payload)
        except Exception as inner:
            seen.append(f"ext type {tag}: {inner}")
            raise

    if str(error) == "ext_hook failed":
        with contextlib.suppress(Exception):
            _unpackb(data, ext_hook=hook)
    return seen[0] if seen else str(error).replace("ext_hook failed", "a malformed ext")
