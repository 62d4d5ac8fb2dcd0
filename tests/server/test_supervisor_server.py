"""The supervisor over real fronts and workers: what a person at the terminal, or an operator, does to them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command import ActordServer, actord
from tests.support.processes import wait_until_gone
from tests.support.server import until
from tests.support.websockets import Socket

Serve = Callable[..., ActordServer]

PROGRAM = """
from actord import StatefulActor

class Counter(StatefulActor):
    async def add(self, amount: int = 1) -> int:
        value = await self.ctx.storage.get("value", 0) + amount
        await self.ctx.storage.put("value", value)
        return value

    async def version(self) -> str:
        return "first"
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    path = tmp_path / "project" / "app.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def serve(tmp_path: Path, program: Path) -> Iterator[Serve]:
    servers: list[ActordServer] = []

    def begin(*words: str, command: str = "serve", **environ: str) -> ActordServer:
        given = [command, program, "--data-dir", tmp_path / "data", "--workers", "2", *words]
        if "--uds" not in words:
            given += ["--port", "0"]
        servers.append(ActordServer(*given, stderr=tmp_path / f"words-{len(servers)}", environ=environ))
        assert servers[-1].url, servers[-1].words
        return servers[-1]

    yield begin
    for server in servers:
        server.stop(signal.SIGKILL)


def test_a_call_over_the_command_line(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    assert f"curl --json '{{\"amount\": 1}}' {server.url}/actors/Counter/alice/add" in server.words
    done = actord("call", "Counter/alice", "add", "amount=2", environ={"ACTORD_URL": server.url})
    assert (done.returncode, done.stdout) == (0, "2\n")
    done = actord("call", "Counter/alice", "subtract", environ={"ACTORD_URL": server.url})
    assert done.returncode == 1
    assert "ActorUnknownMethodError" in done.stderr
    assert server.stop() == 0


def test_a_socket_file_serves_and_goes_with_the_server(serve: Serve, tmp_path: Path) -> None:
    server = serve("--uds", str(tmp_path / "s"))
    assert server.url == f"unix:{tmp_path}/s"
    done = actord("call", "Counter/alice", "add", "--url", server.url)
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert server.stop() == 0
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("who", ["worker-0", "worker-1", "front-0"])
def test_calls_are_answered_again_after_a_child_was_killed(serve: Serve, who: str) -> None:
    server = serve()
    assert server.ask("/actors/Counter/alice/add", {}) == (200, 1)
    victim = server.children()[who]
    os.kill(victim, signal.SIGKILL)
    wait_until_gone(victim)
    # No patience here: the front, or the listening socket, holds the call until somebody can answer it.
    assert server.ask("/actors/Counter/alice/add", {}) == (200, 2)
    assert server.ask("/actors/Counter/bob/add", {}) == (200, 1)
    assert server.stop() == 0


def test_a_killed_supervisor_leaves_no_orphan_and_its_data_to_the_next(serve: Serve) -> None:
    server = serve()
    assert server.ask("/actors/Counter/alice/add", {}) == (200, 1)
    server.stop(signal.SIGKILL)  # waits for every child to go
    assert serve().ask("/actors/Counter/alice/add", {}) == (200, 2)


def test_a_second_server_on_the_data_is_refused(serve: Serve, program: Path, tmp_path: Path) -> None:
    server = serve()
    done = actord("serve", program, "--port", "0", "--data-dir", tmp_path / "data")
    assert (done.returncode, done.stdout) == (75, "")
    assert server.ask("/actors/Counter/alice/add", {}) == (200, 1)


def test_dev_loads_a_changed_program_while_calls_are_held(serve: Serve, program: Path) -> None:
    server = serve(command="dev")
    front = server.children()["front-0"]
    assert server.ask("/actors/Counter/alice/version", {}) == (200, "first")
    assert server.ask("/actors/Counter/alice/add", {}) == (200, 1)
    program.write_text(PROGRAM.replace('"first"', '"second"'))
    answers = []
    while not answers or answers[-1] == (200, "first"):
        answers.append(server.ask("/actors/Counter/alice/version", {}))
    assert answers[-1] == (200, "second"), "a call was not held, but answered"
    assert server.ask("/actors/Counter/alice/add", {}) == (200, 2)
    assert server.children()["front-0"] == front
    assert server.stop() == 0
    assert "app.py changed" in server.words


def test_dev_keeps_sockets_open_while_the_program_is_loaded_anew(serve: Serve, program: Path) -> None:
    sockets = """
    async def web_socket(self, ws, request):
        ws.attachment = "kept"

    async def web_socket_message(self, ws, data):
        ws.send(f"first {ws.attachment} {self.ctx.count()}")
"""
    program.write_text(PROGRAM + sockets)
    server = serve(command="dev")
    port = int(server.url.rpartition(":")[2])
    with (
        Socket(("127.0.0.1", port), "/actors/Counter/a") as one,
        Socket(("127.0.0.1", port), "/actors/Counter/b") as two,
    ):
        one.text("x")
        assert one.message() == "first kept 1"
        program.write_text(PROGRAM + sockets.replace("first", "second"))
        answers: list[str | bytes] = []
        while not answers or answers[-1] == "first kept 1":
            two.text("x")
            answers.append(two.message())
        assert answers[-1] == "second kept 1"
        one.text("x")
        assert one.message() in ("first kept 1", "second kept 1")  # its worker may be the last to be replaced
        assert server.stop() == 0


def test_dev_closes_sockets_of_an_application_with_1012(serve: Serve, program: Path) -> None:
    app = """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "first"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
"""
    program.write_text(PROGRAM + app)
    server = serve("--workers", "1", command="dev")
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with Socket(address, "/x") as client:
        assert client.message() == "first"
        program.write_text(PROGRAM + app.replace("first", "second"))
        assert client.closed() == (1012, "the worker is being replaced")
    with Socket(address, "/x") as client:
        assert client.message() == "second", "an opening in between waits for the new program"
    assert server.stop() == 0
    assert "error" not in server.words.lower()


def test_dev_reports_a_program_that_does_not_load_and_goes_on_with_the_one_from_before(
    serve: Serve, program: Path
) -> None:
    server = serve(command="dev")
    workers = {name: pid for name, pid in server.children().items() if name.startswith("worker")}
    for broken in ("def broken(:", "raise SystemExit\n"):
        told = server.words.count("goes on until the next change")
        program.write_text(broken)
        until(lambda told=told: server.words.count("goes on until the next change") > told, "a refusal")
        for name in "abcd":  # of both workers
            assert server.ask(f"/actors/Counter/{name}/version", {}) == (200, "first")
    assert server.children() | workers == server.children()
    assert "SyntaxError: invalid syntax" in server.words
    assert "registry.py" not in server.words, "a traceback has the program's frames alone"
    program.write_text(PROGRAM.replace('"first"', '"third"'))  # of the same length, and maybe in the same second
    until(lambda: server.ask("/actors/Counter/alice/version", {}) == (200, "third"), "the next program")
    assert server.stop() == 0
