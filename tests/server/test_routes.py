from __future__ import annotations

import pytest
from actord.errors import BadRequest, MethodNotAllowed
from actord.server.routes import CALL, DOOR, FETCH, SYSTEM, route


@pytest.mark.parametrize(
    ("segment", "name"),
    [
        ("alice", "alice"),
        ("a+b", "a+b"),
        ("..", ".."),
        (".", "."),
        ("%2F", "/"),
        ("a%2fb", "a/b"),
        ("%2e%2e%2f", "../"),
        ("a%20b", "a b"),
        ("%25", "%"),
        ("%0A", "\n"),
        ("caf%C3%A9", "caf\u00e9"),
        ("cafe%CC%81", "cafe\u0301"),  # another name than the one before: nothing is normalised
        ("%F0%9F%98%80", "\U0001f600"),
        ("'\";--", "'\";--"),
        ("x" * 512, "x" * 512),
        ("%C3%A9" * 256, "\u00e9" * 256),
        ("a:b@c!$&()*,;=~_-", "a:b@c!$&()*,;=~_-"),
    ],
)
def test_a_name_is_decoded_once_and_otherwise_left_alone(segment: str, name: str) -> None:
    assert route("POST", f"/actors/Account/{segment}/debit") == (CALL, "Account", name, "debit", False)
    assert route("GET", f"/actors/Account/{segment}/fetch/a") == (FETCH, "Account", name, "/a", False)


@pytest.mark.parametrize(
    "segment",
    [
        "",
        "%",
        "%2",
        "%zz",
        "%+1",
        "% 1",
        "a%",
        "%00",
        "a%00b",
        "x" * 513,
        "%C3%A9" * 256 + "x",
        "%C0%AF",
        "%FF",
        "%ED%A0%80",
        "%F4%90%80%80",
        "%E0%80%AF",
        "%u0041",
        "%C3",
        "%-1",
    ],
)
def test_a_bad_name_is_refused(segment: str) -> None:
    with pytest.raises(BadRequest):
        route("POST", f"/actors/Account/{segment}/debit")
    with pytest.raises(BadRequest):
        route("GET", f"/actors/Account/{segment}/fetch")


def test_a_long_target_takes_the_same_rules_as_a_short_one() -> None:
    name = "x" * 500
    assert route("POST", f"/actors/Account/{name}/debit") == (CALL, "Account", name, "debit", False)
    with pytest.raises(BadRequest):
        route("POST", f"/actors/Account/{name}{'x' * 13}/debit")


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/actors/Room/r/fetch", "/"),
        ("/actors/Room/r/fetch/", "/"),
        ("/actors/Room/r/fetch?a=b", "/?a=b"),
        ("/actors/Room/r/fetch?", "/?"),
        ("/actors/Room/r/fetch/a/b//c/../%2F?x=/y?z", "/a/b//c/../%2F?x=/y?z"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "BREW"])
def test_fetch_sees_the_rest_of_the_path_and_the_query_untouched(method: str, target: str, seen: str) -> None:
    assert route(method, target) == (FETCH, "Room", "r", seen, False)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_a_call_is_a_post(method: str) -> None:
    with pytest.raises(MethodNotAllowed):
        route(method, "/actors/Account/alice/debit")


@pytest.mark.parametrize(
    ("query", "timing"),
    [("timing", True), ("timing=1", True), ("a&timing", True), ("timings", False), ("a=timing", False), ("", False)],
)
def test_timing_is_asked_for_by_a_query_parameter(query: str, timing: bool) -> None:
    assert route("POST", f"/actors/Account/alice/debit?{query}") == (CALL, "Account", "alice", "debit", timing)


@pytest.mark.parametrize(
    "target",
    ["/", "/accounts/alice/debit", "/actors", "/actors/Account/alice", "/actors/Account/alice/debit/x", "/actor"],
)
def test_every_other_path_is_for_the_front_door(target: str) -> None:
    assert route("POST", target) == (DOOR, "", "", target, False)


def test_system_paths_are_the_systems_alone() -> None:
    assert route("GET", "/-/health/live?x") == (SYSTEM, "", "", "/-/health/live", False)
    assert route("GET", "/-/nothing")[0] == SYSTEM
