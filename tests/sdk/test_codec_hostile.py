"""Damaged and hostile bytes: a value of the listed types or CodecError, nothing else, in bounded time and memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
from actord.codec import decode, encode
from actord.errors import CodecError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sdk.codec_values import EVERY_TYPE, values
from tests.support.lots import cases

CORPUS = [encode(value) for value in EVERY_TYPE] + [encode(EVERY_TYPE)]

MARKERS = [b"\xc7\x00\x01", b"\xc7\x00\x04", b"\xc8\x00\x00\x02"]


def try_decode(data: bytes) -> None:
    try:
        value = decode(data)
    except CodecError:
        return
    encode(value)  # what came out is of the listed types only, or this raises


@given(st.binary(max_size=200))
@settings(max_examples=cases(400), deadline=None)
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    try_decode(data)


@given(st.data())
@settings(max_examples=cases(400), deadline=None)
def test_mutated_values_never_raise_anything_else(data: st.DataObject) -> None:
    mutated = bytearray(data.draw(st.sampled_from(CORPUS) | values.map(encode)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated)))
        insert = data.draw(st.binary(max_size=3) | st.sampled_from(MARKERS))
        mutated[at : at + data.draw(st.integers(0, 3))] = insert
    try_decode(bytes(mutated))


def test_every_single_byte_change_of_every_type_is_survived() -> None:
    for data in CORPUS[:-1]:
        for at in range(min(len(data), 40)):
            for byte in range(256):
                try_decode(data[:at] + bytes((byte,)) + data[at + 1 :])


@pytest.mark.parametrize("data", CORPUS, ids=lambda d: d[:12].hex())
def test_a_cut_or_lengthened_value_is_refused(data: bytes) -> None:
    for cut in range(min(len(data), 500)):
        with pytest.raises(CodecError):
            decode(data[:cut])
    for tail in (b"\x00", b"\xc0", b"\xc1", data, b"\xcf" + bytes(8)):
        with pytest.raises(CodecError):
            decode(data + tail)


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "reserved": b"\xc1",
    "int key": b"\x81\x01\x01",
    "array key": b"\x81\x90\x01",
    "marker alone": b"\xc7\x00\x01",
    "marker as a dict's value": b"\x81\xa1a\xc7\x00\x02",
    "marker in second place": b"\x92\x01\xc7\x00\x01",
    "marker twice": b"\x92\xc7\x00\x01\xc7\x00\x01",
    "marker in a longer form": b"\x91\xc8\x00\x00\x01",
    "marker in a longer form beside a right one": b"\x92\xc7\x00\x01\x91\x92\xc8\x00\x00\x01\xc8\x00\x00\x01",
    "marker with a payload": b"\x91\xd4\x01\x00",
    "set of a list": b"\x92\xc7\x00\x02\x90",
    "dict with an odd number": b"\x92\xc7\x00\x04\x01",
    "dict with a list as key": b"\x93\xc7\x00\x04\x90\x01",
    "dict with a tuple as key": b"\x93\xc7\x00\x04\x91\xc7\x00\x01\x01",
    "dict with a key twice": b"\x95\xc7\x00\x04\x01\x01\x01\x02",
    "dict with sNaN as key": b"\x93\xc7\x00\x04\xd6\x16sNaN\x01",
    "unknown ext": b"\xd4\x7f\x00",
    "timestamp ext": b"\xd6\xff\x00\x00\x00\x00",
    "month 13": bytes.fromhex("d61307e80d01"),
    "short date": bytes.fromhex("d51307e8"),
    "date with a tail": bytes.fromhex("c7051307e8010100"),
    "datetime without zone": bytes.fromhex("c70b1207e8010100000000000000"),
    "zone of no kind": bytes.fromhex("c70c1207e801010000000000000005"),
    "naive with a tail": bytes.fromhex("c70d1207e80101000000000000000000"),
    "offset beyond a day": bytes.fromhex("c7141207e8010100000000000000027fffffffffffffff"),
    "timedelta beyond its range": bytes.fromhex("c70c157fffffff0000000000000000"),
    "decimal of spaces": b"\xd5\x16 1",
    "decimal with underscore": b"\xc7\x03\x161_0",
    "decimal of no digits": b"\xc7\x00\x16",
    "decimal not ASCII": b"\xd5\x16\xd9\xa1",
    "short uuid": b"\xd4\x17x",
    "claims 4 GiB of items": b"\xdd\xff\xff\xff\xff\x01",
    "claims 4 GiB of pairs": b"\xdf\xff\xff\xff\xff\xa1a\x01",
    "claims 4 GiB of bytes": b"\xc6\xff\xff\xff\xff",
    "claims 4 GiB of ext": b"\xc9\xff\xff\xff\xff\x10",
    "bad UTF-8": b"\xa1\xff",
    "surrogate in UTF-8": b"\xa3\xed\xa0\x80",
    "too deep": b"\x91" * 100_000 + b"\xc0",
    "tuples too deep": b"\x92\xc7\x00\x01" * 100_000 + b"\xc0",
    "deeper than any encoder goes": b"\x92\xc7\x00\x01" * 300 + b"\xc0",
}


def zone_of(key: bytes) -> bytes:
    payload = bytes.fromhex("07e801010000000000000004") + key
    return b"\xc7" + bytes((len(payload), 0x12)) + payload


for number, key in enumerate(
    [b"", b"No/Such", b"../../../etc/passwd", b"/etc/passwd", b"Europe", b".", b"\xff", b"a\0b", b"x" * 200]
):
    HOSTILE[f"zone {number}"] = zone_of(key)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_refused(name: str) -> None:
    with pytest.raises(CodecError):
        decode(HOSTILE[name])


def test_what_is_wrong_inside_an_ext_is_told() -> None:
    with pytest.raises(CodecError, match="No/Such"):
        decode(zone_of(b"No/Such"))


def test_claims_of_size_cost_no_memory() -> None:
    """In a process that may have 1 GiB: arrays, maps and strings that claim 4 GiB each, nested and side by side."""
    program = """
import resource
from actord.codec import decode
from actord.errors import CodecError
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
claims = "ddffffffff dfffffffffa161 dd04000000 dcffff"
for claim in map(bytes.fromhex, claims.split()):
    for repeat in (1, 100, 900):
        for end in (b"", b"\\xc6\\xff\\xff\\xff\\xff", b"\\xc9\\xff\\xff\\xff\\xff\\x10", b"\\xc7\\x00\\x01"):
            try:
                decode(claim * repeat + end)
            except CodecError:
                continue
            raise SystemExit("decoded")
status = open("/proc/self/status").read()  # of this program alone; ru_maxrss begins with what its parent had
peak = int(status.partition("VmHWM:")[2].split()[0])
assert peak < 200 * 1024, peak
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
