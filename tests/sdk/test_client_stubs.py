"""How the clients are set up, and what their stubs are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from actord import StatefulActor, codec
from actord.client import AsyncClient, Client
from actord.client_address import address

from tests.support.fake_http import FakeServer, value


class Account(StatefulActor):
    rpc = ("debit", "balance")

    async def debit(self, amount: float) -> float:
        return amount

    async def balance(self) -> float:
        return 0

    async def hidden(self) -> None: ...


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_stub_says_what_it_is_and_what_it_has(kind: type) -> None:
    client = kind("http://127.0.0.1:1/base")
    stub = client.actor(Account, "alice")
    assert repr(stub) == "<Account/alice at http://127.0.0.1:1/base>"
    assert stub.id == "alice"
    assert dir(stub) == ["balance", "debit", "fetch", "id", "with_key"]
    assert dir(client.actor("Account", "alice")) == ["fetch", "id", "with_key"]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("name", "words"),
    [("debt", "It has: balance, debit"), ("hidden", "It has"), ("_x", "_x"), ("on_activate", "by the runtime")],
)
def test_what_a_class_does_not_offer_is_an_attribute_error(kind: type, name: str, words: str) -> None:
    with pytest.raises(AttributeError, match=words):
        getattr(kind().actor(Account, "alice"), name)


def test_a_type_is_a_class_of_actors_or_a_name() -> None:
    for wrong in (int, 5, Account(None, None)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="StatefulActor"):
            Client().actor(wrong, "n")  # type: ignore[arg-type]


def test_a_call_by_its_method_is_the_same_call() -> None:
    with FakeServer([value(2.5)]) as server, Client(server.url) as client:
        assert client.call(Account, "alice", Account.debit, 30) == 2.5
        assert server.asked[0].target == "/actors/Account/alice/debit"
        assert codec.decode(server.asked[0].body) == [[30], {}]
        with pytest.raises(AttributeError, match="no method"):
            client.call(Account, "alice", Account.hidden)


# -- set up


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000", (False, "127.0.0.1", 8000, "", "")),
        ("http://a", (False, "a", 80, "", "")),
        ("https://a/base/", (True, "a", 443, "/base", "")),
        ("http://[::1]:9", (False, "::1", 9, "", "")),
        ("unix:/run/a.sock", (False, "localhost", 80, "", "/run/a.sock")),
        ("unix:///run/a.sock", (False, "localhost", 80, "", "/run/a.sock")),
        ("unix:a.sock", (False, "localhost", 80, "", "a.sock")),
    ],
)
def test_a_url_is_an_address(url: str, expected: tuple[Any, ...]) -> None:
    assert address(url)[1:] == expected


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://a", "http://", "http://a:x", "unix:", "http://a?b", "http://u@a", "http://a:99999"]
)
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        address(url)


def test_the_address_is_by_default_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACTORD_URL", raising=False)
    assert Client().url == "http://127.0.0.1:8000"
    monkeypatch.setenv("ACTORD_URL", "unix:/run/a.sock")
    assert Client().url == AsyncClient().url == "unix:/run/a.sock"


@pytest.mark.parametrize(
    "options",
    [{"timeout": 0}, {"timeout": float("nan")}, {"retries": -1}, {"connections": 0}, {"headers": {"a b": "c"}}],
    ids=str,
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError):  # noqa: PT011
            kind(**options)


def test_the_client_loads_nothing_of_the_server_and_only_the_library_it_uses() -> None:
    code = """
import sys
from actord.client import AsyncClient, Client
SERVER = {"actord.server", "actord.shards", "actord.storage", "uvloop", "apsw", "httptools"}
assert not sys.modules.keys() & (SERVER | {"aiohttp", "urllib3"}), sys.modules.keys()
Client()
assert not sys.modules.keys() & (SERVER | {"aiohttp"}), sys.modules.keys()
AsyncClient()
assert not sys.modules.keys() & SERVER, sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_its_libraries_the_client_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, module in ((Client, "urllib3"), (AsyncClient, "aiohttp")):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, f"actord.client_{module}", raising=False)
        with pytest.raises(ImportError, match=r"actord\[client\]"):
            kind()


def test_over_tls_the_certificate_is_checked(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    code = """
import asyncio, sys
from actord import ActorUnavailable
from actord.client import AsyncClient, Client
url, trusted = sys.argv[1], sys.argv[2] == "trusted"
def sync():
    with Client(url, retries=0) as client:
        return client.actor("T", "n").add(1)
async def later():
    async with AsyncClient(url, retries=0) as client:
        return await client.actor("T", "n").add(1)
for call in (sync, lambda: asyncio.run(later())):
    try:
        assert call() == 7
        assert trusted
    except ActorUnavailable as error:
        assert not trusted, error
        assert "certificate verify failed" in error.detail
        assert error.applied == "no"
"""
    with FakeServer([value(7)], tls=(certificate, key)) as server:
        trusting = {**os.environ, "SSL_CERT_FILE": str(certificate)}
        subprocess.run([sys.executable, "-c", code, server.url, "trusted"], check=True, env=trusting)
        assert len(server.asked) == 2
        subprocess.run([sys.executable, "-c", code, server.url, "unknown"], check=True)
        assert len(server.asked) == 2
