"""Frames survive any cut of the stream, and damage is noticed: a batch is taken whole or not at all."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import ormsgpack
import pytest
from actord.limits import WIRE_BATCH_BYTES
from actord.shards.wire import BatchReader, WireError, pack_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lots import cases

parts = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=50)
    | st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=3)
)
frames = st.lists(st.tuples(st.integers(1, 31), st.lists(parts, max_size=6)).map(lambda f: [f[0], *f[1]]), max_size=6)
streams = st.lists(frames, min_size=1, max_size=5)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(ends)]


@given(streams, st.lists(st.integers(0, 1 << 30), max_size=12))
def test_batches_come_out_as_they_went_in_however_the_stream_is_cut(stream: Any, places: list[int]) -> None:
    reader = BatchReader()
    data = b"".join(pack_batch(batch) for batch in stream)
    found: list[Any] = []
    for piece in cut(data, places):
        found += reader.feed(piece)
    assert found == [frame for batch in stream for frame in batch]


@given(frames)
def test_a_batch_fed_byte_by_byte_comes_out_with_its_last_byte(batch: Any) -> None:
    reader = BatchReader()
    data = pack_batch(batch)
    for i in range(len(data) - 1):
        assert reader.feed(data[i : i + 1]) == []
    assert reader.feed(data[-1:]) == batch


@settings(max_examples=cases(150))
@given(frames, st.integers(0, 1 << 30), st.integers(1, 255), st.booleans())
def test_a_damaged_batch_never_crashes_and_is_never_half_taken(batch: Any, place: int, flip: int, whole: bool) -> None:
    data = bytearray(pack_batch(batch))
    place = 4 + place % (len(data) - 4)  # the length stands: its damage is another test
    data[place] ^= flip
    reader = BatchReader()
    try:
        found = reader.feed(bytes(data)) if whole else reader.feed(bytes(data[:5])) + reader.feed(bytes(data[5:]))
    except WireError:
        return
    # msgpack has no checksum: the damage may make another batch, but then a complete one of well-formed frames
    assert all(type(frame) is list and frame and type(frame[0]) is int for frame in found)
    assert reader.feed(pack_batch([[1]])) == [[1]]


@settings(max_examples=cases(150))
@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_but_wire_error(data: bytes) -> None:
    for framed in (data, struct.pack("<I", len(data)) + data):
        reader = BatchReader()
        try:
            found = reader.feed(framed)
        except WireError:
            continue
        assert all(type(frame) is list and frame and type(frame[0]) is int for frame in found)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1",
        b"\x81\x01\x02",
        ormsgpack.packb({"a": 1}),
        ormsgpack.packb([1, 2]),
        ormsgpack.packb([[]]),
        ormsgpack.packb([["CALL", 1]]),
        ormsgpack.packb([[1.0]]),
        ormsgpack.packb([[True, 1]]),
        ormsgpack.packb([[1], None]),
        b"\xdd\xff\xff\xff\xff",  # an array that says it has four billion items
        b"\x91" * 5_000 + b"\xc0",
        b"\x91\x92\x02\xc7\x01\x05\x00",  # an ext type
        b"\x91\x92\x02\xa1\xff",  # a str that is no UTF-8
    ],
)
def test_what_is_no_batch_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError):
        BatchReader().feed(struct.pack("<I", len(payload)) + payload)
    split = BatchReader()
    assert split.feed(struct.pack("<I", len(payload))) == []
    with pytest.raises(WireError):
        split.feed(payload)


def test_a_batch_over_the_limit_is_refused_from_its_length_alone() -> None:
    for size in (WIRE_BATCH_BYTES - 3, 0xFFFFFFFF):
        with pytest.raises(WireError, match="over the limit"):
            BatchReader().feed(struct.pack("<I", size) + b"x")
    assert BatchReader().feed(struct.pack("<I", WIRE_BATCH_BYTES - 4) + b"x") == []


def test_a_damaged_batch_takes_the_good_one_before_it_in_the_same_bytes_with_it() -> None:
    with pytest.raises(WireError):
        BatchReader().feed(pack_batch([(2, 1)]) + b"\x01\x00\x00\x00\xc1")
