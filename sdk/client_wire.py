"""What the client speaks with a worker: batches of frames, as ``shards/wire.py`` describes them. No I/O here.

Only what a caller of methods needs, under the same numbers (a test compares them): the client loads nothing of the
server. It is no interface for others, since client and server have to be of one version of it.
"""

from __future__ import annotations

import struct
from typing import Any

import ormsgpack

VERSION = 2

HELLO, CALL, CANCEL, CALLX = 1, 2, 5, 6
READY, REPLY, DRAINING, STOPPED, ELSEWHERE = 16, 17, 18, 48, 56
PYTHON_CALL = 1 | 4  # flags: MSGPACK and PAIR

CLIENT, CALLER = "client", "caller"  # many calls at a time on a link, or one
REPLY_HEAD = b"Content-Type: application/msgpack\r\n"
BATCH_BYTES = 256 << 20

Frame = tuple[Any, ...] | list[Any]

_LENGTH = struct.Struct("<I")
_packb = ormsgpack.packb
_unpackb = ormsgpack.unpackb


class Garbled(Exception):
    """The peer does not speak this."""


def pack_batch(frames: list[Frame]) -> bytes:
    payload = _packb(frames)
    return _LENGTH.pack(len(payload)) + payload


class Reader:
    """Bytes of a stream in, frames out. Raises ``Garbled``."""

    __slots__ = ("_buffer", "_need")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need = 0  # bytes of the batch at the buffer's head, its length included; 0 when unknown

    def feed(self, data: bytes) -> list[Frame]:
        buffer = self._buffer
        if not buffer and len(data) >= 4 and 4 + _LENGTH.unpack_from(data)[0] == len(data):
            return _frames(memoryview(data)[4:])
        buffer += data
        frames: list[Frame] = []
        while len(buffer) >= 4:
            need = self._need = self._need or 4 + _LENGTH.unpack_from(buffer)[0]
            if need > BATCH_BYTES:
                raise Garbled("a batch that is too long")
            if len(buffer) < need:
                break
            frames += _frames(bytes(memoryview(buffer)[4:need]))
            del buffer[:need]
            self._need = 0
        return frames


def _frames(payload: bytes | memoryview) -> list[Frame]:
    try:
        frames = _unpackb(payload)
    except ValueError as error:
        raise Garbled(f"no msgpack: {error}") from None
    if type(frames) is not list or not all(type(frame) is list and frame for frame in frames):
        raise Garbled("a batch that is not an array of frames")
    return frames
