"""The token file, and what is looked at in a header."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from actord.server import tokens
from actord.server.access import Access
from actord.server.exits import ConfigError, StartError
from actord.server.tokens import Token, TokenFile


def add(path: Path, *scopes: str, **options: object) -> str:
    text, made = tokens.make(list(scopes), **options)  # type: ignore[arg-type]
    with tokens.changing(str(path)) as content:
        content.tokens.append(made)
    return text


def test_a_token_has_160_random_bits_and_the_file_has_its_hash_alone(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    texts = {add(path, "Account:debit", name="ci") for _ in range(3)}
    assert len(texts) == 3
    raw = path.read_text()
    for text in texts:
        _, id_, secret = text.split("_")
        assert re.fullmatch("[0-9a-f]{40}", secret)
        assert id_ in raw
        assert secret not in raw
        assert tokens.digest(text) in raw
    assert path.stat().st_mode & 0o777 == 0o600


def test_only_the_whole_token_fits_its_hash() -> None:
    text, made = tokens.make(["*"])
    other, _ = tokens.make(["*"])
    assert tokens.fits(text, made.sha256)
    assert not tokens.fits(other, made.sha256)
    assert not tokens.fits(text[:-1], made.sha256)
    assert not tokens.fits(text.upper(), made.sha256)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o602, 0o644])
def test_a_file_for_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "t"
    add(path, "*")
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        tokens.read(str(path))


def test_a_credential_may_show_the_group_but_not_everybody(tmp_path: Path) -> None:
    path = tmp_path / "t"
    add(path, "*")
    path.chmod(0o440)
    assert len(tokens.read(str(path), credential=True).tokens) == 1
    path.chmod(0o444)
    with pytest.raises(ConfigError, match="chmod 600"):
        tokens.read(str(path), credential=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    add(path, "*")
    os.chown(path, 1234, 1234)
    if os.geteuid() == 0:
        with pytest.raises(ConfigError, match="another user"):
            tokens.read(str(path))


ENTRY = {"id": "0123456789ab", "sha256": "0" * 64, "scopes": ["*"]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        {"tokens": [], "more": 1},
        {"version": 2, "tokens": []},
        {"tokens": [{**ENTRY, "scope": "*"}]},
        {"tokens": [{**ENTRY, "scopes": []}]},
        {"tokens": [{**ENTRY, "scopes": ["a b"]}]},
        {"tokens": [{**ENTRY, "sha256": "0" * 63}]},
        {"tokens": [{**ENTRY, "sha256": "0" * 64 + "\n"}]},
        {"tokens": [{**ENTRY, "id": "x"}]},
        {"tokens": [{**ENTRY, "expires": "2030-01-01T00:00:00"}]},
        {"tokens": [{**ENTRY, "expires": "soon"}]},
        {"tokens": [ENTRY, ENTRY]},
        {"tokens": [{"id": "0123456789ab", "scopes": ["*"]}]},
    ],
)
def test_a_file_that_is_not_understood_wholly_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "t"
    path.touch(0o600)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ConfigError, match="not understood"):
        tokens.read(str(path))


def test_a_folder_or_a_pipe_is_no_token_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError):
            tokens.read(str(path))


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "t"
    add(path, "*")
    before = path.read_bytes()
    with pytest.raises(StartError, match="at most"), tokens.changing(str(path)) as content:
        content.tokens = [Token(id=f"{n:012x}", sha256="0" * 64, scopes=["*"]) for n in range(tokens.TOKENS_MAX + 1)]
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["t"]


def access(*made: Token, anonymous: tuple[str, ...] = ()) -> Access:
    found = Access()
    found.update({"tokens": json.loads(json.dumps(_builtins(made))), "anonymous": list(anonymous)})
    return found


def _builtins(made: tuple[Token, ...]) -> object:
    import msgspec

    return msgspec.to_builtins(TokenFile(tokens=list(made)).tokens)


def test_a_header_finds_its_token_and_everything_else_is_nobodys() -> None:
    text, made = tokens.make(["Account"])
    found = access(made)
    good = text.encode()
    for value in (b"Bearer " + good, b"bearer " + good, b"BEARER   " + good):
        assert found.grant_of([value]).known, value
    id_, secret = good.split(b"_")[1:]
    other = b"0" * 40
    for value in (
        b"", b"Bearer", b"Bearer ", good, b"Basic " + good, b"Bearer " + good + b" x", b"Bearer " + good[:-1],
        b"Bearer " + good + b"0", b"Bearer " + good.upper(), b"Bearer actord_" + id_ + b"_" + other,
        b"Bearer actord_000000000000_" + secret, b"Bearer " + id_ + b"_" + secret, b"Bearer \xff" + good,
        b"Bearer " + made.sha256.encode(), b"Bearer x" * 40, b"Bearer " + b"a" * 5000,
    ):  # fmt: skip
        assert found.grant_of([value]) is found.everybody, value
    assert found.grant_of([]) is found.everybody
    assert found.grant_of([b"Bearer " + good, b"Bearer " + good]) is found.everybody


def test_a_removed_token_ends_also_for_those_who_have_its_grant() -> None:
    text, made = tokens.make(["Account"])
    other, kept = tokens.make(["Room"])
    found = access(made, kept)
    grant, stays = (found.grant_of([b"Bearer " + t.encode()]) for t in (text, other))
    grant.calls.add(("Account", "debit"))
    found.update({"tokens": _builtins((kept,)), "anonymous": []})
    assert not grant.known
    assert not grant.scopes
    assert not grant.calls
    assert found.grant_of([b"Bearer " + text.encode()]) is found.everybody
    assert found.grant_of([b"Bearer " + other.encode()]) is stays


def test_a_token_ends_at_its_time() -> None:
    now = datetime.now(UTC)
    text, made = tokens.make(["Account"], expires=now + timedelta(hours=1))
    _, later = tokens.make(["Account"], expires=now + timedelta(hours=2))
    _, over = tokens.make(["Account"], expires=now - timedelta(seconds=1))
    found = access(made, later, over)
    grant = found.grant_of([b"Bearer " + text.encode()])
    assert not found.expire(now.timestamp())
    assert grant.known
    assert found.expire((now + timedelta(hours=1)).timestamp())
    assert not grant.known
    assert not found.expire((now + timedelta(hours=1, seconds=1)).timestamp())


def test_what_is_remembered_is_bounded() -> None:
    text, made = tokens.make(["*"])
    found = access(made)
    for n in range(5000):
        found.grant_of([b"Bearer " + b" " * n + text.encode()])
    assert len(found._known) <= 4096
