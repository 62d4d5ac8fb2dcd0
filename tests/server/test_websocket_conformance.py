"""The cases of the Autobahn test suite that matter to a server, by their numbers there, against a real front process.

Each sends bytes to an echo, and says what has to come back: messages, pongs, and the code of the close frame (None: the
connection stays open, which a last message and a clean close show). The suite itself needs Python 2 and is not run.
"""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any

import pytest

from tests.support.front_process import FrontProcess
from tests.support.websockets import BINARY, CLOSE, CONT, PING, PONG, TEXT, Socket, frame, raw_frame

DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
GREETING = "Hello-µ@ßöäüàá-UTF-8!!"


def parts(*pieces: bytes, opcode: Any = TEXT) -> bytes:
    """A message in fragments."""
    first, *rest = pieces
    frames = [frame(opcode, first, fin=not rest)]
    frames += [frame(CONT, piece, fin=i == len(rest) - 1) for i, piece in enumerate(rest)]
    return b"".join(frames)


def close(payload: bytes) -> bytes:
    return frame(CLOSE, payload)


def code(number: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", number) + reason


T, B, P = "text", "binary", "pong"
GOES_ON = None
NON_CHARACTERS = "\ufffe\uffff\U0001fffe".encode()
ASCII_64K = b"*" * 65_536

CASES: dict[str, tuple[bytes, list[tuple[str, bytes]], int | None]] = {
    # 1: framing
    "1.1.1 empty text": (frame(TEXT), [(T, b"")], GOES_ON),
    **{f"1.1 text of {n}": (frame(TEXT, b"*" * n), [(T, b"*" * n)], GOES_ON) for n in (125, 126, 127, 128, 65_535)},
    "1.1.7 text of 65536": (frame(TEXT, ASCII_64K), [(T, ASCII_64K)], GOES_ON),
    "1.2.1 empty binary": (frame(BINARY), [(B, b"")], GOES_ON),
    **{f"1.2 binary of {n}": (frame(BINARY, b"\xfe" * n), [(B, b"\xfe" * n)], GOES_ON) for n in (125, 126, 127, 128)},
    "1.2.7 binary of 65536": (frame(BINARY, b"\xfe" * 65_536), [(B, b"\xfe" * 65_536)], GOES_ON),
    # 2: pings and pongs
    "2.1 empty ping": (frame(PING), [(P, b"")], GOES_ON),
    "2.2 ping with text": (frame(PING, b"Hello, world!"), [(P, b"Hello, world!")], GOES_ON),
    "2.3 ping with bytes": (frame(PING, b"\x00\xff\xfe\xfd"), [(P, b"\x00\xff\xfe\xfd")], GOES_ON),
    "2.4 ping of 125": (frame(PING, b"\xfe" * 125), [(P, b"\xfe" * 125)], GOES_ON),
    "2.5 ping of 126": (raw_frame(0x89, b"\xfe" * 126), [], 1002),
    "2.7 unsolicited pong": (frame(PONG), [], GOES_ON),
    "2.8 unsolicited pong with payload": (frame(PONG, b"unsolicited"), [], GOES_ON),
    "2.9 pong, then ping": (frame(PONG, b"x") + frame(PING, b"y"), [(P, b"y")], GOES_ON),
    "2.10 ten pings": (b"".join(frame(PING, b"%d" % i) for i in range(10)), [(P, b"%d" % i) for i in range(10)], None),
    # 3: reserved bits
    "3.1 RSV3": (raw_frame(0x91, b"x"), [], 1002),
    "3.2 RSV2 behind a good message": (frame(TEXT, b"ok") + raw_frame(0xA1, b"x"), [(T, b"ok")], 1002),
    "3.3 RSV2 and RSV3": (frame(TEXT, b"ok") + raw_frame(0xB1, b"x") + frame(PING), [(T, b"ok")], 1002),
    "3.4 RSV1 without an extension": (frame(TEXT, b"ok") + raw_frame(0xC1, b"x"), [(T, b"ok")], 1002),
    "3.5 RSV1 and RSV3 on binary": (raw_frame(0xD2, b"\x00\xff"), [], 1002),
    "3.6 RSV1 and RSV2 on a ping": (raw_frame(0xE9, b"x"), [], 1002),
    "3.7 all of them on a close": (raw_frame(0xF8), [], 1002),
    # 4: opcodes
    **{f"4.1 opcode {op}": (raw_frame(0x80 | op, b"x"), [], 1002) for op in (3, 4, 5, 6, 7)},
    **{
        f"4.2 opcode {op} behind a good message": (frame(TEXT, b"ok") + raw_frame(0x80 | op), [(T, b"ok")], 1002)
        for op in (11, 12, 13, 14, 15)
    },
    # 5: fragmentation
    "5.1 ping in fragments": (raw_frame(0x09, b"a") + raw_frame(0x80, b"b"), [], 1002),
    "5.2 pong in fragments": (raw_frame(0x0A, b"a") + raw_frame(0x80, b"b"), [], 1002),
    "5.3 text in two": (parts(b"fragment1", b"fragment2"), [(T, b"fragment1fragment2")], GOES_ON),
    "5.6 ping between fragments": (
        frame(TEXT, b"one", fin=False) + frame(PING, b"ping") + frame(CONT, b"two"),
        [(P, b"ping"), (T, b"onetwo")],
        GOES_ON,
    ),
    "5.9 continuation of nothing": (frame(CONT, b"x") + frame(TEXT, b"y"), [], 1002),
    "5.10 continuation behind a message": (frame(TEXT, b"ok") + frame(CONT, b"x"), [(T, b"ok")], 1002),
    "5.12 continuation of nothing, not final": (frame(CONT, b"x", fin=False) + frame(TEXT, b"y"), [], 1002),
    "5.15 continuation behind fragments that ended": (
        parts(b"one", b"two") + frame(CONT, b"x", fin=False) + frame(TEXT, b"y"),
        [(T, b"onetwo")],
        1002,
    ),
    "5.18 a new message inside of another": (frame(TEXT, b"one", fin=False) + frame(TEXT, b"two"), [], 1002),
    "5.19 five fragments, pings between": (
        parts(b"1", b"2", b"3", b"4", b"5")[:-7] + frame(PING, b"p") + frame(CONT, b"5"),
        [(P, b"p"), (T, b"12345")],
        GOES_ON,
    ),
    "empty fragments": (parts(b"", b"", b"", opcode=BINARY), [(B, b"")], GOES_ON),
    # 6: UTF-8
    "6.1.2 empty text in fragments": (parts(b"", b"", b""), [(T, b"")], GOES_ON),
    "6.1.3 text between empty fragments": (parts(b"", b"middle", b""), [(T, b"middle")], GOES_ON),
    "6.2.1 text": (frame(TEXT, GREETING.encode()), [(T, GREETING.encode())], GOES_ON),
    "6.2.4 one byte a fragment": (
        parts(*(bytes([byte]) for byte in "κόσμε".encode())),
        [(T, "κόσμε".encode())],
        GOES_ON,
    ),
    "6.3.1 invalid": (frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"), [], 1007),
    "6.3.2 invalid, one byte a fragment": (parts(*(bytes([b]) for b in b"\xce\xba\xed\xa0\x80x")), [], 1007),
    "6.5 the last code point": (frame(TEXT, "\U0010ffff".encode()), [(T, "\U0010ffff".encode())], GOES_ON),
    **{
        f"6.6-6.21 {bad.hex()}": (frame(TEXT, bad), [], 1007)
        for bad in (
            b"\xce",
            b"\xce\xba\xe1",
            b"\xf4\x90\x80\x80",
            b"\xf5\x80\x80\x80",
            b"\xf8\x88\x80\x80\x80",
            b"\xfc\x84\x80\x80\x80\x80",
            b"\x80",
            b"\xbf",
            b"\xc0\xaf",
            b"\xe0\x80\xaf",
            b"\xf0\x80\x80\xaf",
            b"\xc1\xbf",
            b"\xe0\x9f\xbf",
            b"\xed\xa0\x80",
            b"\xed\xbf\xbf",
            b"\xed\xa0\x80\xed\xb0\x80",
            b"\xfe",
            b"\xff",
        )
    },
    "6.22 non-characters": (
        frame(TEXT, "\ufffe\uffff\U0001fffe".encode()),
        [(T, "\ufffe\uffff\U0001fffe".encode())],
        None,
    ),
    # 7: closing
    "7.1.1 message, then close": (frame(TEXT, b"Hello") + close(code(1000)), [(T, b"Hello")], 1000),
    "7.1.2 two closes": (close(code(1000)) + close(code(1000)), [], 1000),
    "7.1.3 ping behind the close": (close(code(1000)) + frame(PING), [], 1000),
    "7.1.4 message behind the close": (close(code(1000)) + frame(TEXT, b"late"), [], 1000),
    "7.1.5 close inside of a message": (
        frame(TEXT, b"one", fin=False) + close(code(1000)) + frame(CONT, b"two"),
        [],
        1002,
    ),
    "7.3.1 close without a code": (close(b""), [], 1005),
    "7.3.2 close of one byte": (close(b"a"), [], 1002),
    "7.3.4 close with a reason": (close(code(1000, b"Hello World!")), [], 1000),
    "7.3.5 close of 125": (close(code(1000, b"*" * 123)), [], 1000),
    "7.3.6 close of 126": (raw_frame(0x88, code(1000, b"*" * 124)), [], 1002),
    "7.5.1 a reason that is not UTF-8": (close(code(1000, b"\xce\xba\xed\xa0\x80")), [], 1007),
    **{
        f"7.7 code {n}": (close(code(n)), [], n)
        for n in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    },
    **{
        f"7.9 code {n}": (close(code(n)), [], 1002)
        for n in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
    # beside the suite
    "a frame that is not masked": (raw_frame(0x81, b"x", masked=False), [], 1002),
    "a length that would be negative": (raw_frame(0x82, b"", length=b"\x7f" + b"\xff" * 8), [], 1009),
}


def receive(client: Socket) -> tuple[str, bytes]:
    got = client.receive()
    assert got is not None, "the server closed the connection"
    return {TEXT: T, BINARY: B, PONG: P}.get(got.opcode, str(got)), got.data


def check(client: Socket, sent: list[tuple[str, bytes]], end: int | None) -> None:
    """Pongs come at once and messages through the worker: each in their order."""
    wanted = list(sent)
    while wanted:
        got = receive(client)
        first = next(one for one in wanted if (one[0] == P) == (got[0] == P))
        assert got == first
        wanted.remove(first)
    if end is None:
        client.text("still there")
        assert client.message() == "still there"
        client.close(1000)
        end = 1000
    got_close = client.receive()
    assert got_close is not None
    assert got_close.opcode is CLOSE
    assert got_close.code == end
    assert client.at_end()


@pytest.mark.parametrize("case", CASES)
def test_case(front: FrontProcess, case: str) -> None:
    data, answers, end = CASES[case]
    with Socket(front.address) as client:
        client.raw(data)
        check_until_close(client, answers, end)


def check_until_close(client: Socket, answers: list[tuple[str, bytes]], end: int | None) -> None:
    if end is None:
        check(client, answers, end)
        return
    received = []
    while True:
        got = client.receive()
        assert got is not None, "the server closed the connection without a close frame"
        if got.opcode is CLOSE:
            assert got.code == end
            break
        received.append(({TEXT: T, BINARY: B, PONG: P}[got.opcode], got.data))
    # The echo comes from another process: what is not there yet when a bad frame is read is not sent any more.
    assert received == answers[: len(received)]
    assert {one for one in answers if one[0] == P} <= set(received)
    assert client.at_end()


@pytest.mark.parametrize("case", ["1.1.7 text of 65536", "5.6 ping between fragments", "6.2.4 one byte a fragment"])
@pytest.mark.parametrize("size", [1, 7, 1460])
def test_how_the_bytes_are_cut_makes_no_difference(front: FrontProcess, case: str, size: int) -> None:
    data, answers, end = CASES[case]
    if size == 1:
        data = data[:200] if len(data) > 2000 else data
        answers = answers if len(CASES[case][0]) <= 2000 else []
    with Socket(front.address) as client:
        for start in range(0, len(data), size):
            client.raw(data[start : start + size])
        if answers:
            check(client, answers, end)


@pytest.mark.parametrize("size", [65_536, 262_144, 1_048_576])
@pytest.mark.parametrize("pieces", [1, 64, 1024])
def test_9_large_messages_whole_and_in_fragments(front: FrontProcess, size: int, pieces: int) -> None:
    data = random.Random(size).randbytes(size)
    step = size // pieces
    with Socket(front.address) as client:
        client.raw(parts(*(data[i : i + step] for i in range(0, size, step)), opcode=BINARY))
        assert client.message() == data


def test_frames_that_make_no_sense_end_the_connection_and_nothing_else(front: FrontProcess) -> None:
    draw = random.Random(7)
    with Socket(front.address) as witness:
        for _ in range(200):
            with Socket(front.address) as client:
                client.raw(draw.randbytes(draw.randrange(1, 64)))
                client.sock.shutdown(1)
                client.closed()
        witness.text("unharmed")
        assert witness.message() == "unharmed"


# -- 12 and 13: compression


def deflate(data: bytes, bits: int = 15) -> bytes:
    packer = zlib.compressobj(wbits=-bits)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def compressed(data: bytes, opcode: int = 1) -> bytes:
    packed = deflate(data)
    size = len(packed)
    length = bytes([size]) if size < 126 else struct.pack("!BH", 126, size) if size < 65_536 else b""
    if not length:
        length = struct.pack("!BQ", 127, size)
    return raw_frame(0xC0 | opcode, packed, length=length)


def inflate(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(data + b"\x00\x00\xff\xff")


@pytest.mark.parametrize("size", [0, 16, 64, 256, 1_023, 1_024, 4_096, 32_768, 131_072, 1_048_576])
def test_12_compressed_messages_both_ways(front: FrontProcess, size: int) -> None:
    text = (b'{"field":"some text that repeats","n":12345},' * (size // 40 + 1))[:size]
    with Socket(front.address, headers=DEFLATE) as client:
        agreed = client.headers["sec-websocket-extensions"]
        assert "server_no_context_takeover" in agreed
        assert "client_no_context_takeover" in agreed
        for _ in range(2):
            client.raw(compressed(text))
            got = client.receive()
            assert got is not None
            assert got.compressed == (size >= 1_024)
            assert (inflate(got.data) if got.compressed else got.data) == text


@pytest.mark.parametrize("bits", [9, 12, 15])
def test_13_the_window_that_the_client_can_take_is_kept(front: FrontProcess, bits: int) -> None:
    offer = f"permessage-deflate; server_max_window_bits={bits}"
    text = random.Random(1).randbytes(6_000).hex() * 2
    with Socket(front.address, headers={"Sec-WebSocket-Extensions": offer}) as client:
        assert f"server_max_window_bits={bits}" in client.headers["sec-websocket-extensions"]
        client.text(text)
        got = client.receive()
        assert got is not None
        assert got.compressed
        assert zlib.decompressobj(wbits=-bits).decompress(got.data + b"\x00\x00\xff\xff") == text.encode()


def test_a_compressed_message_in_fragments(front: FrontProcess) -> None:
    packed = deflate(b"compressed in fragments" * 10)
    with Socket(front.address, headers=DEFLATE) as client:
        client.raw(
            raw_frame(0x41, packed[:5]) + frame(PING) + raw_frame(0x00, packed[5:9]) + raw_frame(0x80, packed[9:])
        )
        assert receive(client) == (P, b"")
        assert client.message() == "compressed in fragments" * 10


@pytest.mark.parametrize(
    ("bad", "end"),
    [
        (raw_frame(0xC1, b"\xff\xff\xff\xff"), 1002),
        (raw_frame(0x41, deflate(b"abc")) + raw_frame(0xC0, b"x"), 1002),
        (raw_frame(0xC9, b"x"), 1002),
        (compressed(b"\xff\xfe"), 1007),
        (compressed(b"x" * 1_048_577), 1009),
        (compressed(b"x" * 50_000_000), 1009),
    ],
    ids=["no-deflate", "bit-on-continuation", "compressed-ping", "not-utf-8", "a-byte-too-much", "bomb"],
)
def test_compressed_messages_keep_the_rules(front: FrontProcess, bad: bytes, end: int) -> None:
    with Socket(front.address, headers=DEFLATE) as client:
        client.raw(bad)
        assert client.closed()[0] == end


def test_no_compression_unless_the_client_offers_it(front: FrontProcess) -> None:
    with Socket(front.address) as client:
        assert "sec-websocket-extensions" not in client.headers
        client.text("x" * 5_000)
        got = client.receive()
        assert got is not None
        assert not got.compressed
