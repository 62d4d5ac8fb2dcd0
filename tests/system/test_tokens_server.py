"""Tokens on a real server: made, reloaded and removed while it runs, and unknown to its workers."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from actord import ActordError
from actord.client import Client
from actord.errors import Forbidden, Unauthorized
from actord.server import tokens as tokens_of

from tests.support.command import actord
from tests.support.fixtures import serve
from tests.support.server import PROGRAMS, Server, call_path, until

__all__ = ["serve"]

SAY = call_path("Feed", "a", "say")


def new(file: Path, *scopes: str) -> str:
    text, made = tokens_of.make(list(scopes))
    with tokens_of.changing(str(file)) as content:
        content.tokens.append(made)
    return text


def rm(file: Path, token: str) -> None:
    with tokens_of.changing(str(file)) as content:
        content.tokens = [one for one in content.tokens if one.id != tokens_of.id_of(token)]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secrets") / "tokens.json"


@pytest.fixture(scope="module")
def operator(tokens: Path) -> str:
    return new(tokens, "*", "@door", "@admin")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tokens: Path, operator: str) -> Iterator[Server]:
    settings = {"server.workers": 1, "server.direct": True, "server.token_file": str(tokens)}
    with Server("feed.py", tmp_path_factory.mktemp("data"), settings=settings) as made:
        yield made
        assert made.unexpected("The token file", "front-0 was ended") == []


def status(server: Server, token: str, path: str = SAY) -> int:
    return server.request("POST", path, headers=bearer(token) if token else {}).status


def test_a_token_works_and_its_absence_is_told(server: Server, operator: str) -> None:
    assert status(server, operator) == 200
    assert status(server, "") == 401
    assert server.request("GET", "/-/health/ready").status == 200


def test_a_token_made_and_removed_while_the_server_runs_counts_without_a_signal(server: Server, tokens: Path) -> None:
    token = new(tokens, "Feed:say")
    until(lambda: status(server, token) == 200, "the new token to be known")
    assert status(server, token, call_path("Feed", "a", "shout")) == 403
    rm(tokens, token)
    until(lambda: status(server, token) == 401, "the removed token to be unknown")


def test_a_signal_has_the_file_read_at_once_and_streams_of_a_removed_token_end(
    server: Server, tokens: Path, operator: str
) -> None:
    token = new(tokens, "Feed:events")
    server.signal(signal.SIGHUP)
    path = "/actors/Feed/stream/events"
    until(lambda: server.request("HEAD", path, headers=bearer(token)).status == 200, "the new token to be known")
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=30) for _ in range(2)]
    streams = []
    for connection, name in zip(connections, (token, operator), strict=True):
        connection.request("GET", path, headers=bearer(name))
        streams.append(connection.getresponse())
        assert streams[-1].status == 200
    rm(tokens, token)
    server.signal(signal.SIGHUP)
    with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
        while streams[0].readline():
            pass
    assert server.request("POST", call_path("Feed", "stream", "say"), headers=bearer(operator)).status == 200
    while b"data: 1" not in streams[1].readline():
        pass
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("trouble", ["nonsense", "mode", "gone"])
def test_a_file_in_trouble_changes_nothing_and_is_an_error_in_the_log(
    server: Server, tokens: Path, operator: str, trouble: str
) -> None:
    good = tokens.read_bytes()
    mark = server.mark()
    if trouble == "nonsense":
        tokens.write_text("{")
    elif trouble == "mode":
        tokens.chmod(0o644)
    else:
        tokens.rename(tokens.with_name("away"))
    server.signal(signal.SIGHUP)
    server.wait_log("The tokens stay as they were", since=mark)
    assert status(server, operator) == 200
    assert status(server, "") == 401
    if trouble == "gone":
        tokens.with_name("away").rename(tokens)
    tokens.chmod(0o600)
    tokens.write_bytes(good)


def test_a_new_front_asks_as_the_old_one_did(server: Server, tokens: Path, operator: str) -> None:
    token = new(tokens, "Feed:say")
    until(lambda: status(server, token) == 200, "the new token to be known")
    [front] = server.children("front")
    server.kill_child(front.pid)
    until(lambda: [c for c in server.children("front") if c.pid != front.pid], "another front")
    until(server.ready, "the new front to answer")
    assert status(server, token) == 200
    assert status(server, "") == 401


def test_a_worker_has_neither_the_tokens_nor_the_listening_socket(server: Server, tokens: Path) -> None:
    until(lambda: len(server.children("worker")) == 1, "the reload of a signal before to end")
    [worker] = server.children("worker")
    [front] = server.children("front")
    environ = Path(f"/proc/{worker.pid}/environ").read_bytes()
    assert str(tokens).encode() not in environ
    assert b"CREDENTIALS_DIRECTORY" not in environ

    def listens(pid: int) -> bool:
        rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()]
        [inode] = [row[9] for row in rows if row[1].endswith(f":{server.port:04X}") and row[3] == "0A"]
        return f"socket:[{inode}]" in {os.readlink(fd.path) for fd in os.scandir(f"/proc/{pid}/fd") if fd.is_symlink()}

    assert listens(front.pid)
    assert not listens(worker.pid)


def test_the_client_shows_the_token_it_is_given(
    server: Server, operator: str, tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{server.port}"
    with Client(url, token=operator) as client:
        assert client.actor("Feed", "client").say() == 1
        assert operator not in repr(client) + repr(client.actor("Feed", "client"))
    monkeypatch.setenv("ACTORD_TOKEN", operator)
    with Client(url) as client:
        assert client.actor("Feed", "client").say() == 2
    with Client(url, headers={"authorization": "Bearer other"}) as client, pytest.raises(Unauthorized) as caught:
        client.actor("Feed", "client").say()
    assert (caught.value.applied, caught.value.retryable) == ("no", False)
    with pytest.raises(ValueError, match="beside"):
        Client(url, token=operator, headers={"Authorization": "Bearer other"})
    for wrong in ("", "a b", "a\n", "t\u00f6ken"):
        with pytest.raises(ValueError, match="one word"):
            Client(url, token=wrong)
    narrow = new(tokens, "Feed:shout")
    until(lambda: status(server, narrow) == 403, "the new token to be known")
    with Client(url, token=narrow) as client, pytest.raises(Forbidden, match="Feed:say"):
        client.actor("Feed", "client").say()
    assert issubclass(Forbidden, ActordError)


def test_direct_calls_are_no_way_around_the_scopes(server: Server, operator: str, tokens: Path) -> None:
    url = f"http://127.0.0.1:{server.port}"
    narrow = new(tokens, "Feed:say")
    until(lambda: status(server, narrow) == 200, "the new token to be known")
    for token, ticket in ((operator, True), (narrow, False)):
        found = server.request("GET", "/-/map", headers=bearer(token)).json()
        assert (found["ticket"] is not None) == ticket
        assert all((worker["direct"] is not None) == ticket for worker in found["workers"])
        with Client(url, token=token, direct=True) as client:
            assert client.actor("Feed", f"direct {ticket}").say() == 1
            if not ticket:
                with pytest.raises(Forbidden):
                    client.actor("Feed", "direct").events()
    with Client(url, token="nonsense", direct=True) as client, pytest.raises(Unauthorized):
        client.actor("Feed", "direct").say()


def test_the_command_line_shows_a_token_of_the_environment_or_a_file(
    server: Server, operator: str, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{server.port}"
    call = ("call", "Feed/cli", "say", "--url", url)
    refused = actord(*call)
    assert refused.returncode == 1
    assert "This needs a token" in refused.stderr
    assert actord(*call, environ={"ACTORD_TOKEN": operator}).stdout == "1\n"
    file = tmp_path / "token"
    file.write_text(operator + "\n")
    file.chmod(0o644)
    wide = actord(*call, "--token-file", file)
    assert wide.returncode == 78
    assert "chmod 600" in wide.stderr
    file.chmod(0o600)
    assert actord(*call, "--token-file", file).stdout == "2\n"
    tail = actord("tail", "Feed/cli", "--from", "0", "--count", "1", "--url", url, "--token-file", file)
    assert tail.stdout == "1 number 1\n"
    assert actord(*call, environ={"ACTORD_TOKEN": "a b"}).returncode == 78


# -- the start


def test_a_public_address_without_a_token_is_refused_and_with_one_it_is_served(tmp_path: Path) -> None:
    command = ("serve", PROGRAMS / "feed.py", "--host", "0.0.0.0", "--port", "0", "--workers", "1", "--data-dir")
    data = tmp_path / "data"
    refused = actord(*command, data)
    assert refused.returncode == 78
    assert "0.0.0.0 is reachable from other machines" in refused.stderr
    assert "actord token new" in refused.stderr
    assert refused.stdout == ""
    assert not data.exists(), "nothing was made"
    token = actord("token", "new", "--scope", "Feed", "--data-dir", data).stdout.strip()
    settings = {"server.host": "0.0.0.0", "server.workers": 1}
    with Server("feed.py", data, settings=settings) as server:
        assert status(server, token) == 200
        assert status(server, "") == 401
