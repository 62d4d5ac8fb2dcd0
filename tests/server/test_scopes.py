"""Which request a scope allows: a table, without a server."""

from __future__ import annotations

import pytest
from actord.server.grants import Grant
from actord.server.scopes import ADMIN, CALL, DOOR, READ, Need, parse_scope, parse_scopes

DEBIT = Need("Account", "debit", CALL)
OTHER_METHOD = Need("Account", "close", CALL)
OTHER_TYPE = Need("Room", "debit", CALL)
EVENTS = Need("Account", "events", READ)
GET = Need("Account", "fetch", READ)
POST = Need("Account", "fetch", CALL)
SOCKET = Need("Account", "web_socket", CALL)
DOOR_GET, DOOR_POST = Need(DOOR, "GET", READ), Need(DOOR, "POST", CALL)
METRICS, ADMIN_POST = Need(ADMIN, "GET", READ), Need(ADMIN, "POST", CALL)
NONSENSE = Need("?", "debit", CALL)  # of a path that names no type
ALL = [
    DEBIT, OTHER_METHOD, OTHER_TYPE, EVENTS, GET, POST, SOCKET, DOOR_GET, DOOR_POST, METRICS, ADMIN_POST, NONSENSE
]  # fmt: skip


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ("Account:debit", [DEBIT]),
        ("Account:debit:call", [DEBIT]),
        ("Account:debit:read", []),
        ("Account", [DEBIT, OTHER_METHOD, EVENTS, GET, POST, SOCKET]),
        ("Account:*:call", [DEBIT, OTHER_METHOD, POST, SOCKET]),
        ("Account:*:read", [EVENTS, GET]),
        ("Account:events", [EVENTS]),
        ("Account:fetch", [GET, POST]),
        ("Account:fetch:read", [GET]),
        ("Account:web_socket", [SOCKET]),
        ("*:debit", [DEBIT, OTHER_TYPE, NONSENSE]),
        ("*:*:read", [EVENTS, GET]),
        ("*", [DEBIT, OTHER_METHOD, OTHER_TYPE, EVENTS, GET, POST, SOCKET, NONSENSE]),
        ("@door", [DOOR_GET, DOOR_POST]),
        ("@door:read", [DOOR_GET]),
        ("@admin", [METRICS, ADMIN_POST]),
        ("@admin:read", [METRICS]),
        ("Room:debit Account:events", [OTHER_TYPE, EVENTS]),
        ("account:debit Account:Debit Accoun Accounts", []),
    ],
)
def test_a_scope_allows_what_it_names_and_nothing_else(scopes: str, allowed: list[Need]) -> None:
    grant = Grant(parse_scopes(scopes.split()))
    assert [need for need in ALL if grant.allows(need)] == allowed


@pytest.mark.parametrize(
    "text",
    ["", " ", ":", "Account:", "Account::", "Account:debit:", "Account:debit:write", "Account:debit:call:x", "A b",
     "Account.debit", "Acc*", "Account:de*", "@", "@doors", "@door:open", "@admin:*:read", "**", "Account:debit\n", "/",
     "Konto\u00e4"],
)  # fmt: skip
def test_what_is_no_scope_is_refused_with_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"scope"):
        parse_scope(text)


@pytest.mark.parametrize("text", ["Account", "*", "Account:debit", "*:*:read", "@door", "@admin:read", "A:b:call"])
def test_a_scope_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_scope(text)) == text


def test_a_scope_is_shown_in_its_shortest_form() -> None:
    assert [str(s) for s in parse_scopes(["Account:*:*", "*:*", "@door:*"])] == ["Account", "*", "@door"]


def test_a_need_reads_as_the_scope_that_allows_it() -> None:
    for need in ALL[:-1]:
        assert parse_scope(str(need)).allows(need)
