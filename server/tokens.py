"""The token file: what is known of each token, never the token itself.

1. A token is ``actord_ID_SECRET``: the identity finds its entry, the secret has 160 random bits. The file keeps the
   SHA-256 of the whole. A slow hash (bcrypt, argon2) makes guessing a person's password dear; nobody guesses 160 random
   bits, so it would only make each check dear.
2. A file that its group or others can read, or that somebody else owns, is refused, as is one that is not understood
   wholly: no entry is skipped. Of a service manager's credential its own folder keeps others away; there only a file
   for everybody is refused.
3. A file is replaced as a whole (temporary file, fsync, rename, fsync of the folder), by one command at a time.
4. Several tokens may have one name, so that a new one is in use before the old one is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from actord.server.exits import CONFIG, ConfigError, StartError
from actord.server.scopes import parse_scopes

PREFIX = "actord_"
ID_BYTES, SECRET_BYTES = 6, 20
TOKENS_MAX = 1_000
FILE_BYTES_MAX = 4 * 1024 * 1024
CREDENTIAL = "actord-tokens"  # its name in the service manager's credentials
DEFAULT_NAME = "tokens.json"  # in the data directory

_TOKEN = re.compile(rf"{PREFIX}([0-9a-f]{{{2 * ID_BYTES}}})_[0-9a-f]{{{2 * SECRET_BYTES}}}").fullmatch
# What may stand behind "Bearer " and is looked at; RFC 6750 calls it b64token.
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/\-]{1,128}=*)").fullmatch


class Token(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What the file says of one token."""

    id: Annotated[str, msgspec.Meta(pattern=rf"^[0-9a-f]{{{2 * ID_BYTES}}}\Z")]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    scopes: Annotated[list[str], msgspec.Meta(min_length=1, max_length=100)]
    name: Annotated[str, msgspec.Meta(max_length=100)] = ""
    created: datetime | None = None
    expires: datetime | None = None

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and self.expires <= now


class TokenFile(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The file's content."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    tokens: Annotated[list[Token], msgspec.Meta(max_length=TOKENS_MAX)] = msgspec.field(default_factory=list)


# -- one token


def make(scopes: list[str], *, name: str = "", expires: datetime | None = None) -> tuple[str, Token]:
    """A new token, to be shown once, and its entry. Raises ``ValueError`` for a scope that is none."""
    scopes = [str(scope) for scope in parse_scopes(scopes)]
    id_ = secrets.token_hex(ID_BYTES)
    text = f"{PREFIX}{id_}_{secrets.token_hex(SECRET_BYTES)}"
    now = datetime.now(UTC).replace(microsecond=0)
    return text, Token(id=id_, sha256=digest(text), scopes=scopes, name=name, created=now, expires=expires)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def bearer(value: bytes) -> str | None:
    """The token of an ``Authorization`` header's value, whether or not it is ours; None when it is no bearer's."""
    found = _BEARER(value)
    return None if found is None else found[1].decode("ascii")


def id_of(text: str) -> str | None:
    """The identity that a token names; None for what can't be one of ours."""
    found = _TOKEN(text)
    return None if found is None else found[1]


def fits(text: str, sha256: str) -> bool:
    """Whether a token is the one of an entry; takes as long for any answer."""
    return hmac.compare_digest(digest(text), sha256)


# -- the file


def read(path: str, *, credential: bool = False) -> TokenFile:
    """The file's content. Raises ``FileNotFoundError``, and ``ConfigError`` for what is refused."""
    try:
        with open(path, "rb", opener=_opener) as file:
            _check_mode(path, os.fstat(file.fileno()), credential)
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"The token file {path} can't be read: {error.strerror}.") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"The token file {path} is over {FILE_BYTES_MAX} bytes.")
    try:
        content = msgspec.json.decode(raw, type=TokenFile)
        for token in content.tokens:
            parse_scopes(token.scopes)
            if token.expires is not None and token.expires.tzinfo is None:
                raise ValueError(f"`expires` of {token.id} has no time zone")
        if len({token.id for token in content.tokens}) < len(content.tokens):
            raise ValueError("two tokens have the same id")
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"The token file {path} is not understood: {error}.") from None
    return content


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold us up


def _check_mode(path: str, found: os.stat_result, credential: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"The token file {path} is no regular file.")
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"The token file {path} belongs to another user. Make it your own: `chown`.")
    # systemd lets a user read a credential by an ACL, which shows as the right of the group.
    if found.st_mode & (0o007 if credential else 0o077):
        raise ConfigError(
            f"The token file {path} can be read or changed by others (mode {stat.S_IMODE(found.st_mode):04o}). "
            f"Keep it to yourself: chmod 600 {path}"
        )


@contextlib.contextmanager
def changing(path: str) -> Iterator[TokenFile]:
    """The file's content, to be changed in the block and then written; a file that is not there is made.

    Raises ``StartError``; what was there stays as it was.
    """
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StartError(f"The folder {folder} of the token file can't be used: {error.strerror}.", CONFIG) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            content = read(path)
        except FileNotFoundError:
            content = TokenFile()
        yield content
        if len(content.tokens) > TOKENS_MAX:
            raise StartError(f"A token file has at most {TOKENS_MAX} tokens. Remove some: `actord token rm`.", CONFIG)
        try:
            _replace(path, msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n", fd)
        except OSError as error:
            raise StartError(f"The token file {path} can't be written: {error.strerror}.", CONFIG) from None
    finally:
        os.close(fd)


def _replace(path: str, data: bytes, folder: int) -> None:
    owner = os.stat(path) if os.path.exists(path) else None
    fd, temporary = tempfile.mkstemp(prefix=".actord-tokens-", dir=os.path.dirname(path))  # 0600 from the beginning
    try:
        with open(fd, "wb") as file:
            file.write(data)
            if owner is not None and os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)  # root may keep the file of the server's user
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    os.fsync(folder)
