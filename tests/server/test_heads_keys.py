"""A header block with an idempotency key: read as strictly as any other, and never remembered with its key."""

from __future__ import annotations

import pytest
from actord.server.heads import HTTP11, Head, HeadReader, Refused
from actord.settings import Http
from hypothesis import given
from hypothesis import strategies as st

BASE = b"\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"


def read(reader: HeadReader, line: bytes, base: bytes = BASE) -> Head:
    return reader.read(HTTP11, base + line + b"\r\n")


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"k", "k"),
        (b'"k"', "k"),
        (b"  8e03978e-40d5-43dd-bc93-6894a57f9324\t", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b'"a \\"b\\" \\\\"', 'a "b" \\'),
        (b"a b, c", "a b, c"),
        (b"x" * 255, "x" * 255),
        (b'"' + b"x" * 255 + b'"', "x" * 255),
        (b"", ""),
        (b'""', ""),
        (b"x" * 256, ""),
        (b'"' + b"x" * 256 + b'"', ""),
        (b'"open', ""),
        (b'"k"; q=1', ""),
        (b'"\\k"', ""),
        (b"caf\xe9", ""),
        (b"a\tb", ""),
    ],
)
def test_a_key_is_bare_or_quoted_and_anything_else_is_none(value: bytes, key: str) -> None:
    head = read(HeadReader(Http()), b"Idempotency-Key:" + value)
    assert head.idempotency_key == key
    assert head.keyed_call == (key != "")
    assert not head.plain_call


def test_blocks_with_keys_leave_the_memory_of_blocks_alone() -> None:
    reader = HeadReader(Http())
    plain = reader.read(HTTP11, BASE)
    for i in range(1000):
        head = read(reader, b"iDEMPOTENCY-kEY: %d" % i)
        assert head.idempotency_key == str(i)
        assert head.headers == [*plain.headers, ("idempotency-key", str(i))]
    assert list(reader.known[HTTP11].values()) == [plain]
    assert plain.idempotency_key is None
    assert plain.plain_call


def test_two_keys_are_none() -> None:
    reader = HeadReader(Http())
    for second in (b"k", b"l"):
        head = read(reader, b"Idempotency-Key: k\r\nIdempotency-Key: " + second)
        assert (head.idempotency_key, head.keyed_call) == ("", False)


@pytest.mark.parametrize(
    "line",
    [
        b"Idempotency-Key: a\x00b",
        b"Idempotency-Key: a\nb: c",
        b"Idempotency-Key: a\rb",
        b"Idempotency-Key : k",
        b"Idempotency-Key: k\r\n folded",
        b"Idempotency-Key: k\r\nno colon",
        b"Idempotency-Key: k\r\nHost: b",
        b"Idempotency-Key: " + b"x" * 9000,
        b"\r\n".join([b"Idempotency-Key: k", *(b"X-%d: y" % i for i in range(97))]),
    ],
)
def test_what_is_refused_beside_a_key_is_refused_with_it(line: bytes) -> None:
    with pytest.raises(Refused):
        read(HeadReader(Http()), line)


def test_as_many_header_lines_are_taken_as_without_a_key() -> None:
    lines = b"\r\n".join([b"Idempotency-Key: k", *(b"X-%d: y" % i for i in range(96))])
    assert read(HeadReader(Http()), lines).lines == 100


@given(
    lines=st.permutations([b"Host: a", b"Idempotency-Key: k", b"Content-Length: 2", b"X-Y: z", b"Actord-Timeout: 3"])
)
def test_the_place_of_the_key_s_line_does_not_matter(lines: list[bytes]) -> None:
    head = HeadReader(Http()).read(HTTP11, b"\r\n" + b"\r\n".join(lines) + b"\r\n")
    assert (head.idempotency_key, head.length, head.host, head.deadline, head.lines) == ("k", 2, "a", 3.0, 5)


PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_what_traces_a_call_is_read_and_its_block_is_not_remembered() -> None:
    """Each block is another one: they would push out those that come again."""
    reader = HeadReader(Http())
    assert read(reader, b"Accept: */*").trace is None
    traced = read(reader, b"Traceparent: " + PARENT + b"\r\nX-Request-ID:abc")
    assert traced.trace == {"trace": PARENT.decode(), "rid": "abc"}
    assert not traced.plain_call
    keyed = read(reader, b"Idempotency-Key: k\r\nX-Request-ID: abc")
    assert (keyed.trace, keyed.idempotency_key, keyed.keyed_call) == ({"rid": "abc"}, "k", False)
    assert len(reader.known[HTTP11]) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"traceparent: " + PARENT[:-1],
        b"traceparent: " + PARENT + b"-0",
        b"traceparent: 01" + PARENT[2:],
        b"traceparent: 00-" + b"0" * 32 + PARENT[35:],
        b"traceparent: " + PARENT[:36] + b"0" * 16 + PARENT[52:],
        b"traceparent: " + PARENT.upper(),
        b"X-Request-Id: a b",
        b"X-Request-Id: caf\xe9",
        b"X-Request-Id: " + b"x" * 129,
        b"X-Request-Id:",
    ],
)
def test_a_malformed_one_is_as_none(line: bytes) -> None:
    head = read(HeadReader(Http()), line)
    assert head.trace is None
    assert head.plain_call


def test_of_two_the_first_one_counts() -> None:
    assert read(HeadReader(Http()), b"X-Request-Id: a\r\nX-Request-Id: b").trace == {"rid": "a"}
