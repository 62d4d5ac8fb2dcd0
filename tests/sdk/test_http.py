"""Request and Response: what comes from the wire, what goes back to it, and what never gets that far."""

from __future__ import annotations

import asyncio
from typing import Any

import ormsgpack
import pytest
from actord.errors import BadRequest, CodecError
from actord.http import FRAMING_HEADERS, Headers, MultiMap, Request, Response
from hypothesis import given
from hypothesis import strategies as st


def get(url: str, **kwargs: Any) -> Request:
    return Request("GET", url, **kwargs)


def test_the_path_is_decoded_and_the_url_is_as_sent() -> None:
    request = get("/a%20b/%C3%A4%2Fc+d?x=1%202&y=a+b")
    assert request.url == "/a%20b/%C3%A4%2Fc+d?x=1%202&y=a+b"
    assert request.raw_path == "/a%20b/%C3%A4%2Fc+d"
    assert request.path == "/a b/ä/c+d"
    assert request.query_string == "x=1%202&y=a+b"
    assert dict(request.query) == {"x": "1 2", "y": "a b"}


def test_the_query_keeps_every_value_and_gives_the_first() -> None:
    query = get("/?a=1&b=&a=2&c").query
    assert query["a"] == "1"
    assert query.get("a") == "1"
    assert query.getlist("a") == ["1", "2"]
    assert query.getlist("zz") == []
    assert query["b"] == query["c"] == ""
    assert list(query) == ["a", "b", "c"]
    assert len(query) == 3
    assert query.multi_items() == [("a", "1"), ("b", ""), ("a", "2"), ("c", "")]
    assert "A" not in query
    with pytest.raises(KeyError):
        query["zz"]
    assert get("/").query == MultiMap()


def test_headers_compare_without_regard_to_case_and_keep_their_spelling() -> None:
    headers = get("/", headers=[("X-A", "1"), ("Accept", "x"), ("x-a", "2")]).headers
    assert headers["x-A"] == "1"
    assert headers.getlist("X-a") == ["1", "2"]
    assert "ACCEPT" in headers
    assert "none" not in headers
    assert headers.get("none") is None
    assert list(headers) == ["x-a", "accept"]
    assert headers.multi_items() == [("X-A", "1"), ("Accept", "x"), ("x-a", "2")]


def test_a_request_survives_the_wire() -> None:
    sent = Request("POST", "/x?y=1", headers=[("A", "1"), ("a", "2")], body="ä", client="10.0.0.1")
    fields = ormsgpack.unpackb(ormsgpack.packb(sent.to_wire()))
    assert fields == ["POST", "/x?y=1", [["A", "1"], ["a", "2"]], "10.0.0.1"]
    came = Request.from_wire(fields, asyncio.run(sent.body()))
    assert (came.method, came.url, came.client) == ("POST", "/x?y=1", "10.0.0.1")
    assert came.headers == sent.headers
    assert asyncio.run(came.text()) == "ä"


@pytest.mark.parametrize(
    "fields",
    [
        ["GET", 1, [], None],
        ["GET", "/", [["a", 1]], None],
        ["GET", "/", ["ab", "c"], None],
        ["GET", "/", [], 1],
        ["GET", "/", [], None, b"https"],
        ["GET", "/", []],
    ],
)
def test_fields_that_are_no_request_are_refused(fields: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"text|unpack"):
        Request.from_wire(fields, b"")


def test_a_body_is_bytes_text_or_json() -> None:
    request = Request("POST", body=b'{"n": 18446744073709551616}')
    assert asyncio.run(request.body()) == b'{"n": 18446744073709551616}'
    assert asyncio.run(request.text()) == '{"n": 18446744073709551616}'
    assert asyncio.run(request.json()) == {"n": 2**64}
    latin = Request("POST", headers={"Content-Type": 'text/plain; charset="ISO-8859-1"'}, body=b"\xe4")
    assert asyncio.run(latin.text()) == "ä"


@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=none-such", "text/plain; charset=base64"])
def test_a_body_that_is_no_text_is_a_bad_request(content_type: str) -> None:
    request = Request("POST", headers={"Content-Type": content_type}, body=b"\xff")
    with pytest.raises(BadRequest):
        asyncio.run(request.text())


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 10_000])
def test_a_body_that_is_no_json_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        asyncio.run(Request("POST", body=body).json())


# -- responses


def test_responses_carry_the_content_type_of_their_body() -> None:
    cases: list[tuple[Response, bytes, str | None]] = [
        (Response(), b"", None),
        (Response(None, 204), b"", None),
        (Response(b"x"), b"x", None),
        (Response("ä"), "ä".encode(), "text/plain; charset=utf-8"),
        (Response.text("ä"), "ä".encode(), "text/plain; charset=utf-8"),
        (Response("<p>", media_type="text/html"), b"<p>", "text/html; charset=utf-8"),
        (Response("x", media_type="text/html; charset=latin-1"), b"x", "text/html; charset=latin-1"),
        (Response(b"x", media_type="image/png"), b"x", "image/png"),
        (Response("x", headers={"Content-Type": "a/b"}), b"x", "a/b"),
        (Response("x", headers={"CONTENT-TYPE": "a/b"}, media_type="c/d"), b"x", "a/b"),
        (Response.json({"a": (1, None)}), b'{"a":[1,null]}', "application/json"),
        (Response.json(None), b"null", "application/json"),
    ]
    for response, body, content_type in cases:
        assert response.body == body
        assert response.headers.getlist("content-type") == ([content_type] if content_type else [])


def test_the_head_is_lines_each_ended_by_crlf() -> None:
    response = Response.json({}, 201, [("X-A", "1"), ("X-A", "ä"), ("Empty", "")])
    assert response.status == 201
    assert response.head() == b"X-A: 1\r\nX-A: \xe4\r\nEmpty: \r\ncontent-type: application/json\r\n"
    assert Response().head() == b""


def test_headers_can_be_changed_until_the_end() -> None:
    response = Response("x", headers=[("A", "1"), ("B", "2"), ("a", "3")])
    response.headers["A"] = "9"
    response.headers.add("Set-Cookie", "a=1")
    response.headers.add("Set-Cookie", "b=2")
    response.headers.setdefault("B", "7")
    response.headers.setdefault("C", "7")
    del response.headers["content-type"]
    assert response.head() == b"A: 9\r\nB: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nC: 7\r\n"
    with pytest.raises(KeyError):
        del response.headers["content-type"]


def test_what_the_server_frames_is_left_out() -> None:
    names = ["Content-Length", "Date", "Connection", "TRANSFER-ENCODING", "keep-alive", "Upgrade", "TE", "Trailer"]
    assert {name.lower() for name in names} <= FRAMING_HEADERS
    response = Response(b"x", headers=dict.fromkeys(names, "1") | {"X": "1"})
    assert response.head() == b"X: 1\r\n"


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "a\0", "ä", "a(b)", " a", "a\t", "a\n"])
def test_a_header_name_that_is_no_token_is_refused(name: str) -> None:
    for make in (
        lambda: Response(headers={name: "x"}),
        lambda: Response(headers=[(name, "x")]),
        lambda: Response().headers.add(name, "x"),
        lambda: Response().headers.__setitem__(name, "x"),
        lambda: Response().headers.setdefault(name, "x"),
        lambda: Request(headers={name: "x"}),
    ):
        with pytest.raises(ValueError, match="is not a header name"):
            make()


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x", "a\n", "\r", "a\0b", "\x7f", "\x1b[0m", "€", "\ud800"])
def test_a_header_value_that_could_split_the_message_is_refused(value: str) -> None:
    for make in (
        lambda: Response(headers={"X": value}),
        lambda: Response(b"", media_type=value),
        lambda: Response().headers.__setitem__("X", value),
    ):
        with pytest.raises(ValueError, match="control character"):
            make()


@given(st.text(max_size=20), st.text(max_size=20))
def test_whatever_is_accepted_stays_one_line(name: str, value: str) -> None:
    try:
        head = Response(headers={name: value}).head()
    except ValueError:
        return
    assert head == b"" or (head.count(b"\r") == head.count(b"\n") == 1 and head.endswith(b"\r\n") and b"\0" not in head)


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, 1000, -200, "200", 200.0, True, None])
def test_a_status_that_ends_nothing_is_refused(status: Any) -> None:
    with pytest.raises(ValueError, match="a status is an integer from 200 to 599"):
        Response(status=status)
    response = Response()
    response.status = status
    with pytest.raises(ValueError, match="a status is"):
        response.head()


def test_other_types_are_refused_with_advice() -> None:
    body: Any = {"a": 1}
    with pytest.raises(TypeError, match=r"Response\.json"):
        Response(body)
    number: Any = 5
    with pytest.raises(TypeError, match="a header is a str"):
        Response(headers={"X": number})
    with pytest.raises(CodecError, match=r"^\$\.a: "):
        Response.json({"a": float("nan")})
    with pytest.raises(ValueError, match="HTTP method"):
        Request("G ET")


def test_plain_dicts_as_headers_are_checked_too() -> None:
    response = Response()
    response.headers = {"X": "1"}  # type: ignore[assignment]
    assert response.head() == b"X: 1\r\n"
    response.headers = {"X": "a\r\nY: b"}  # type: ignore[assignment]
    with pytest.raises(ValueError, match="control character"):
        response.head()


def test_copies_of_headers_are_independent() -> None:
    first = Headers({"A": "1"})
    second = Headers(first)
    second.add("A", "2")
    assert first.getlist("a") == ["1"]
    assert second.getlist("a") == ["1", "2"]
