"""What a front asks for before anything reaches a worker: tokens, and what they allow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from actord.server import tokens
from actord.server.access import Access
from actord.server.heads import Head

from tests.support.front_process import Answer, Client, FrontProcess

SCOPES = {
    "all": ["*", "@door", "@admin"],
    "actors": ["*"],
    "deposit": ["Account:deposit"],
    "read": ["*:*:read", "@door:read"],
    "admin": ["@admin"],
    "door": ["@door"],
    "socket": ["Account:web_socket"],
}
MADE = {name: tokens.make(scopes, name=name) for name, scopes in SCOPES.items()}
TEXT = {name: text for name, (text, _) in MADE.items()} | {"other": tokens.make(["*"])[0]}
CALL = "POST /actors/Account/alice/deposit"
SOCKET = "GET /actors/Account/alice"
ENDED = 1008


def access(*without: str, anonymous: tuple[str, ...] = (), **changed: tokens.Token) -> dict[str, Any]:
    """What the supervisor tells a front."""
    entries = {name: made for name, (_, made) in MADE.items() if name not in without} | changed
    return {"tokens": msgspec.to_builtins(list(entries.values())), "anonymous": list(anonymous)}


def bearer(name: str) -> str:
    return f"Authorization: Bearer {TEXT[name]}\r\n" if name else ""


def upgrade(name: str) -> str:
    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    return f"Connection: Upgrade\r\nUpgrade: websocket\r\n{key}{bearer(name)}"


def ask(client: Client, what: str, name: str = "", extra: str = "") -> Answer:
    method, target = what.split(" ")
    client.get(target, bearer(name) + extra, method)
    return client.answer()


def tell(front: FrontProcess, message: dict[str, Any]) -> None:
    """Returns when the front has taken it."""
    front.tell({"access": message})
    front.tell({"ping": time.monotonic_ns()})
    while "pong" not in front.hear():
        pass


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    with FrontProcess(tmp_path_factory.mktemp("guarded"), front_door=True, access=access()) as process:
        yield process


# -- who may do what


@pytest.mark.parametrize(
    ("what", "allowed"),
    [
        (CALL, "all actors deposit"),
        ("POST /actors/Account/alice/close", "all actors"),
        ("POST /actors/Account/alice/%64eposit", "all actors deposit"),
        ("POST /actors/Account/alice/deposit?timing", "all actors deposit"),
        ("POST /actors/Room/alice/deposit", "all actors"),
        ("POST /actors/%40door/x/deposit", "all actors"),
        ("POST /actors/@admin/x/GET", "all actors"),
        ("GET /actors/Account/alice/events", "all actors read"),
        ("GET /actors/Account/alice/fetch/statement", "all actors read"),
        ("POST /actors/Account/alice/fetch/statement", "all actors"),
        ("DELETE /actors/Account/alice/fetch", "all actors"),
        ("GET /shop", "all read door"),
        ("POST /shop", "all door"),
        ("GET /actors/Account/alice", "all read door"),
        ("GET /health", "all read door"),
        ("OPTIONS *", "all read door"),
        ("GET /-/version", "all actors deposit read admin door socket"),
        ("GET /-/openapi.json", "all actors deposit read admin door socket"),
        ("GET /-/map", "all actors deposit read admin door socket"),
        ("GET /-/anything", "all admin"),
        ("POST /-/anything", "all admin"),
    ],
)
def test_a_request_needs_a_token_that_allows_it(guarded: FrontProcess, what: str, allowed: str) -> None:
    before = guarded_counts(guarded)
    seen = {}
    with guarded.connect() as client:
        for name in ("", "other", *SCOPES):
            answer = ask(client, what, name)
            seen[name] = answer.status
            if answer.status in (401, 403):
                problem = answer.json
                assert (problem["status"], problem["applied"]) == (answer.status, "no")
                assert answer.headers["content-type"] == "application/problem+json"
    assert {name for name, status in seen.items() if status not in (401, 403)} == set(allowed.split())
    assert {name for name, status in seen.items() if status == 401} == {"", "other"}
    reached = sum(guarded_counts(guarded).values()) - sum(before.values())
    assert reached == (0 if "OPTIONS" in what or ("/-/" in what and "openapi" not in what) else len(allowed.split()))


def guarded_counts(front: FrontProcess) -> dict[str, int]:
    with front.connect() as client:
        counts: dict[str, int] = ask(client, "POST /actors/Canary/x/count", "all").json
        return counts


@pytest.mark.parametrize("name", ["", "other", *SCOPES])
def test_a_socket_needs_a_token_that_allows_it(guarded: FrontProcess, name: str) -> None:
    for target, allowed in (("/actors/Account/alice", "all actors socket"), ("/live", "all door")):
        with guarded.connect() as client:
            client.get(target, upgrade(name))
            first = client._receive()
        expected = b"101" if name in allowed.split() else b"401" if name in ("", "other") else b"403"
        assert first.split(b" ")[1] == expected, target


@pytest.mark.parametrize("target", ["/-/health/live", "/-/health/ready", "/-/health/ready?x"])
def test_health_is_open(guarded: FrontProcess, target: str) -> None:
    with guarded.connect() as client:
        assert ask(client, f"GET {target}").status == 200


def test_the_challenge_says_whether_a_token_was_shown(guarded: FrontProcess) -> None:
    with guarded.connect() as client:
        assert ask(client, CALL).headers["www-authenticate"] == 'Bearer realm="actord"'
        assert ask(client, CALL, "other").headers["www-authenticate"] == 'Bearer realm="actord", error="invalid_token"'
        assert "www-authenticate" not in ask(client, CALL, "door").headers


def test_a_refusal_says_what_to_do(guarded: FrontProcess) -> None:
    with guarded.connect() as client:
        assert "Authorization: Bearer" in ask(client, CALL).json["detail"]
        assert "actord token new --scope 'Account:deposit:call'" in ask(client, CALL, "door").json["detail"]
        assert "removed" in ask(client, CALL, "other").json["detail"]


def test_two_headers_are_none(guarded: FrontProcess) -> None:
    with guarded.connect() as client:
        assert ask(client, CALL, "all", bearer("all")).status == 401


def test_a_call_with_an_idempotency_key_is_checked_as_any_other(guarded: FrontProcess) -> None:
    with guarded.connect() as client:
        for key in range(3):
            extra = f"Idempotency-Key: k{key}\r\nContent-Type: application/json\r\n"
            assert ask(client, CALL, "deposit", extra).status == 200
            assert ask(client, CALL, "door", extra).status == 403
            assert ask(client, CALL, "", extra).status == 401


def test_only_who_may_call_everything_is_given_the_ticket_of_direct_calls() -> None:
    found = Access()
    found.update(access(anonymous=("Account", "*:deposit", "*:*:read")))
    head = Head(http10=False)
    allowed = set()
    for name in TEXT:
        head.grant = found.grant_of([b"Bearer " + TEXT[name].encode()])
        if found.everything(head):
            allowed.add(name)
    assert allowed == {"all", "actors"}


# -- before the body


@pytest.mark.parametrize(
    "framing",
    ["Content-Length: 9000000\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 9\r\nExpect: 100-continue\r\n"],
)
@pytest.mark.parametrize("target", ["/actors/Account/alice/deposit", "/shop", "/actors//x/deposit", "/-/metrics"])
def test_the_answer_comes_before_the_body_is_read(guarded: FrontProcess, framing: str, target: str) -> None:
    for name in ("", "socket"):
        with guarded.connect() as client:
            client.get(target, f"{bearer(name)}Content-Type: application/json\r\n{framing}", "POST")
            expected = {400} if "//" in target else {401 if not name else 403}
            assert {client.answer().status} == expected
            assert client.at_end()


def test_a_body_that_only_seems_complete_is_not_read(guarded: FrontProcess) -> None:
    with guarded.connect() as client:
        head = "POST /actors/Account/alice/deposit HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head.encode() + b"ffff\r\n0\r\n\r\n")
        assert client.answer().status == 401
        assert client.at_end()


def test_a_whole_request_that_is_refused_leaves_the_connection_usable(guarded: FrontProcess) -> None:
    with guarded.connect() as client:
        for name in ("", "deposit", "other", "door", "deposit"):
            client.call("deposit", b'{"amount":1}', type_="Account", extra=bearer(name))
        assert [answer.status for answer in client.answers(5)] == [401, 200, 401, 403, 200]


# -- what the program sees


def test_a_token_of_ours_does_not_reach_the_program(guarded: FrontProcess) -> None:
    with guarded.connect() as client:
        for what in ("GET /shop", "GET /actors/Account/alice/fetch/x"):
            seen = ask(client, what, "all", "X-Other: 1\r\n").json["request"][2]
            assert ["x-other", "1"] in seen
            assert "authorization" not in dict(seen)


def test_an_open_front_door_keeps_its_own_authorization(guarded: FrontProcess) -> None:
    tell(guarded, access(anonymous=("@door", "Account:balance")))
    try:
        with guarded.connect() as client:
            assert ask(client, "GET /shop").status == 200
            seen = ask(client, "GET /shop", "", "Authorization: Bearer eyJhbGciOi.x.y\r\n")
            assert dict(seen.json["request"][2])["authorization"] == "Bearer eyJhbGciOi.x.y"
            assert ask(client, "GET /shop", "deposit").status == 200
            assert ask(client, "POST /actors/Account/alice/balance").status == 200
            assert ask(client, "POST /actors/Account/alice/balance", "door").status == 200
            assert ask(client, CALL).status == 401
            assert ask(client, "GET /-/version").status == 401
    finally:
        tell(guarded, access())


# -- changes


def test_a_removed_token_ends_on_connections_that_are_open(guarded: FrontProcess) -> None:
    try:
        with guarded.connect() as client, guarded.connect() as other:
            for _ in range(2):
                assert ask(client, CALL, "deposit").status == 200
                assert ask(other, CALL, "actors").status == 200
            tell(guarded, access("deposit"))
            assert ask(client, CALL, "deposit").status == 401
            assert ask(other, CALL, "actors").status == 200
            tell(guarded, access())
            assert ask(client, CALL, "deposit").status == 200
    finally:
        tell(guarded, access())


def test_a_body_under_way_does_not_outlive_its_token(guarded: FrontProcess) -> None:
    try:
        with guarded.connect() as client:
            client.send(
                b"POST /actors/Account/alice/deposit HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                b"Content-Length: 2\r\n" + bearer("deposit").encode() + b"\r\n{"
            )
            with guarded.connect() as other:
                assert ask(other, CALL, "all").status == 200
            tell(guarded, access("deposit"))
            client.send(b"}")
            assert client.answer().status == 401
    finally:
        tell(guarded, access())


def test_a_narrowed_token_does_less_at_once(guarded: FrontProcess) -> None:
    narrowed = msgspec.structs.replace(MADE["actors"][1], scopes=["Room"])
    try:
        with guarded.connect() as client:
            assert ask(client, CALL, "actors").status == 200
            tell(guarded, access(actors=narrowed))
            assert ask(client, CALL, "actors").status == 403
            assert ask(client, "POST /actors/Room/x/deposit", "actors").status == 200
    finally:
        tell(guarded, access())


def test_a_token_that_expires_ends_by_itself_on_connections_and_sockets(guarded: FrontProcess) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    tell(guarded, access(all=msgspec.structs.replace(MADE["all"][1], expires=soon)))
    try:
        with guarded.connect() as client, guarded.connect() as socket:
            assert ask(client, CALL, "all").status == 200
            socket.get("/actors/Account/alice", upgrade("all"))
            assert b" 101 " in socket._receive()
            assert socket._receive()[:1] == b"\x88"
            assert datetime.now(UTC) >= soon
            assert ask(client, CALL, "all").status == 401
            assert ask(client, CALL, "actors").status == 200
    finally:
        tell(guarded, access())


@pytest.mark.parametrize("target", ["/actors/Account/alice", "/live"])
def test_a_socket_is_closed_when_its_token_ends(guarded: FrontProcess, target: str) -> None:
    try:
        with guarded.connect() as ours, guarded.connect() as theirs:
            for client, name in ((ours, "actors" if "actors" in target else "door"), (theirs, "all")):
                client.get(target, upgrade(name))
                assert b" 101 " in client._receive()
            tell(guarded, access("actors", "door"))
            frame = ours._receive()
            assert frame[0] == 0x88
            assert int.from_bytes(frame[2:4], "big") == ENDED
            assert frame[4:] == b"the token is not valid any more"
            theirs.send(b"\x81\x82\0\0\0\0hi")
            assert theirs._receive().endswith(b"hi")
    finally:
        tell(guarded, access())


def test_a_socket_that_waits_is_refused_when_its_token_ends(guarded: FrontProcess) -> None:
    try:
        with guarded.connect() as client:
            client.get("/actors/Account/wait", upgrade("socket"))
            with guarded.connect() as other:
                assert ask(other, CALL, "all").status == 200
            tell(guarded, access("socket"))
            answer = client.answer()
            assert answer.status == 401
            assert answer.json["name"] == "Unauthorized"
    finally:
        tell(guarded, access())


def test_a_front_that_asked_nobody_asks_from_the_first_token_on(front: FrontProcess) -> None:
    with front.connect() as client, front.connect() as half:
        assert ask(client, CALL).status == 200
        half.send(b"POST /actors/Account/alice/deposit HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
        half.send(b"Content-Length: 2\r\n\r\n{")
        assert ask(client, CALL).status == 200
        tell(front, access())
        assert ask(client, CALL).status == 401
        half.send(b"}")
        assert half.answer().status == 401
        assert ask(client, CALL, "deposit").status == 200
        assert ask(client, "GET /health").status == 200, "no front door: it is an alias"
        assert ask(client, "GET /other").status == 401
