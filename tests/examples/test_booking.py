"""Holds end by themselves, all of them on one alarm, also over a restart."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from actord import ActorError

from examples.booking import SLOTS, Schedule
from tests.examples.running import EXAMPLES, ONE_WORKER, Alone
from tests.support.server import Server, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(EXAMPLES / "booking.py", tmp_path_factory.mktemp("booking"), settings=ONE_WORKER) as server:
        yield server


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Alone:
    return Alone(Schedule, monkeypatch)


def test_a_hold_lasts_until_its_very_end(room: Alone) -> None:
    held = room.do(room.actor.hold("09:00", "ana"))
    assert held == {"customer": "ana", "until": room.now + timedelta(minutes=5)}
    room.advance(seconds=299.999)
    assert room.do(room.actor.free()) == list(SLOTS[1:])
    assert room.advance(seconds=0.001) == 1
    assert room.do(room.actor.free()) == list(SLOTS)


def test_one_alarm_rings_for_each_hold_in_its_turn(room: Alone) -> None:
    for seconds, slot in ((30, "09:00"), (10, "10:00"), (20, "11:00"), (20, "12:00")):
        room.do(room.actor.hold(slot, "ana", seconds))
    assert room.rings == room.now + timedelta(seconds=10)
    taken = []
    for _ in range(3):
        assert room.advance(seconds=10) == 1
        taken.append(sorted(room.do(room.actor.reservations())))
    assert taken == [["09:00", "11:00", "12:00"], ["09:00"], []]
    assert room.rings is None


def test_what_is_booked_or_released_needs_no_alarm(room: Alone) -> None:
    room.do(room.actor.hold("09:00", "ana"))
    room.do(room.actor.hold("10:00", "bob"))
    assert room.do(room.actor.confirm("09:00", "ana")) == {"customer": "ana", "until": None}
    assert room.do(room.actor.release("10:00", "bob"))
    assert room.rings is None
    assert room.advance(days=1) == 0
    assert room.do(room.actor.free()) == list(SLOTS[1:])


def test_a_slot_is_its_customers_alone(room: Alone) -> None:
    held = room.do(room.actor.hold("09:00", "ana"))
    room.advance(seconds=60)
    assert room.do(room.actor.hold("09:00", "ana", 900)) == held, "asking again must not lengthen a hold"
    with pytest.raises(ActorError) as taken:
        room.do(room.actor.hold("09:00", "bob"))
    assert (taken.value.code, taken.value.data) == ("taken", {"until": held["until"]})
    with pytest.raises(ActorError, match="bob does not hold 09:00"):
        room.do(room.actor.confirm("09:00", "bob"))
    assert not room.do(room.actor.release("09:00", "bob"))
    with pytest.raises(ActorError, match="there is no slot '09:30'"):
        room.do(room.actor.hold("09:30", "bob"))


def test_a_hold_that_is_over_counts_no_more_when_the_alarm_is_late(room: Alone) -> None:
    room.do(room.actor.hold("09:00", "ana"))
    room.now += timedelta(minutes=5)  # and the alarm has not rung
    with pytest.raises(ActorError, match="ana does not hold"):
        room.do(room.actor.confirm("09:00", "ana"))
    assert room.do(room.actor.hold("09:00", "bob"))["customer"] == "bob"


def test_of_many_customers_who_want_a_slot_one_gets_it(server: Server) -> None:
    place = ("Schedule", "room-1@2026-01-31")
    customers = [f"customer {i}" for i in range(20)]
    with ThreadPoolExecutor(len(customers)) as pool:
        replies = list(pool.map(lambda customer: server.call(*place, "hold", "09:00", customer), customers))
    assert sorted(reply.status for reply in replies) == [200] + [409] * 19
    assert list(server.result(*place, "reservations")) == ["09:00"]


def test_holds_end_by_themselves_and_what_is_booked_stays(server: Server) -> None:
    place = ("Schedule", "room-2@2026-01-31")
    for slot, seconds in (("09:00", 0.2), ("10:00", 0.1), ("11:00", 900), ("12:00", 0.3)):
        server.result(*place, "hold", slot, "ana", seconds)
    server.result(*place, "confirm", "11:00", "ana")
    # Reading frees nothing: it is the alarm that does.
    until(lambda: list(server.result(*place, "reservations")) == ["11:00"], "the holds to end")
    assert server.result(*place, "reservations") == {"11:00": {"customer": "ana", "until": None}}


def test_a_hold_ends_also_when_the_server_was_killed_before(server: Server) -> None:
    for name in ("down", "up"):
        server.result("Schedule", name, "confirm", *held(server, name, "11:00", 900))
    held(server, "down", "09:00", 0.1)  # over while nobody is there
    held(server, "up", "09:00", 1)
    server.kill()
    server.start()
    until(lambda: list(server.result("Schedule", "down", "reservations")) == ["11:00"], "the hold to end")
    until(lambda: list(server.result("Schedule", "up", "reservations")) == ["11:00"], "the hold to end")


def held(server: Server, name: str, slot: str, seconds: float) -> tuple[str, str]:
    server.result("Schedule", name, "hold", slot, "ana", seconds)
    return slot, "ana"
