"""The token bucket: exact, whoever asks at once, and not forgotten by a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.rate_limiter import RateLimiter
from tests.examples.running import EXAMPLES, ONE_WORKER, at_once, changed
from tests.support.fixtures import Serve
from tests.support.harness import Core

PER_TOKEN = RateLimiter.nanoseconds_per_token

STOPPED_CLOCK = """
class Bucket(RateLimiter):
    capacity = 30

    def _now(self):
        return 1_700_000_000_000_000_000
"""


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_700_000_000_123_456_789
        monkeypatch.setattr(RateLimiter, "_now", lambda _: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_a_full_bucket_allows_a_burst_and_then_refuses(clock: Clock) -> None:
    core = Core(RateLimiter)
    for left in (4, 3, 2, 1, 0):
        assert await core.value("ana", "take") == {"allowed": True, "remaining": left, "retry_after": 0}
    assert await core.value("ana", "take") == {"allowed": False, "remaining": 0, "retry_after": PER_TOKEN / 1e9}
    assert (await core.value("bob", "take"))["allowed"]


async def test_a_token_comes_back_at_its_nanosecond_and_not_before(clock: Clock) -> None:
    core = Core(RateLimiter)
    await core.value("ana", "take", 5)
    clock.now += PER_TOKEN - 1
    assert await core.value("ana", "take") == {"allowed": False, "remaining": 0, "retry_after": 1e-9}
    clock.now += 1
    assert (await core.value("ana", "take"))["allowed"]
    assert not (await core.value("ana", "take"))["allowed"]


async def test_what_has_begun_to_fill_up_is_not_lost_by_asking(clock: Clock) -> None:
    core = Core(RateLimiter)
    await core.value("ana", "take", 5)
    for _ in range(7):  # asked three times a token
        clock.now += PER_TOKEN // 3 + 1
        await core.value("ana", "take", 5)
    assert await core.value("ana", "remaining") == 2
    await core.value("ana", "take", 2)
    clock.now += 2 * PER_TOKEN // 3
    assert await core.value("ana", "remaining") == 1


async def test_waiting_as_long_as_told_is_enough(clock: Clock) -> None:
    core = Core(RateLimiter)
    await core.value("ana", "take", 4)
    clock.now += PER_TOKEN // 5
    refused = await core.value("ana", "take", 3)
    clock.now += round(refused["retry_after"] * 1e9)
    assert (await core.value("ana", "take", 3))["allowed"]


async def test_a_bucket_never_holds_more_than_its_capacity(clock: Clock) -> None:
    core = Core(RateLimiter)
    await core.value("ana", "take")
    clock.now += 1000 * PER_TOKEN
    assert await core.value("ana", "remaining") == 5
    refused = await core.call("ana", "take", 6)
    assert (refused.status, refused.value["code"]) == (400, "never")


async def test_a_clock_that_is_set_back_gives_and_takes_nothing(clock: Clock) -> None:
    core = Core(RateLimiter)
    await core.value("ana", "take", 3)
    clock.now -= 3600 * 1_000_000_000
    assert await core.value("ana", "take", 2) == {"allowed": True, "remaining": 0, "retry_after": 0}


async def test_a_refusal_commits_nothing(clock: Clock) -> None:
    core = Core(RateLimiter)
    await core.value("ana", "take", 5)
    commits = core.store.commit_seq
    for _ in range(10):
        assert not (await core.value("ana", "take"))["allowed"]
    assert core.store.commit_seq == commits


def test_exactly_the_capacity_is_allowed_to_a_hundred_clients_at_once(serve: Serve, tmp_path: Path) -> None:
    program, environment = changed(tmp_path, "rate_limiter", STOPPED_CLOCK)
    server = serve(program, settings=ONE_WORKER, environment=environment)
    replies = at_once(server.port, 100, "Bucket", "ana", "take", calls=2)
    assert [reply.status for reply in replies] == [200] * 200
    allowed = [reply.json() for reply in replies if reply.json()["allowed"]]
    assert sorted(decision["remaining"] for decision in allowed) == list(range(30))
    server.kill()
    server.start()
    assert server.result("Bucket", "ana", "remaining") == 0, "a restart must not fill the bucket"


def test_the_front_door_answers_429_and_when_to_come_back(serve: Serve) -> None:
    server = serve(EXAMPLES / "rate_limiter.py", settings=ONE_WORKER)
    replies = [server.request("GET", "/clients/ana/report") for _ in range(6)]
    assert [reply.status for reply in replies] == [200] * 5 + [429]
    assert [reply.json().get("remaining") for reply in replies] == [4, 3, 2, 1, 0, None]
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 11
    assert server.request("GET", "/clients/bob/report").status == 200
    assert server.request("GET", "/elsewhere").status == 404
