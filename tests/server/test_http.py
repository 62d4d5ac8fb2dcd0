"""Limits of the parser, and what it remembers."""

from __future__ import annotations

import pytest
from actord.server.heads import HeadReader, Refused
from actord.server.http import Request, RequestParser
from actord.settings import Http

HEAD = b"POST /actors/A/x/m HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


def parser(**limits: int) -> RequestParser:
    http = Http(**limits)  # type: ignore[arg-type]
    return RequestParser(HeadReader(http), http)


def refused(parser: RequestParser, *pieces: bytes) -> int:
    try:
        for piece in pieces:
            request = parser.next(piece)
            while request is not None:
                request = parser.next()
    except Refused as refusal:
        return refusal.status
    raise AssertionError("nothing was refused")


def test_a_declared_body_over_the_limit_is_refused_before_its_first_byte() -> None:
    assert refused(parser(body_bytes=100), HEAD + b"Content-Length: 101\r\n\r\n") == 413
    request = parser(body_bytes=100).next(HEAD + b"Content-Length: 100\r\n\r\n" + b"x" * 100)
    assert request is not None
    assert request[3] == b"x" * 100


def test_a_remembered_head_does_not_lift_the_limit_of_the_body() -> None:
    http = Http(body_bytes=100)
    reader = HeadReader(http)
    for _ in range(3):
        assert refused(RequestParser(reader, http), HEAD + b"Content-Length: 101\r\n\r\n") == 413


def test_a_chunked_body_over_the_limit_is_refused_when_it_passes_it() -> None:
    chunks = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"a\r\n0123456789\r\n" * 10
    whole = parser(body_bytes=100).next(chunks + b"0\r\n\r\n")
    assert whole is not None
    assert whole[3] == b"0123456789" * 10
    assert refused(parser(body_bytes=100), chunks + b"1\r\nx") == 413
    assert refused(parser(body_bytes=100), HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n" + b"x" * 101) == 413


def test_the_limits_of_line_head_and_header_count_are_exact() -> None:
    line = b"GET /" + b"x" * 80 + b" HTTP/1.1"
    head = line + b"\r\nHost: a\r\n\r\n"
    assert parser(line_bytes=len(line)).next(head) is not None
    assert refused(parser(line_bytes=len(line) - 1), head) == 414
    assert parser(head_bytes=len(head) - 4).next(head) is not None
    assert refused(parser(head_bytes=len(head) - 5), head) == 431
    assert parser(header_count=1).next(head) is not None
    assert refused(parser(header_count=0), head) == 431


def test_a_head_is_refused_as_soon_as_it_is_too_long_even_without_its_end() -> None:
    assert refused(parser(line_bytes=100), b"GET /" + b"x" * 96) == 414
    assert refused(parser(head_bytes=100), b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 20) == 431


def test_the_same_header_block_is_read_once_for_each_version() -> None:
    http = Http()
    reader = HeadReader(http)
    heads = []
    for version in (b"1.1", b"1.1", b"1.0", b"1.0"):
        request = RequestParser(reader, http).next(b"GET / HTTP/" + version + b"\r\nHost: a\r\n\r\n")
        assert request is not None
        heads.append(request[2])
    assert heads[0] is heads[1]
    assert heads[2] is heads[3]
    assert (heads[0].keep_alive, heads[2].keep_alive) == (True, False)


def test_a_block_that_1_0_accepts_is_not_accepted_for_1_1() -> None:
    http = Http()
    reader = HeadReader(http)
    assert RequestParser(reader, http).next(b"GET / HTTP/1.0\r\nX: y\r\n\r\n") is not None
    assert refused(RequestParser(reader, http), b"GET / HTTP/1.1\r\nX: y\r\n\r\n") == 400


def test_the_memory_for_header_blocks_is_bounded() -> None:
    http = Http()
    reader = HeadReader(http)
    for i in range(5_000):
        RequestParser(reader, http).next(b"GET / HTTP/1.1\r\nHost: a\r\nX: %d\r\n\r\n" % i)
    assert sum(map(len, reader.known.values())) <= 1024
    RequestParser(reader, http).next(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 4000 + b"\r\n\r\n")
    assert max(len(block) for blocks in reader.known.values() for block in blocks) <= 2048


def test_a_body_in_two_parts_does_not_take_bytes_of_the_next_request() -> None:
    one = parser()
    assert one.next(HEAD + b"Content-Length: 5\r\n\r\n12") is None
    assert one.in_body
    assert one.body_received == 2
    first = one.next(b"345GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HT")
    second = one.next()
    assert [request and (request[1], request[3]) for request in (first, second)] == [
        ("/actors/A/x/m", b"12345"),
        ("/a", b""),
    ]
    assert one.next() is None
    assert one.in_head
    third = one.next(b"TP/1.1\r\nHost: a\r\n\r\n")
    assert third is not None
    assert third[1] == "/b"
    assert not one.in_head


def test_many_pipelined_requests_come_out_one_by_one() -> None:
    one = parser()
    got: list[Request] = []
    request = one.next(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(1000)))
    while request is not None:
        got.append(request)
        request = one.next()
    assert [request[1] for request in got] == [f"/{i}" for i in range(1000)]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1", 1.0),
        (b"2.5", 2.5),
        (b"0", 0.0),
        (b"-1", None),
        (b"nan", None),
        (b"1e3", None),
        (b"", None),
        (b"1,1", None),
    ],
)
def test_actord_timeout_is_plain_seconds(value: bytes, seconds: float | None) -> None:
    request = parser().next(b"GET / HTTP/1.1\r\nHost: a\r\nActord-Timeout: " + value + b"\r\n\r\n")
    assert request is not None
    assert request[2].deadline == seconds
    assert request[2].deadline_ok is (seconds is not None)
