"""TLS on a front's socket: who gets in, how long that may take, and what changes while it serves."""

from __future__ import annotations

import ipaddress
import select
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from actord.server.exits import ConfigError
from actord.server.forwarded import Proxies
from actord.server.tls import context_of
from actord.settings import Server

from tests.support.front_process import Client, FrontProcess
from tests.support.server import until

AUTHORITY = trustme.CA()
CLIENTS = trustme.CA()
STRANGERS = trustme.CA()


def files(folder: Path, authority: trustme.CA = AUTHORITY) -> dict[str, str]:
    """Options that name a certificate for localhost, which this makes."""
    folder.mkdir(exist_ok=True)
    made = authority.issue_cert("localhost", "127.0.0.1")
    key, chain = folder / "key.pem", folder / "chain.pem"
    key.touch(0o600)
    made.private_key_pem.write_to_path(key)
    chain.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    return {"tls_cert": str(chain), "tls_key": str(key)}


def trusting(*authorities: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for authority in authorities:
        authority.configure_trust(context)
    return context


TRUSTING = trusting(AUTHORITY)


def told(front: FrontProcess, server: dict[str, str]) -> None:
    """Returns when the front has taken the files of these options."""
    front.tell({"tls": server})
    front.tell({"ping": 1})
    while "pong" not in front.hear():
        pass


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    folder = tmp_path_factory.mktemp("front")
    settings = {
        "server": files(folder / "tls") | {"forwarded_allow_ips": "127.0.0.0/8"},
        "http": {"head_timeout": 0.5, "body_bytes": 1000},
    }
    with FrontProcess(folder, settings=settings, front_door=True) as process:
        yield process


# -- requests


def test_calls_and_answers_pass_as_without(front: FrontProcess) -> None:
    with Client(front.address, TRUSTING) as client:
        for number in range(3):
            client.call("echo", b"%d" % number)
        assert [answer.json for answer in client.answers(3)] == [0, 1, 2]
        client.call("big")
        assert len(client.answer().body) == 1_000_002
        assert client.sock.selected_alpn_protocol() is None  # type: ignore[attr-defined]


def test_a_socket_passes_as_without(front: FrontProcess) -> None:
    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    with Client(front.address, TRUSTING) as client:
        client.get("/actors/Room/a", f"Connection: Upgrade\r\nUpgrade: websocket\r\n{key}")
        assert b" 101 " in client._receive()
        client.send(b"\x81\x82\0\0\0\0hi")
        assert client._receive() == b"\x81\x02hi"
        client.send(b"\x88\x80\0\0\0\0")
        assert client._receive()[:1] == b"\x88"
        assert client.at_end()


def test_the_program_hears_that_it_is_https(front: FrontProcess) -> None:
    with Client(front.address, TRUSTING) as client:
        client.get("/x")
        assert client.answer().json["request"][3:] == ["127.0.0.1", "https"]


def test_a_client_that_is_refused_while_it_sends_can_read_why(front: FrontProcess) -> None:
    with Client(front.address, TRUSTING) as client:
        head = b"POST /actors/A/x/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n"
        client.send(head)
        select.select([client.sock], [], [])  # the answer has come, and is not read
        for _ in range(20):
            client.sock.sendall(b"x" * 50_000)
        assert client.answer().status == 413
        assert client.at_end()


# -- who gets in


def test_plain_http_is_told_so_and_closed(front: FrontProcess) -> None:
    with front.connect() as client:
        client.call("echo")
        answer = client.answer()
        assert answer.status == 400
        assert answer.body == b"This port speaks TLS: ask for it with https://"
        assert client.at_end()


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
def test_a_slow_handshake_is_cut_off_at_the_deadline_of_the_head(front: FrontProcess, sent: bytes) -> None:
    with front.connect() as client:
        client.send(sent)
        assert client.at_end()


def test_a_head_that_does_not_come_after_the_handshake_is_cut_off(front: FrontProcess) -> None:
    with Client(front.address, TRUSTING) as client:
        client.send(b"POST / HT")
        assert client.answer().status == 408


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x00\x05hello", b"\x15\x03\x03\x00\x02\x02\x28", b"\x80\x2e\x01"])
def test_nonsense_is_closed_and_others_are_served(front: FrontProcess, sent: bytes) -> None:
    with front.connect() as client:
        client.send(sent)
        while client._receive():
            pass
    with Client(front.address, TRUSTING) as client:
        client.call("echo", b"1")
        assert client.answer().json == 1


def test_an_old_version_is_refused(front: FrontProcess) -> None:
    old = trusting(AUTHORITY)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Client(front.address, old)


def test_handshakes_count_as_connections(tmp_path: Path) -> None:
    settings = {"server": files(tmp_path / "tls"), "http": {"connections": 3, "head_timeout": 30}}
    with FrontProcess(tmp_path, settings=settings) as front:
        with Client(front.address, TRUSTING) as one:
            one.call("echo", b"1")
            assert one.answer().json == 1
            waiting = [front.connect() for _ in range(2)]
            with front.connect() as late:
                assert late.at_end()
            for client in waiting:
                client.reset()
            one.call("echo", b"2")
            assert one.answer().json == 2
        until(lambda: _served(front), "a place to be free again")


def _served(front: FrontProcess) -> bool:
    try:
        with Client(front.address, TRUSTING) as client:
            client.call("echo", b"1")
            return bool(client.answer().status == 200)
    except OSError:
        return False


def test_a_unix_socket_stays_plain(tmp_path: Path) -> None:
    with (
        FrontProcess(tmp_path, settings={"server": files(tmp_path / "tls")}, uds=True) as front,
        front.connect() as client,
    ):
        client.call("echo", b"1")
        assert client.answer().json == 1


# -- certificates of clients


@pytest.mark.parametrize(("mode", "without"), [("required", False), ("optional", True)])
def test_a_client_needs_a_certificate_of_the_right_authority(tmp_path: Path, mode: str, without: bool) -> None:
    authority = tmp_path / "clients.pem"
    CLIENTS.cert_pem.write_to_path(authority)
    server = files(tmp_path / "tls") | {"tls_client_ca": str(authority), "tls_client": mode}
    with FrontProcess(tmp_path, settings={"server": server}) as front:
        for issuer, allowed in ((CLIENTS, True), (STRANGERS, False), (None, without)):
            context = trusting(AUTHORITY)
            if issuer is not None:
                issuer.issue_cert("client").configure_cert(context)
            assert _lets_in(front, context) == allowed, issuer


def _lets_in(front: FrontProcess, context: ssl.SSLContext) -> bool:
    try:
        with Client(front.address, context) as client:
            client.call("echo", b"1")
            return bool(client.answers(1))
    except (ssl.SSLError, ConnectionError):
        return False


# -- changes


def test_new_files_are_for_new_connections_and_bad_ones_change_nothing(tmp_path: Path) -> None:
    other = trustme.CA()
    server = files(tmp_path / "tls")
    with FrontProcess(tmp_path, settings={"server": server}) as front:
        with Client(front.address, TRUSTING) as before:
            files(tmp_path / "tls", other)
            told(front, server)
            with Client(front.address, trusting(other)) as client:
                client.call("echo", b"1")
                assert client.answer().json == 1
            with pytest.raises(ssl.SSLCertVerificationError):
                Client(front.address, TRUSTING)
            before.call("echo", b"2")
            assert before.answer().json == 2
            Path(server["tls_cert"]).write_text("nonsense")
            told(front, server)
            with Client(front.address, trusting(other)) as client:
                client.call("echo", b"3")
                assert client.answer().json == 3
        assert b"Connections go on with the certificate of before" in b"".join(front.errors)
        front.errors.clear()


# -- settings that can't work


def settings(**options: Any) -> Server:
    return Server(**options)


def test_without_a_certificate_there_is_no_tls(tmp_path: Path) -> None:
    assert context_of(settings()) is None
    with pytest.raises(ConfigError, match="tls_key is set"):
        context_of(settings(tls_key=str(tmp_path)))
    with pytest.raises(ConfigError, match="tls_client_ca is set"):
        context_of(settings(tls_client_ca=str(tmp_path)))


def test_files_that_can_not_be_used_are_refused_with_words(tmp_path: Path) -> None:
    good = files(tmp_path / "good")
    other = files(tmp_path / "other")
    nonsense = tmp_path / "nonsense"
    nonsense.touch(0o600)
    wide = tmp_path / "wide"
    wide.write_bytes(Path(good["tls_key"]).read_bytes())
    wide.chmod(0o644)
    for options, words in (
        ({"tls_cert": good["tls_cert"], "tls_key": other["tls_key"]}, "is not that of the certificate"),
        ({"tls_cert": good["tls_cert"], "tls_key": str(wide)}, "chmod 600"),
        ({"tls_cert": good["tls_cert"], "tls_key": str(tmp_path / "none")}, "can't be read"),
        ({"tls_cert": str(tmp_path / "none"), "tls_key": good["tls_key"]}, "can't be read"),
        ({"tls_cert": str(nonsense)}, "no certificate and key in PEM"),
        (good | {"tls_client_ca": str(nonsense)}, "no certificates in PEM"),
        (good | {"tls_client_ca": str(tmp_path / "none")}, "can't be read"),
    ):
        with pytest.raises(ConfigError, match=words):
            context_of(settings(**options))


def test_an_encrypted_key_is_refused_without_a_prompt(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form

    made = files(tmp_path / "tls")
    key = form.load_pem_private_key(Path(made["tls_key"]).read_bytes(), None)
    encryption = form.BestAvailableEncryption(b"secret")
    Path(made["tls_key"]).write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, encryption))
    with pytest.raises(ConfigError, match="is encrypted"):
        context_of(settings(**made))


# -- behind a proxy


@pytest.mark.parametrize(
    ("trusted", "peer", "header", "client"),
    [
        ("", "127.0.0.1", "1.2.3.4", None),
        ("127.0.0.1", "127.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("127.0.0.1", "127.0.0.2", "1.2.3.4", None),
        ("127.0.0.1", "127.0.0.1", "9.9.9.9, 1.2.3.4", "1.2.3.4"),
        ("127.0.0.1, 10.0.0.0/8", "127.0.0.1", "1.2.3.4, 10.2.3.4", "1.2.3.4"),
        ("127.0.0.1 10.0.0.0/8", "127.0.0.1", "10.1.1.1, 10.2.3.4", "10.1.1.1"),
        ("*", "8.8.8.8", "9.9.9.9, 1.2.3.4", "9.9.9.9"),
        ("unix", "", "1.2.3.4", "1.2.3.4"),
        ("127.0.0.1", "", "1.2.3.4", None),
        ("unix", "127.0.0.1", "1.2.3.4", None),
        ("127.0.0.1", "::ffff:127.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("::1", "::1", "[2001:db8::1]:1234", "2001:db8::1"),
        ("::1", "::1", "1.2.3.4:1234", "1.2.3.4"),
        ("127.0.0.1", "127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "1.2.3.4, evil text", "127.0.0.1"),
    ],
)
def test_only_a_trusted_proxy_says_who_the_client_is(trusted: str, peer: str, header: str, client: str | None) -> None:
    proxies = Proxies(trusted)
    assert proxies.trusts(peer) == (client is not None)
    if client is not None:
        assert proxies.client(peer, [("x-forwarded-for", header)]) == client


def test_several_headers_are_one_list() -> None:
    headers = [("x-forwarded-for", "9.9.9.9"), ("other", "7.7.7.7"), ("x-forwarded-for", "1.2.3.4, 127.0.0.1")]
    assert Proxies("127.0.0.1").client("127.0.0.1", headers) == "1.2.3.4"


def test_the_program_hears_of_the_client_behind_a_proxy(front: FrontProcess) -> None:
    with Client(front.address, TRUSTING) as client:
        for target in ("/x", "/actors/Account/a/fetch/x"):
            for scheme, expected in (
                ("http", ["5.6.7.8"]),
                ("HTTPS", ["5.6.7.8", "https"]),
                ("x", ["5.6.7.8", "https"]),
            ):
                client.get(target, f"X-Forwarded-For: 5.6.7.8\r\nX-Forwarded-Proto: {scheme}\r\n")
                assert client.answer().json["request"][3:] == expected, scheme


def test_connections_of_a_proxy_do_not_count_for_one_client(tmp_path: Path) -> None:
    options = {"connections_per_peer": 2}
    for trusted, expected in (("", [200, 200, 503]), ("127.0.0.1", [200, 200, 200])):
        folder = tmp_path / (trusted or "none")
        folder.mkdir()
        server = {"forwarded_allow_ips": trusted}
        with FrontProcess(folder, settings={"http": options, "server": server}) as front:
            clients = [front.connect() for _ in range(3)]
            found = []
            for client in clients:
                client.call("echo")
                found.append(client.answer().status)
                assert ipaddress.ip_address(client.sock.getpeername()[0]).is_loopback
            for client in clients:
                client.__exit__()
            assert found == expected
