"""Read-modify-write across awaits stays correct for each key, whatever order the worker gets to things in."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from actord import ActorError, StatefulActor

from tests.support.harness import Core


class Counter(StatefulActor):
    dice: random.Random
    inside: set[str]

    async def pause(self) -> None:
        """Let others run: no step, several steps, or a while."""
        kind = self.dice.random()
        if kind < 0.3:
            return
        if kind < 0.8:
            for _ in range(self.dice.randrange(1, 5)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(self.dice.random())

    async def add(self, n: int, fail: bool) -> list[int]:
        assert self.ctx.id not in self.inside, "two turns of one key at once"
        self.inside.add(self.ctx.id)
        try:
            await self.pause()
            before = await self.ctx.storage.get("n", 0)
            await self.pause()
            await self.ctx.storage.put("n", before + n)
            await self.pause()
            if fail:
                raise ActorError("on purpose")
            return [before, before + n]
        finally:
            self.inside.discard(self.ctx.id)

    async def total(self) -> Any:
        return await self.ctx.storage.get("n", 0)


@pytest.mark.parametrize("seed", range(25))
async def test_read_modify_write_across_awaits_is_correct_per_key(seed: int) -> None:
    dice = Counter.dice = random.Random(seed)
    Counter.inside = set()
    core = Core(Counter, idle_after=1)
    loop = asyncio.get_running_loop()

    class Slow:
        """Fsyncs that take a random while, or none at all."""

        waiting = core.flusher.waiting
        here = False

        def submit(self, store: Any, done: Any) -> None:
            self.waiting.append((store, done))
            here, self.here = self.here, len(self.waiting) == 1 and dice.random() < 0.3
            if here:
                core.flusher.fsync()
            else:
                loop.call_later(dice.random() * 0.2, core.flusher.fsync)

    core.shard.committer._flusher = Slow()
    keys = [f"k{i}" for i in range(5)]
    calls: dict[str, list[Any]] = {key: [] for key in keys}
    for _ in range(200):
        key, n, fail = dice.choice(keys), dice.randrange(1, 100), dice.random() < 0.2
        calls[key].append((core.call(key, "add", n, fail), n, fail))
        if dice.random() < 0.3:
            await asyncio.sleep(dice.random() * 0.5)
        if dice.random() < 0.1:
            core.sweep()  # instances come and go meanwhile
    for key in keys:
        expected = 0
        for call, n, fail in calls[key]:
            answer = await call
            if fail:
                assert answer.status == 400
            else:
                assert answer.value == [expected, expected + n]
                expected += n
        assert await core.value(key, "total") == expected
