"""Which slot a key falls into. The hash never changes between releases: data depends on it, and clients that talk to
workers directly (docs/client.md) compute it themselves."""

from __future__ import annotations

from zlib import crc32

SLOTS = 1024

_seeds: dict[str, int] = {}


def slot_of(type_: str, name: str) -> int:
    """The slot of a key: CRC-32 of ``type NUL name`` in UTF-8, mixed by Knuth's multiplication, its top ten bits.

    Neither part holds a NUL. CRC-32 alone is linear: it puts 70 of the names 0 to 99 into one half.
    """
    seed = _seeds.get(type_)
    if seed is None:
        seed = crc32(type_.encode() + b"\0")
        if len(_seeds) < 4096:  # types come from callers here: remember few
            _seeds[type_] = seed
    crc = crc32(name.encode(), seed)
    mixed = crc * 0x9E3779B1 & 0xFFFFFFFF
    return mixed >> 22
