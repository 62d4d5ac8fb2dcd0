"""What is fuzzed: each target is a function of bytes that raises when a promise does not hold, and its seeds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict
from urllib.parse import quote
from uuid import UUID

import msgspec
import ormsgpack
from actord import codec
from actord import json as actord_json
from actord.errors import ActorArgumentError, BadRequest, CodecError, MethodNotAllowed
from actord.server.chunks import ChunkedBody
from actord.server.heads import HeadReader, Refused
from actord.server.http import RequestParser
from actord.server.routes import CALL, FETCH, route
from actord.settings import Http
from actord.shards import wire
from actord.shards.arguments import Binder

from tests.fuzz.intake import DIRECT_SEEDS, INTAKE_SEEDS, direct, intake
from tests.sdk.codec_values import EVERY_TYPE, same

CORPUS = Path(__file__).parents[1] / "corpus" / "http1"
SMALL = 2_000  # larger files of the corpus are about sizes, which a mutator does not get any further with


class Target(NamedTuple):
    run: Callable[[bytes], None]
    seeds: list[bytes]


def _ways(data: bytes) -> list[list[bytes]]:
    """The bytes whole, one by one, and cut at places that they name themselves."""
    cuts = sorted({byte * len(data) // 256 for byte in data[:4]} | {0, len(data)})
    pieces = [data[a:b] for a, b in pairwise(cuts)]
    return [[data], pieces, [data[i : i + 1] for i in range(len(data))]]


def _all_the_same(outcomes: list[Any]) -> None:
    assert all(outcome == outcomes[0] for outcome in outcomes), outcomes


# -- http, chunks, route


def _parse(pieces: list[bytes]) -> Any:
    limits = Http(head_bytes=1024, line_bytes=256, header_count=8, body_bytes=512)
    parser = RequestParser(HeadReader(limits), limits)
    found = []
    try:
        for piece in pieces:
            request = parser.next(piece)
            while request is not None:
                method, target, head, body = request
                assert len(body) <= limits.body_bytes
                found.append((method, target, head.headers, body))
                request = parser.next()
    except Refused as refusal:
        if not 400 <= refusal.status < 600:
            raise AssertionError(f"refused with {refusal.status}") from refusal
        assert parser.next(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") is None, "something is served after a refusal"
        return found, "refused"
    return found, parser.in_head, parser.in_body


def http(data: bytes) -> None:
    _all_the_same([_parse(way) for way in _ways(data)])


def _chunks(pieces: list[bytes]) -> Any:
    limits = Http(head_bytes=1024, body_bytes=512)
    body = ChunkedBody(limits)
    rest = None
    try:
        for piece in pieces:
            if rest is None:
                rest = body.feed(piece)
                assert len(body.body) <= limits.body_bytes
            else:
                rest += piece
    except Refused:
        return "refused"
    return bytes(body.body), rest


def chunks(data: bytes) -> None:
    _all_the_same([_chunks(way) for way in _ways(data)])


def routes(data: bytes) -> None:
    target = "/" + data.decode("latin-1")
    if not (target.isascii() and target.isprintable()):
        target = "/" + quote(data, safe="/%?&=")
    try:
        kind, type_, name, verb, _ = route("POST", target)
    except (BadRequest, MethodNotAllowed):
        return
    if kind in (CALL, FETCH):
        assert 1 <= len(name.encode()) <= 512
        assert "\0" not in name
        last = verb if kind == FETCH else "/" + quote(verb, safe="")
        again = f"/actors/{quote(type_, safe='')}/{quote(name, safe='')}" + ("/fetch" if kind == FETCH else "") + last
        assert route("POST", again)[:4] == (kind, type_, name, verb), again


# -- frames


def _read(pieces: list[bytes]) -> Any:
    reader = wire.BatchReader()
    found: list[wire.Frame] = []
    try:
        for piece in pieces:
            found += reader.feed(piece)
    except wire.WireError:
        return "closed"
    assert all(type(frame) is list and frame and type(frame[0]) is int for frame in found)
    return repr(found)  # nan is not equal to itself


def frames(data: bytes) -> None:
    _all_the_same([_read(way) for way in _ways(data)])
    framed = len(data).to_bytes(4, "little") + data
    _all_the_same([_read(way) for way in _ways(framed)])


# -- codec and JSON


def values(data: bytes) -> None:
    try:
        value = codec.decode(data)
    except CodecError:
        return
    assert same(codec.decode(codec.encode(value)), value)


def _no_constant(text: str) -> Any:
    raise ValueError(text)


def json_bodies(data: bytes) -> None:
    try:
        value = actord_json.loads(data)
    except BadRequest:
        return
    other = json.loads(data, parse_constant=_no_constant)
    assert same(value, other), (value, other)
    try:
        written = actord_json.dumps(value)
    except CodecError:
        return
    assert same(actord_json.loads(written), value)


# -- arguments


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(msgspec.Struct):
    x: int
    y: float = 0.0


class Options(TypedDict, total=False):
    deep: list[dict[str, int]]
    when: datetime


def method(
    self: object,
    count: int,
    kind: Literal["a", "b"] = "a",
    point: Point | None = None,
    colour: Colour = Colour.RED,
    options: Options | None = None,
    amount: Decimal = Decimal(0),
    data: bytes = b"",
    key: UUID | None = None,
    day: date | None = None,
    span: timedelta = timedelta(0),
    free: Any = None,
) -> None: ...


def variadic(self: object, first: int, /, *rest: int, named: str = "", **more: float) -> None: ...


BINDERS = [Binder(method, "T.method"), Binder(variadic, "T.variadic")]


def _bound(binder: Binder, body: bytes) -> Any:
    try:
        args, kwargs = binder.from_json(body)
    except (ActorArgumentError, BadRequest):
        return "refused"
    bound = binder.signature.bind(*args, **kwargs)
    return repr(sorted(bound.arguments.items(), key=lambda item: item[0]))


def arguments(data: bytes) -> None:
    try:
        msgspec.json.decode(data)
        whole = True
    except (ValueError, RecursionError):
        whole = not data
    for binder in BINDERS:
        # With white space in front the body is decoded first and then converted: both ways have to agree. Only not on
        # what is no JSON in a member that no annotation knows: the fast way skips it unread.
        fast, general = _bound(binder, data), _bound(binder, b" " + data if data else data)
        if whole:
            _all_the_same([fast, general])
        else:
            assert general == "refused"
        for read in (binder.from_msgpack, binder.from_pair):
            with contextlib.suppress(ActorArgumentError, BadRequest, CodecError):
                read(data)


# -- all of them


def _http_seeds() -> list[bytes]:
    files = sorted(CORPUS.glob("*/*.http"))
    return [data for file in files if len(data := file.read_bytes()) < SMALL]


def _chunk_seeds() -> list[bytes]:
    heads = [data.partition(b"\r\n\r\n") for data in _http_seeds()]
    return [body for head, _, body in heads if b"ransfer-" in head and body]


_FRAMES: list[list[wire.Frame]] = [
    [(wire.HELLO, wire.VERSION, "front", "/run/begun")],
    [(wire.CALL, 1, "T", "name", "method", 0, 1 << 40, b"{}"), (wire.CANCEL, 1)],
    [(wire.REPLY, 7, 200, b"null", None), (wire.DRAINING,), (wire.LEAVING,)],
    [(wire.FETCH, 2, "T", "n", ["GET", "/", [["host", "a"]], None], None, 0, 1 << 40, b"")],
]

_JSON: list[Any] = [
    {"count": 1, "kind": "b", "point": {"x": 1, "y": 2.5}, "colour": "blue", "free": [None, True]},
    [1, "a", {"x": 1}, "red", {"deep": [{"a": 1}], "when": "2026-01-02T03:04:05Z"}, "1.5", "AAEC"],
    {"count": 1, "key": "12345678-1234-5678-1234-567812345678", "day": "2026-01-02", "span": "PT1.5S"},
    {"first": 1}, [1, 2, 3], {"named": "x", "z": 1.5}, [], {}, None, "text",
    [10**30, -1, 1e308, 1.5e-300, "é\u0000\U0001f40d", ""],
]  # fmt: skip
_JSON_TEXTS = [b'{"a":1,"a":2}', b'"\\ud800"', b'"\\ud83d\\udc0d"', b"[" * 50 + b"]" * 50, b"1e999", b"-0", b"-0.0"]
_JSON_SEEDS = [json.dumps(value).encode() for value in _JSON] + _JSON_TEXTS
_CODEC_SEEDS = [codec.encode(value) for value in [*EVERY_TYPE, *_JSON, datetime(2026, 1, 2, tzinfo=UTC)]]

_TARGETS = [
    "/actors/T/a%2Fb/m",
    "/actors/T/%c3%a9/fetch/x?y=%00",
    "/actors/T/a+b/m?timing",
    "/-/x",
    "/actors//%/",
    "/%zz",
]

TARGETS = {
    "http": Target(http, _http_seeds()),
    "chunks": Target(chunks, _chunk_seeds()),
    "route": Target(routes, [target[1:].encode() for target in _TARGETS]),
    "frames": Target(frames, [wire.pack_batch(batch)[4:] for batch in _FRAMES] + [ormsgpack.packb([])]),
    "intake": Target(intake, INTAKE_SEEDS),
    "direct": Target(direct, DIRECT_SEEDS),
    "codec": Target(values, _CODEC_SEEDS),
    "json": Target(json_bodies, _JSON_SEEDS),
    "arguments": Target(arguments, _JSON_SEEDS + _CODEC_SEEDS),
}
