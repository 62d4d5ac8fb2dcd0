"""Runs one target: guided by coverage with atheris where it is installed, else by mutations drawn by lot."""

from __future__ import annotations

import hashlib
import importlib.util
import random
import tempfile
import time
from pathlib import Path

REGRESSIONS = Path(__file__).parent / "regressions"
INPUT_BYTES = 4_096
_TOKENS = (
    b"\r\n", b"\n", b"\r", b"\0", b"\x7f", b"\xff", b" ", b"\t", b":", b",", b";", b"0", b"chunked",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked", b"HTTP/1.1", b"\xc0", b"\xc7\x00\x01", b"\xc7\x00\x04", b"\xdd\xff\xff\xff\xff",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\xd9\x01x", b"\xc4\x00",
    b"\x90",
    b"\x80", b"null", b"true", b'"', b"[", b"]", b"{", b"}", b"1e999", b"9" * 40, b"\\ud800", b"%00", b"%ff", b"/",
)  # fmt: skip


def has_atheris() -> bool:
    return importlib.util.find_spec("atheris") is not None


def mutate(dice: random.Random, seeds: list[bytes]) -> bytes:
    """A seed after one to eight changes: bits, bytes, tokens, pieces left out, doubled, or taken from another seed."""
    data = bytearray(dice.choice(seeds))
    for _ in range(dice.randrange(1, 9)):
        at = dice.randrange(len(data) + 1)
        to = min(len(data), at + dice.randrange(1, 9))
        match dice.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << dice.randrange(8)
            case 1 if at < len(data):
                data[at] = dice.randrange(256)
            case 2:
                data[at:at] = dice.choice(_TOKENS)
            case 3:
                data[at:to] = dice.choice(_TOKENS)
            case 4:
                del data[at:to]
            case 5:
                data[at:at] = data[at:to] * dice.randrange(1, 4)
            case _:
                other = dice.choice(seeds)
                start = dice.randrange(len(other) + 1)
                data[at:to] = other[start : start + dice.randrange(1, 65)]
    return bytes(data[:INPUT_BYTES])


def save(name: str, data: bytes) -> Path:
    """Keep an input that broke a promise."""
    folder = REGRESSIONS / name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / hashlib.sha256(data).hexdigest()[:16]
    file.write_bytes(data)
    return file


def run_by_lot(name: str, seconds: float, seed: int, most: int | None = None) -> int:
    """Try mutated seeds for so long, or ``most``; how many. One that breaks one is saved, and raises."""
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    dice = random.Random(seed)
    end = time.monotonic() + seconds
    count = 0
    while (most is None or count < most) and (count % 16 or time.monotonic() < end):
        data = mutate(dice, target.seeds)
        try:
            target.run(data)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                error.add_note(f"input {count} of seed {seed}, saved as {save(name, data)}")
            raise
        count += 1
    return count


def run_atheris(name: str, seconds: float, seed: int) -> None:
    """Does not return: libFuzzer ends the process, with 0 when every promise held for so long."""
    import atheris

    with atheris.instrument_imports(include=["actord"]):
        from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    folder = REGRESSIONS / name
    folder.mkdir(parents=True, exist_ok=True)
    corpus = Path(tempfile.mkdtemp(prefix=f"actord-fuzz-{name}-"))
    for number, data in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(data)
    flags = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-seed={seed}",
        f"-max_len={INPUT_BYTES}",
        "-rss_limit_mb=2048",
    ]
    flags += ["-timeout=20", f"-artifact_prefix={folder}/", "-print_final_stats=1", "-verbosity=1"]
    atheris.Setup(["tests.fuzz", *flags, str(corpus)], target.run)
    atheris.Fuzz()
