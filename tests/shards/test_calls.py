"""Calls from one actor to another, within one worker: results, errors, time, cancellation, cycles."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from actord import ActorError, Request, Response, StatefulActor
from actord.errors import (
    ActorArgumentError,
    ActorDeadlockError,
    ActordError,
    ActorMethodTimeoutError,
    TurnEnded,
)

from tests.support.harness import Core, steps


class Node(StatefulActor):
    """``run`` does what a test tells it: a script of steps by actor name."""

    async def add(self, n: int = 1) -> int:
        total: int = await self.ctx.storage.get("n", 0) + n
        await self.ctx.storage.put("n", total)
        return total

    async def total(self) -> int:
        return await self.ctx.storage.get("n", 0)  # type: ignore[no-any-return]

    async def echo(self, value: Any) -> Any:
        return value

    async def refuse(self) -> None:
        raise ActorError("poor", code="poor", status=409, data={"missing": {1, 2}})

    async def chain(self, names: list[str]) -> int:
        """Call the first name with the rest; the last one adds 1."""
        if not names:
            return await self.add()
        return await self.env.get(Node, names[0]).chain(names[1:])

    async def caught(self, names: list[str]) -> list[str]:
        try:
            await self.chain(names)
        except ActordError as error:
            return [type(error).__name__, error.detail, error.applied]
        return []

    async def wait(self, event: str) -> str:
        await EVENTS[event].wait()
        return self.ctx.id

    async def meet(self, event: str, other: str) -> Any:
        """When told to, call another one."""
        await EVENTS[event].wait()
        return await self.caught([other])

    async def adds_then_fails(self, other: str, method: str) -> None:
        peer = self.env.get(Node, other)
        with contextlib.suppress(ActorError):
            await getattr(peer, method)()
        raise ValueError("after that")

    async def gather(self, names: list[str]) -> list[int]:
        return await asyncio.gather(*(self.env.get(Node, name).add() for name in names))

    async def leave_behind(self, other: str) -> None:
        LEFT.append(asyncio.create_task(self.later(other)))

    async def later(self, other: str) -> int:
        await asyncio.sleep(0)
        return await self.env.get(Node, other).add()

    async def leave_waiting(self, other: str, event: str) -> None:
        LEFT.append(asyncio.create_task(self.waits_for(other, event)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def waits_for(self, other: str, event: str) -> str:
        return await self.env.get(Node, other).wait(event)

    async def give_up(self, other: str) -> str:
        try:
            async with asyncio.timeout(5):
                await self.env.get(Node, other).add()
        except TimeoutError:
            return "gave up"
        return "answered"

    async def fetch(self, request: Request) -> Response:
        if request.path.startswith("/via/"):
            return await self.env.get(Node, request.path[5:]).fetch(Request("GET", "/own"))
        return Response.json({"me": self.ctx.id, "path": request.path})

    async def ask(self, other: str) -> list[Any]:
        answer = await self.env.get(Node, other).fetch(Request("POST", "/x?y=1", body=b"z"))
        return [answer.status, json.loads(answer.body)]


EVENTS: dict[str, asyncio.Event] = {}
LEFT: list[asyncio.Task[Any]] = []


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    EVENTS.clear()
    LEFT.clear()
    yield
    assert all(task.done() for task in LEFT)


def event(name: str) -> asyncio.Event:
    EVENTS[name] = asyncio.Event()
    return EVENTS[name]


async def test_a_call_goes_through_a_chain_of_actors_and_each_writes_its_own() -> None:
    core = Core(Node)
    assert await core.value("a", "chain", ["b", "c", "d"]) == 1
    assert await core.value("a", "chain", ["b", "d"]) == 2
    assert await core.value("d", "total") == 2
    assert await core.value("b", "total") == 0


async def test_the_callers_turn_goes_on_only_when_the_callees_writes_are_durable() -> None:
    core = Core(Node)
    core.hold_fsyncs()
    call = core.call("a", "chain", ["b"])
    await steps()
    assert not call.done
    await core.fsync()
    assert (await call).value == 1


async def test_values_are_copies_and_keep_their_types() -> None:
    value = {"t": (1, 2), "s": {3}, "n": float("inf"), "i": 10**30, "b": b"x"}

    class Asks(StatefulActor):
        async def ask(self) -> bool:
            back = await self.env.NODE.id_from_name("b").echo(value)
            assert back is not value
            return bool(back == value) and type(back["t"]) is tuple

    assert await Core(Asks, Node).value("a", "ask") is True


async def test_errors_cross_every_hop_as_their_classes() -> None:
    class Asks(StatefulActor):
        async def ask(self) -> list[Any]:
            found: list[Any] = []
            peer = self.env.NODE.id_from_name("b")
            for call in (peer.refuse(), peer.add("x"), peer.add(1, 2, 3)):
                try:
                    await call
                except ActorError as error:
                    found.append([error.code, error.http_status, error.data == {"missing": {1, 2}}])
                except ActorArgumentError as error:
                    found.append(error.applied)
            return found

    assert await Core(Asks, Node).value("a", "ask") == [["poor", 409, True], "no", "no"]


async def test_an_error_of_the_last_one_reaches_the_client_whole() -> None:
    class Asks(StatefulActor):
        async def ask(self) -> None:
            await self.env.NODE.id_from_name("b").refuse()

    answer = await Core(Asks, Node).call("a", "ask")
    assert (answer.status, answer.value["code"], answer.applied) == (409, "poor", "no")


@pytest.mark.parametrize(("method", "applied"), [("add", "unknown"), ("total", "unknown"), ("refuse", "no")])
async def test_who_fails_after_a_call_that_may_have_applied_something_does_not_say_that_nothing_was(
    method: str, applied: str
) -> None:
    core = Core(Node)
    answer = await core.call("a", "adds_then_fails", "b", method)
    assert (answer.status, answer.applied) == (500, applied)


async def test_calls_to_several_actors_run_at_once() -> None:
    core = Core(Node)
    assert await core.value("a", "gather", [f"b{n}" for n in range(50)]) == [1] * 50
    assert await core.value("a", "gather", ["b", "b", "b"]) == [1, 2, 3]


async def test_fetch_passes_from_actor_to_actor() -> None:
    core = Core(Node)
    assert await core.value("a", "ask", "b") == [200, {"me": "b", "path": "/x"}]
    assert (await core.fetch("a", url="/via/c")).body == b'{"me":"c","path":"/own"}'


# -- time


async def test_a_callee_runs_no_longer_than_its_caller_waits() -> None:
    class Impatient(StatefulActor):
        call_timeout = 2.0

        async def ask(self) -> str:
            return await self.env.NODE.id_from_name("b").wait("never")  # type: ignore[no-any-return]

    core = Core(Impatient, Node)
    event("never")
    call = core.call("a", "ask")
    await asyncio.sleep(1.9)
    assert not call.done
    await asyncio.sleep(0.2)
    answer = await call
    assert answer.status == 504
    assert answer.name == ActorMethodTimeoutError.__name__
    assert answer.applied == "unknown"
    await asyncio.sleep(0.1)
    assert (await core.send("b", "total", type_="Node")).value == 0  # its turn is over: others get in


async def test_a_caller_that_gives_up_takes_back_a_call_that_waits() -> None:
    core = Core(Node)
    gate = event("go")
    blocked = core.call("b", "wait", "go")
    call = core.call("a", "give_up", "b")
    await asyncio.sleep(5.1)
    assert (await call).value == "gave up"
    gate.set()
    await blocked
    assert await core.value("b", "total") == 0


async def test_a_task_that_a_turn_left_behind_can_call_nobody() -> None:
    core = Core(Node)
    await core.value("a", "leave_behind", "b")
    await steps()
    assert isinstance(LEFT[0].exception(), TurnEnded)
    assert await core.value("b", "total") == 0


async def test_a_call_that_a_task_still_waits_for_is_taken_back_when_its_turn_ends() -> None:
    core = Core(Node)
    event("go")
    blocked = core.call("b", "wait", "go")
    await core.value("a", "leave_waiting", "b", "go")
    await steps()
    assert LEFT[0].cancelled()
    EVENTS["go"].set()
    await blocked
    assert core.runner.waiting == core.runner.suspended == 0


# -- cycles


@pytest.mark.parametrize("names", [["a"], ["b", "a"], ["b", "c", "a"], ["b", "c", "d", "b"]])
async def test_a_chain_that_comes_back_fails_at_once_and_names_the_cycle(names: list[str]) -> None:
    core = Core(Node)
    answer = await core.call("a", "chain", names)
    assert answer.status == 508
    assert answer.name == ActorDeadlockError.__name__
    assert answer.applied == "no"
    cycle = answer.detail.split(": ")[1].rstrip(".").split(" -> ")
    assert cycle[0] == cycle[-1]
    assert set(cycle) <= {f"Node/{name}" for name in ["a", *names]}
    assert await core.value("a", "add") == 1  # nobody waits any more


async def test_who_catches_the_deadlock_goes_on() -> None:
    core = Core(Node)
    name, detail, applied = await core.value("a", "caught", ["b", "a"])
    assert (name, applied) == ("ActorDeadlockError", "no")
    assert "Node/b -> Node/a -> Node/b" in detail


@pytest.mark.parametrize("size", [2, 3, 6])
async def test_of_calls_that_meet_one_fails_and_the_others_are_answered(size: int) -> None:
    core = Core(Node)
    event("go")
    names = [f"n{n}" for n in range(size)]
    calls = [core.call(name, "meet", "go", names[(n + 1) % size]) for n, name in enumerate(names)]
    await steps()
    EVENTS["go"].set()
    answers = [(await call).value for call in calls]
    failed = [answer for answer in answers if answer]
    assert len(failed) == 1
    assert failed[0][0] == "ActorDeadlockError"
    assert failed[0][2] == "no"
    added = [await core.value(name, "total") for name in names]
    assert sum(added) == size - 1


async def test_waiting_for_one_that_waits_for_somebody_else_is_no_cycle() -> None:
    core = Core(Node)
    event("go")
    middle = core.call("b", "waits_for", "c", "go")
    await steps()
    first = core.call("a", "chain", ["b"])
    other = core.call("d", "chain", ["b"])
    await steps()
    assert not first.done
    EVENTS["go"].set()
    assert (await middle).value == "c"
    assert {(await first).value, (await other).value} == {1, 2}


# -- stubs


async def test_a_stub_costs_nothing_until_it_is_awaited_and_shows_what_it_is() -> None:
    core = Core(Node)
    namespace = core.env.NODE
    stub = namespace.id_from_name("x/+ ü")
    assert stub.id == "x/+ ü"
    assert repr(stub) == "<stub of Node/x/+ ü>"
    assert {"add", "chain", "fetch", "id"} <= set(dir(stub))
    assert stub == core.env.get(Node, "x/+ ü") == namespace.get("x/+ ü")
    assert len({stub, namespace.get("x/+ ü"), namespace.get("y")}) == 2
    unique = {namespace.new_unique_id().id for _ in range(100)}
    assert len(unique) == 100
    assert all(len(one) == 32 for one in unique)
    assert not core.dispatcher.hosts["Node"].activations
    with pytest.raises(AttributeError, match="no method"):
        stub.nothing()
    with pytest.raises(LookupError, match="Node"):
        core.env.get(dict, "a")


async def test_an_answer_that_is_held_for_its_commit_is_no_wait_that_makes_a_cycle() -> None:
    """b has answered a, and its next turn calls a, before a was told: both commit later."""
    core = Core(Node)
    core.hold_fsyncs()
    first = core.call("a", "chain", ["b"])
    await steps()
    second = core.call("b", "chain", ["a"])
    await steps()
    assert not first.done
    assert not second.done
    core.flusher.auto = True
    await core.fsync()
    assert (await first).value == 1
    assert (await second).value == 1
