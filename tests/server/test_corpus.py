"""The folder of good and bad requests, through the parser and over a socket in front of a canary that counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from actord.server.heads import HeadReader, Refused
from actord.server.http import Request, RequestParser
from actord.settings import Http

from tests.support.front_process import FrontProcess

CORPUS = Path(__file__).parents[1] / "corpus" / "http1"
REJECT = sorted((CORPUS / "reject").glob("*.http"))
ACCEPT = sorted((CORPUS / "accept").glob("*.http"))

# What an attacker would like to have executed behind a request that two readers understand differently.
SMUGGLED = b"POST /actors/Canary/x/echo HTTP/1.1\r\nHost: a\r\n\r\n"


def expected(file: Path) -> str:
    return file.with_suffix(".expect").read_text()


def parse(parser: RequestParser, pieces: list[bytes]) -> list[Request]:
    requests = []
    for piece in pieces:
        request = parser.next(piece)
        while request is not None:
            requests.append(request)
            request = parser.next()
    return requests


def new_parser() -> RequestParser:
    return RequestParser(HeadReader(Http()), Http())


def one_by_one(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def test_the_corpus_is_complete() -> None:
    assert len(REJECT) >= 250
    assert len(ACCEPT) >= 45
    for file in REJECT + ACCEPT:
        assert file.with_suffix(".expect").exists(), file.name


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "byte-by-byte"])
@pytest.mark.parametrize("file", REJECT, ids=lambda file: file.stem)
def test_the_parser_refuses_a_bad_request_and_everything_after_it(file: Path, whole: bool) -> None:
    data = file.read_bytes()
    parser = new_parser()
    with pytest.raises(Refused) as refusal:
        parse(parser, [data] if whole else one_by_one(data))
    assert refusal.value.status == int(expected(file))
    assert parse(parser, [SMUGGLED, SMUGGLED]) == []


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "byte-by-byte"])
@pytest.mark.parametrize("file", ACCEPT, ids=lambda file: file.stem)
def test_the_parser_understands_a_good_request(file: Path, whole: bool) -> None:
    data = file.read_bytes()
    requests = parse(new_parser(), [data] if whole else one_by_one(data))
    wanted = [json.loads(line) for line in expected(file).splitlines()]
    assert [(method, target, body.decode()) for method, target, _, body in requests] == [
        (each["method"], each["target"], each["body"]) for each in wanted
    ]


@pytest.mark.parametrize("file", REJECT, ids=lambda file: file.stem)
def test_nothing_of_a_refused_request_is_executed_nor_what_follows_it(front: FrontProcess, file: Path) -> None:
    before = front.counts()
    with front.connect() as client:
        client.send(file.read_bytes() + SMUGGLED)
        answers = client.answers(2)
        assert [answer.status for answer in answers] == [int(expected(file))]
        assert answers[0].headers["connection"] == "close"
        assert answers[0].json["status"] == answers[0].status
        assert answers[0].json["applied"] == "no"
    assert front.counts() == before


def test_a_good_request_before_a_refused_one_is_answered_first(front: FrontProcess) -> None:
    before = front.counts()["call"]
    with front.connect() as client:
        client.send(SMUGGLED + b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n" + SMUGGLED)
        assert [answer.status for answer in client.answers(3)] == [200, 400]
    assert front.counts()["call"] == before + 1


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "byte-by-byte"])
@pytest.mark.parametrize("file", ACCEPT, ids=lambda file: file.stem)
def test_good_requests_are_answered_in_order(front: FrontProcess, file: Path, whole: bool) -> None:
    data = file.read_bytes()
    wanted = [json.loads(line) for line in expected(file).splitlines()]
    with front.connect() as client:
        for piece in [data] if whole else one_by_one(data):
            client.send(piece)
        answers = client.answers(len(wanted))
        assert [answer.status for answer in answers] == [each["status"] for each in wanted]
        for answer, each in zip(answers, wanted, strict=True):
            if each["status"] == 200 and each["target"].endswith("/echo"):
                assert answer.body.decode() == (each["body"] or "null")


def test_a_body_is_not_executed_as_a_request(front: FrontProcess) -> None:
    before = front.counts()["call"]
    with front.connect() as client:
        client.call("echo", SMUGGLED)
        assert client.answer().body == SMUGGLED
    assert front.counts()["call"] == before + 1
