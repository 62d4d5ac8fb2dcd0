"""Socket events are turns; what turns do to sockets passes the output gate; rooms are right. In virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from actord import ActorError, Request, StatefulActor, WebSocket, timeout
from actord.errors import TurnEnded

from tests.support.harness import Core, steps
from tests.support.memory_store import MemoryStore, full
from tests.support.socket_front import Front

ACCEPTED = ("accept", 1, None, b"")


class Room(StatefulActor):
    kept: Any = None
    hold: asyncio.Event

    async def web_socket(self, ws: WebSocket, request: Request) -> None:
        if self.ctx.id == "full":
            raise ActorError("full", status=409)
        if self.ctx.id == "faulty":
            ws.send("not seen")
            raise KeyError("x")
        if self.ctx.id == "slow":
            await asyncio.sleep(100)
        if self.ctx.id == "choosy":
            ws.accept(
                "chat.v2", headers={"X-One": "1", "Set-Cookie": "a=b", "Upgrade": "no", "Sec-WebSocket-Accept": "x"}
            )
        if self.ctx.id == "closed":
            ws.close(4000, "go away")
        ws.send(f"welcome {self.ctx.count()}")

    async def web_socket_message(self, ws: WebSocket, data: str | bytes) -> None:
        verb, _, rest = data.partition(" ") if isinstance(data, str) else ("echo", "", data)
        await getattr(self, f"_{verb}")(ws, rest)

    async def web_socket_close(self, ws: WebSocket, code: int, reason: str) -> None:
        if reason == "fail":
            raise ValueError("in close")
        self.ctx.broadcast(f"left {code} {reason} {self.ctx.count()}")

    async def _echo(self, ws: WebSocket, text: str) -> None:
        await ws.send(text)

    async def _put(self, ws: WebSocket, text: str) -> None:
        await self.ctx.storage.put("v", text)
        ws.send(f"put {text}")

    async def _fail(self, ws: WebSocket, text: str) -> None:
        ws.send("before")
        ws.send_now("now " + text)
        ws.attachment = "not kept"
        ws.tags = ["not kept"]
        ws.close()
        raise ValueError(text)

    async def _wait(self, ws: WebSocket, text: str) -> None:
        ws.send("waiting")
        await self.hold.wait()
        ws.send(text)

    @timeout(1)
    async def _unused(self, ws: WebSocket, text: str) -> None:
        raise AssertionError

    async def _all(self, ws: WebSocket, text: str) -> None:
        self.kept = await self.ctx.broadcast(text)  # type: ignore[misc]

    async def _others(self, ws: WebSocket, text: str) -> None:
        ws.send(str(self.ctx.broadcast(text, exclude=ws)))

    async def _red(self, ws: WebSocket, text: str) -> None:
        ws.send(str(self.ctx.broadcast(text, tag="red")))

    async def _tag(self, ws: WebSocket, text: str) -> None:
        ws.tags.add(text)
        ws.send(f"{sorted(ws.tags)} {self.ctx.count(text)} {[one.id for one in self.ctx.sockets(text)]}")

    async def _keep(self, ws: WebSocket, text: str) -> None:
        ws.attachment = {"text": text, "set": {1, 2}}

    async def _keepall(self, ws: WebSocket, text: str) -> None:
        for socket in self.ctx.sockets():
            socket.attachment = text
        await self.ctx.storage.put("v", text)

    async def _kept(self, ws: WebSocket, text: str) -> None:
        ws.send(repr((ws.attachment, sorted(ws.tags), ws.subprotocol, ws.id)))

    async def _close(self, ws: WebSocket, text: str) -> None:
        ws.close(4001, text)
        ws.send("too late")
        self.ctx.broadcast(f"{self.ctx.count()} left")

    async def _closeall(self, ws: WebSocket, text: str) -> None:
        for socket in self.ctx.sockets():
            socket.close()

    async def _block(self, ws: WebSocket, text: str) -> None:
        try:
            async with self.ctx.storage.transaction():
                await self.ctx.storage.put("v", text)
                ws.send("in the block")
                raise KeyError
        except KeyError:
            ws.send(repr(await self.ctx.storage.get("v")))

    async def _leak(self, ws: WebSocket, text: str) -> None:
        type(self).kept = ws
        type(self).hold = asyncio.Event()
        self.task = asyncio.create_task(self._later(ws))

    async def _later(self, ws: WebSocket) -> None:
        await self.hold.wait()
        try:
            ws.send("leaked")
        except TurnEnded:
            type(self).kept = "refused"

    async def say(self, text: str) -> int:
        await self.ctx.storage.put("said", text)
        return self.ctx.broadcast(text)

    async def count(self) -> int:
        return self.ctx.count()

    async def alarm(self, info: Any) -> None:
        self.ctx.broadcast("alarm")

    async def arm(self) -> None:
        self.ctx.set_alarm(0)


class Plain(StatefulActor):
    async def ping(self) -> str:
        return "pong"


class Quiet(StatefulActor):
    async def web_socket(self, ws: WebSocket, request: Request) -> None:
        pass


async def opened(core: Core, *sids: int, name: str = "a") -> Front:
    front = Front(core)
    for sid in sids:
        front.open(sid, name)
    await front.frames()
    return front


# -- openings


async def test_a_client_is_let_in_before_anything_else_is_sent_to_it_and_then_its_opening_is_done() -> None:
    front = Front(Core(Room))
    seq = front.open(1)
    assert await front.frames() == [[*ACCEPTED], ["send", 1, "welcome 1"], ["done", 1, seq]]


async def test_the_handler_picks_a_subprotocol_and_adds_headers_but_none_of_the_handshakes_own() -> None:
    front = Front(Core(Room))
    front.open(1, "choosy")
    accept = (await front.frames())[0]
    assert accept == ["accept", 1, "chat.v2", b"X-One: 1\r\nSet-Cookie: a=b\r\n"]


async def test_an_actor_error_of_the_handler_is_an_http_answer() -> None:
    front = Front(Core(Room))
    seq = front.open(1, "full")
    refuse, done = await front.frames()
    assert refuse[:3] == ["refuse", 1, 409]
    assert b'"applied":"no"' in refuse[3]
    assert done == ["done", 1, seq]
    front.open(1)  # the number may be used again
    assert (await front.said())[-1] == "welcome 1"


@pytest.mark.parametrize("name", ["faulty", "slow"])
async def test_a_handler_that_throws_or_runs_over_its_time_closes_with_1011(name: str) -> None:
    core = Core(Room)
    front = Front(core)
    front.open(1, name)
    if name == "slow":
        await asyncio.sleep(31)
    assert await front.said() == [ACCEPTED, ("close", 1, 1011, "the handler failed")]
    front.closed(1, 1011)
    assert await front.said() == []  # it was never in the room
    assert core.dispatcher.hosts["Room"].rooms == {}


async def test_without_a_handler_a_socket_is_closed_with_1011() -> None:
    front = Front(Core(Plain))
    seq = front.open(1, "a", "Plain")
    assert await front.frames() == [
        [*ACCEPTED],
        ["close", 1, 1011, "actor has no web_socket handler"],
        ["done", 1, seq],
    ]
    front.closed(1, 1011)
    assert await front.said() == []


async def test_an_unknown_type_and_a_bad_name_are_refused_over_http() -> None:
    front = Front(Core(Room))
    front.open(1, "a", "Nothing")
    front.open(1, "")
    assert [frame[2] for frame in await front.frames() if frame[0] == "refuse"] == [404, 400]


async def test_closing_in_the_handler_lets_in_and_closes() -> None:
    front = Front(Core(Room))
    front.open(1, "closed")
    assert await front.said() == [ACCEPTED, ("close", 1, 4000, "go away")]


async def test_a_client_that_goes_before_its_turn_begins_never_was() -> None:
    core = Core(Room)
    front = await opened(core, 1)
    Room.hold = asyncio.Event()
    front.message(1, "wait x")
    front.open(2)
    front.closed(2, 1006)
    await front.frames()
    Room.hold.set()
    said = await front.frames()
    assert [frame[:2] for frame in said] == [
        ["send", 1],
        ["send", 1],
        ["done", 1],
        ["refuse", 2],
        ["done", 2],
        ["done", 2],
    ]
    assert await core.value("a", "count") == 1


async def test_an_opening_after_its_deadline_is_answered_503() -> None:
    front = Front(Core(Room))
    front.open(1, deadline=1)
    assert (await front.frames())[0][:3] == ["refuse", 1, 503]


# -- the gate


async def test_frames_wait_for_the_fsync_of_their_turns_commit() -> None:
    core = Core(Room)
    front = await opened(core, 1, 2)
    core.hold_fsyncs()
    front.message(1, "put x")
    front.message(1, "all y")  # it wrote nothing, but could have seen what is not durable
    assert await front.frames() == []
    await core.fsync()
    got = await front.frames()
    assert got == [["send", 1, "put x"], ["done", 1, 3], ["broadcast", [1, 2], "y"], ["done", 1, 4]]


async def test_what_a_turn_sends_and_its_done_leave_in_one_write() -> None:
    core = Core(Room)
    front = await opened(core, 1)
    core.hold_fsyncs()
    front.message(1, "put x")
    await front.frames()
    core.flusher.fsync()
    await steps()
    assert [[frame[0] for frame in batch] for batch in front.batches] == [["send", "done"]]


async def test_a_turn_that_throws_sends_nothing_but_what_was_sent_now_and_closes_with_1011() -> None:
    core = Core(Room)
    front = await opened(core, 1, 2)
    front.message(1, "fail x")
    front.message(1, "all behind it")
    front.message(2, "echo y")
    assert await front.said() == ["now x", ("close", 1, 1011, "the handler failed"), "y"]
    assert await core.value("a", "count") == 2
    front.closed(1, 1011, "the handler failed")
    assert await front.said() == ["left 1011 the handler failed 1"]


async def test_a_message_over_its_time_closes_with_1011_and_the_room_goes_on() -> None:
    core = Core(Room, call_timeout=5.0)
    front = await opened(core, 1, 2)
    Room.hold = asyncio.Event()
    front.message(1, "wait x")
    front.message(2, "echo y")
    await asyncio.sleep(6)
    assert await front.said() == [("close", 1, 1011, "the handler failed"), "y"]


async def test_a_block_that_is_rolled_back_undoes_writes_and_not_frames() -> None:
    front = await opened(Core(Room), 1)
    front.message(1, "block x")
    assert await front.said() == ["in the block", "None"]


async def test_a_broadcast_of_a_call_leaves_with_its_reply_and_one_of_an_alarm_with_its_commit() -> None:
    core = Core(Room)
    front = await opened(core, 1)
    core.hold_fsyncs()
    call = core.call("a", "say", "hello")
    assert await front.said() == []
    assert not call.done
    await core.fsync()
    assert await front.said() == ["hello"]
    assert (await call).value == 1
    core.flusher.auto = True
    await core.call("a", "arm")
    core.alarms.start()
    await asyncio.sleep(2)
    assert await front.said() == ["alarm"]
    core.alarms.stop()


async def test_a_full_disk_takes_back_all_that_its_turns_did_to_sockets() -> None:
    store = MemoryStore()
    core = Core(Room, store=store)
    front = await opened(core, 1, 2, 3)
    front.message(1, "keepall first")
    await front.frames()
    store.fail_write.append(full())
    front.message(1, "keepall second")
    front.message(3, "close behind it")
    frames = [frame for frame in await front.frames() if frame[0] != "done"]
    assert frames == [["close", 1, 1011, "the handler failed"], ["close", 3, 1011, "the handler failed"]]
    front.message(2, "kept")
    assert await front.said() == ["('first', [], None, 'uid2')"]
    assert await core.value("a", "count") == 3


async def test_an_unknown_outcome_closes_with_1012() -> None:
    store = MemoryStore()
    core = Core(Room, store=store)
    front = await opened(core, 1)
    store.fail_sync.append(OSError(5, "Input/output error"))
    front.message(1, "put x")
    assert await front.said() == [("close", 1, 1012, "whether the message was handled is unknown")]


async def test_only_the_running_turn_may_use_a_socket() -> None:
    core = Core(Room)
    front = await opened(core, 1)
    front.message(1, "leak")
    await front.frames()
    Room.hold.set()
    await steps()
    assert Room.kept == "refused"
    assert await front.said() == []


# -- rooms


async def test_tags_exclude_and_numbers() -> None:
    core = Core(Room)
    front = await opened(core, 1, 2, 3)
    other = await opened(core, 1, name="b")
    front.message(2, "tag red")
    assert await front.said() == [("state", 2, ["red"], None), "['red'] 1 ['uid2']"]
    front.message(3, "tag red")
    await front.frames()
    front.message(1, "red x")
    front.message(1, "others y")
    front.message(1, "all z")
    assert [frame for frame in await front.frames() if frame[0] != "done"] == [
        ["broadcast", [2, 3], "x"],
        ["send", 1, "2"],
        ["broadcast", [2, 3], "y"],
        ["send", 1, "2"],
        ["broadcast", [1, 2, 3], "z"],
    ]
    assert await other.frames() == []


async def test_the_sockets_of_two_fronts_are_one_room() -> None:
    core = Core(Room)
    one, two = await opened(core, 1, 2), await opened(core, 1)
    one.message(1, "all x")
    assert await one.said() == ["x"]
    assert await two.said() == ["x"]
    assert await core.value("a", "count") == 3


async def test_a_socket_that_a_turn_closed_is_counted_and_addressed_no_more() -> None:
    core = Core(Room)
    front = await opened(core, 1, 2)
    front.message(1, "close bye")
    assert await front.frames() == [["close", 1, 4001, "bye"], ["broadcast", [2], "1 left"], ["done", 1, 3]]
    assert await core.value("a", "count") == 1
    front.closed(1, 4001, "bye")
    assert await front.said() == ["left 4001 bye 1"]
    front.message(2, "closeall")
    await front.frames()
    assert await core.value("a", "count") == 0
    front.closed(2)
    await front.frames()
    assert core.dispatcher.hosts["Room"].rooms == {}


async def test_attachments_and_tags_come_back_after_an_eviction_and_with_a_new_worker() -> None:
    core = Core(Room, idle_after=1.0)
    front = await opened(core, 1)
    front.message(1, "keep x")
    front.message(1, "tag red")
    state = (await front.frames())[-3]
    assert state[:3] == ["state", 1, ["red"]]
    for _ in range(4):
        core.sweep()
    assert core.activations() == {}
    front.message(1, "kept")
    seen = "({'text': 'x', 'set': {1, 2}}, ['red'], None, 'uid1')"
    assert await front.said() == [seen]
    successor = Front(Core(Room))
    successor.hold([1, "uid1", "Room", "a", "chat.v2", state[2], state[3]], [2, "uid2", "Room", "a", None, [], None])
    successor.message(1, "kept")
    successor.message(2, "red x")
    assert await successor.said() == [seen.replace("None", "'chat.v2'"), "x", "1"]


async def test_a_close_handler_that_throws_still_takes_the_socket_out() -> None:
    core = Core(Room)
    front = await opened(core, 1, 2)
    front.closed(1, 1000, "fail")
    assert [frame[0] for frame in await front.frames()] == ["done"]
    assert await core.value("a", "count") == 1


async def test_a_front_that_goes_away_ends_its_sockets_with_1006() -> None:
    core = Core(Room)
    one, two = await opened(core, 1, 2), await opened(core, 1)
    one.connection.connection_lost(None)
    assert sorted(await two.said()) == ["left 1006  1", "left 1006  1"]
    assert await core.value("a", "count") == 1


async def test_messages_without_a_handler_are_done_and_a_type_that_is_gone_closes_its_sockets() -> None:
    front = Front(Core(Quiet))
    front.open(1, "a", "Quiet")
    await front.frames()
    seq = front.message(1, "x")
    assert await front.frames() == [["done", 1, seq]]
    front.hold([7, "uid7", "Gone", "a", None, [], None])
    seq = front.message(7, "x")
    end = front.closed(7, 1011)
    assert await front.frames() == [
        ["close", 7, 1011, "actor has no web_socket handler"],
        ["done", 7, seq],
        ["done", 7, end],
    ]


# -- order and the begun map


async def test_events_of_a_room_run_one_at_a_time_in_the_order_in_which_they_came() -> None:
    front = await opened(Core(Room), 1, 2)
    Room.hold = asyncio.Event()
    front.message(1, "wait a")
    front.message(2, "echo b")
    front.message(1, "echo c")
    front.closed(2)
    assert await front.said() == []
    Room.hold.set()
    assert await front.said() == ["waiting", "a", "b", "c", "left 1000  1"]


async def test_the_begun_map_says_how_far_a_socket_has_come() -> None:
    front = await opened(Core(Room), 1)
    begun = memoryview(front.begun)[65_536:].cast("Q")
    Room.hold = asyncio.Event()
    first = front.message(1, "wait a")
    front.message(1, "echo b")
    await steps()
    assert begun[1] == first
    begun.release()
    Room.hold.set()
    await front.frames()


async def test_a_worker_with_too_many_turns_waiting_closes_with_1013() -> None:
    core = Core(Room, worker_queue=3)
    front = await opened(core, 1)
    Room.hold = asyncio.Event()
    front.message(1, "wait a")
    await steps()
    for number in range(4):
        front.message(1, f"echo {number}")
    assert ("close", 1, 1013, "the worker is overloaded") in await front.said()
    Room.hold.set()
    assert await front.said() == ["waiting", "a"]  # the order can't be kept: nothing more of it is handled
    seq = front.closed(1, 1013)
    assert ["done", 1, seq] in await front.frames()
