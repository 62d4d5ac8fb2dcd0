"""A type with ``expose = False`` is unknown to clients, and as good as any other to actors and the front door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from actord import Request, Response, StatefulActor, WebSocket
from actord.server.commands.check import listing
from actord.server.curl import curl_lines
from actord.server.exits import ConfigError
from actord.server.program import check_bindings
from actord.settings import ActorBinding, App, Http
from actord.shards import wire
from actord.shards.direct import DirectConnection, DirectDoor
from actord.shards.openapi import describe
from actord.shards.registry import Program, ProgramError, load_program

from tests.support.harness import Core, steps
from tests.support.socket_front import HEADERS, Front

LATE = 1 << 60


class Ledger(StatefulActor):
    """Clients have no business here."""

    expose = False

    async def book(self, amount: int) -> int:
        booked: int = await self.ctx.storage.get("booked", 0) + amount
        await self.ctx.storage.put("booked", booked)
        return booked

    async def fetch(self, request: Request) -> Response:
        return Response.text("the ledger")

    async def web_socket(self, ws: WebSocket, request: Request) -> None:
        await ws.send("the ledger")


class Account(StatefulActor):
    async def pay(self, amount: int) -> int:
        booked: int = await self.env.get(Ledger, "main").book(amount)
        return booked

    async def tell(self, amount: int) -> None:
        await self.env.send(Ledger, "main").book(amount)


async def front_door(request: Request, env: Any) -> Response:
    return Response.json(await env.get(Ledger, "main").book(1))


UNKNOWN = "There is no actor type 'Ledger'. There is: Account."


async def test_a_client_is_told_that_there_is_no_such_type() -> None:
    core = Core(Account, Ledger)
    request = ["GET", "/events", [], None]
    for sent in (
        core.send("main", "book", b'{"amount":1}', type_="Ledger"),
        core.send("main", "book", b'{"amount":1}', type_="Ledger", key="k"),
        core.send("main", "no_such_method", type_="Ledger"),
        _fetch(core, request, 0),
        _fetch(core, request, wire.EVENTS),
    ):
        answer = await sent
        assert answer.status == 404
        assert json.loads(answer.body)["name"] == "ActorUnknownTypeError"
        assert json.loads(answer.body)["detail"] == UNKNOWN
    assert core.store.commit_seq == 0


def _fetch(core: Core, request: list[Any], flags: int) -> Any:
    pending = core.caller.open()
    frame = (wire.FETCH, pending.id, "Ledger", "main", request, None, flags, LATE, b"")
    core.dispatcher.fetch(core.caller, frame, 0.0)  # type: ignore[arg-type]
    core.gate.flush()
    return pending


async def test_a_client_s_socket_is_refused_and_one_that_the_front_door_forwards_is_let_in() -> None:
    core = Core(Account, Ledger)
    front = Front(core)
    front.open(1, "main", "Ledger")
    [refused] = await front.said()
    assert refused[:3] == ("refuse", 1, 404)
    assert UNKNOWN in refused[3].decode()
    request = ["GET", "/live", HEADERS, "127.0.0.1"]
    front.event(wire.WS_OPEN, 2, "uid2", "Ledger", "main", request, LATE, True)
    assert await front.said() == [("accept", 2, None, b""), "the ledger"]


async def test_actors_messages_and_the_front_door_reach_it() -> None:
    core = Core(Account, Ledger, front_door=front_door)
    core.outbox.start()
    assert await core.value("alice", "pay", 2) == 2
    assert (await core.door()).value == 3
    await core.call("alice", "tell", 4)
    await steps(100)
    assert await core.value("alice", "pay", 0) == 7


async def test_another_worker_reaches_it_and_a_front_does_not(tmp_path: Path) -> None:
    core = Core(Account, Ledger)
    begun = tmp_path / "begun"
    for caller, reached in (("worker-1", True), ("front-0", False), ("worker", False)):
        begun.write_bytes(bytes(len(Front(core).begun)))
        front = Front(core)
        front.connection.begun = None
        front.feed((wire.HELLO, wire.VERSION, caller, str(begun)))
        assert ("Ledger" in front.connection.hosts) == reached
        assert "Account" in front.connection.hosts


async def test_a_client_of_direct_calls_does_not_reach_it(tmp_path: Path) -> None:
    core = Core(Account, Ledger)
    door = DirectDoor(core.dispatcher, Http(), runtime_dir=str(tmp_path), index=0, epoch="e", ticket="t")
    assert set(DirectConnection(door).hosts) == {"Account"}


async def test_without_such_types_a_call_looks_where_it_always_looked() -> None:
    core = Core(Account)
    assert core.dispatcher.exposed == core.dispatcher.hosts


# -- what is said of it


def loaded(folder: Path, source: str, *actors: ActorBinding) -> Program:
    (folder / "prog.py").write_text("from actord import StatefulActor\n" + source)
    return load_program(App(root=str(folder), main="prog.py", actors=list(actors)))


SHOWN = "class Shown(StatefulActor):\n    def a(self) -> int: ...\n"
HIDDEN = "class Hidden(StatefulActor):\n    expose = False\n    def b(self) -> int: ...\n"


def test_no_description_for_clients_names_it(tmp_path: Path) -> None:
    program = loaded(tmp_path, SHOWN + HIDDEN)
    described = program.describe()
    assert [line for line in curl_lines(described, "http://a") if "/actors/" in line] == [
        "curl -X POST http://a/actors/Shown/alice/a"
    ]
    document = json.dumps(describe(program))
    assert "/actors/Shown/" in document
    assert "Hidden" not in document
    assert "actor Hidden, bound as HIDDEN, not reachable over HTTP" in listing(described)
    assert "actor Shown, bound as SHOWN\n" in listing(described)


@pytest.mark.parametrize(("stated", "exposed"), [(None, False), (True, True), (False, False)])
def test_the_project_has_the_last_word(tmp_path: Path, stated: bool | None, exposed: bool) -> None:
    program = loaded(tmp_path, HIDDEN, ActorBinding(binding="H", type="Hidden", expose=stated))
    assert program.types["Hidden"].exposed == exposed


def test_two_bindings_can_not_say_different_things(tmp_path: Path) -> None:
    one = ActorBinding(binding="A", type="Shown", expose=False)
    with pytest.raises(ProgramError, match="that it is not"):
        loaded(tmp_path, SHOWN, one, ActorBinding(binding="B", type="Shown", expose=True))
    assert not loaded(tmp_path, SHOWN, one, ActorBinding(binding="B", type="Shown")).types["Shown"].exposed


@pytest.mark.parametrize("value", ["None", "0", "'no'", "lambda self: None"])
def test_the_attribute_is_true_or_false(tmp_path: Path, value: str) -> None:
    with pytest.raises(ProgramError, match="must be True or False"):
        loaded(tmp_path, f"class A(StatefulActor):\n    expose = {value}\n")


def test_the_key_of_a_project_is_true_or_false() -> None:
    entry = {"binding": "A", "type": "B", "expose": False}
    assert check_bindings("actord.toml", [entry]) == [ActorBinding(binding="A", type="B", expose=False)]
    with pytest.raises(ConfigError, match="write true or false"):
        check_bindings("actord.toml", [entry | {"expose": "no"}])
