"""One seed: clients, a worker's core, its disk, crashes; and the model that all answers and the disk are held against.

Per key, after everything has come to rest:

1. Turns ran one at a time and began in the order in which their calls were sent.
2. Every call was answered exactly once, or was lost with its worker.
3. When a reply left, all that its turn wrote and saw was on the disk.
4. What was acknowledged is there once, with the place in the order that the reply said; ``applied: no`` is absent, and
   so are calls that had not begun when their worker died; ``unknown`` is only said by a worker that ends.
5. The places are 1, 2, 3 … without a gap: nothing was done twice, lost or overwritten.
6. Alarms fire what is armed, never early, and nothing stays armed; SQL rows agree with the keys; undone blocks left
   nothing.
7. It comes to rest: nothing waits for ever.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from actord import codec
from actord.shards import alarm as wall

from tests.simulation.actors import Leaving, Plan, Sim
from tests.simulation.disk import Faults, SimFlusher, SimStore
from tests.simulation.loop import SeededLoop
from tests.support import harness
from tests.support.harness import Caller, Core
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import Deadlock

OPERATIONS = 60
NAMES = ("a", "b", "c")
TYPES = ("Sim", "Leaving")
CALL_TIMEOUT = 2.0
PATIENCE = 600.0  # virtual seconds for everything to come to rest
_LAST_WORDS = 0.1

Key = tuple[str, str]


class Op:
    __slots__ = ("answer", "key", "number", "plan")

    def __init__(self, number: int, key: Key, plan: Plan) -> None:
        self.number = number
        self.key = key
        self.plan = plan
        self.answer = ""  # yes, no, unknown


class CheckedCaller(Caller):
    """Holds each reply against the disk at the moment at which it leaves."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.ops: dict[int, Op] = {}

    def flush(self) -> None:
        for id_, answer in self._out:
            op = self.ops.pop(id_, None)
            if op is None:
                self._world.violation(f"call {id_} is answered twice")
                continue
            self._world.answered(op, answer)
        super().flush()


class World:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.violations: list[str] = []
        self.ops: dict[int, Op] = {}
        self.disk = MemoryStore()
        self.dead = True
        self.answered_calls = 0
        self.crashes = 0
        self.alarm_failures: dict[int, int] = {}
        self._now = 1000.0
        self._sent = 0
        self._due = 0

    # -- what the actors report

    def violation(self, what: str) -> None:
        if not self.dead:
            self.violations.append(what)

    def begin(self, actor: Sim, number: int) -> Plan:
        op = self.ops[number]
        if not self.dead:
            self._enter(op.key, actor)
            if number < self._last_begun.get(op.key, 0):
                self.violation(f"{op.key}: call {number} began after call {self._last_begun[op.key]}")
            self._last_begun[op.key] = number
        return op.plan

    def begin_alarm(self, actor: Sim, scheduled: int) -> None:
        if not self.dead:
            self._enter((actor.ctx.type, actor.ctx.id), actor)
            if wall.wall_ms() < scheduled:
                self.violation(f"{actor.ctx.id}: the alarm of {scheduled} is early")

    def _enter(self, key: Key, actor: Sim) -> None:
        turn = harness_turn()
        inside = self._inside.get(key)
        if inside is not None and not inside[1].over:
            self.violation(f"{key}: two turns at once")
        self._inside[key] = (actor, turn)

    def end(self, actor: Sim) -> None:
        found = self._inside.get((actor.ctx.type, actor.ctx.id)) if not self.dead else None
        if found is not None and found[1] is harness_turn():
            del self._inside[actor.ctx.type, actor.ctx.id]

    def alarm_fails(self, scheduled: int) -> bool:
        if self.dead or not self.faults.on or self.dice.random() > 0.25:
            return False
        self.alarm_failures[scheduled] = count = self.alarm_failures.get(scheduled, 0) + 1
        return count <= 2

    def answered(self, op: Op, answer: Any) -> None:
        self.answered_calls += 1
        if op.answer:
            self.violation(f"call {op.number} is answered again")
        if answer.status == 200:
            op.answer = "yes"
            before, after = answer.value
            rows = self._rows_on_disk(op.key)
            on_disk = rows.get("n", 0)
            if on_disk < after:
                self.violation(f"{op.key}: the reply of call {op.number} says {after}, the disk {on_disk}")
            if not op.plan.read and rows.get(f"op/{op.number}", [0])[0] != before + 1:
                self.violation(f"{op.key}: the reply of call {op.number} left before its write was durable")
            return
        op.answer = answer.applied
        if op.answer == "unknown" and self.core.shard.committer.broken is None:
            self.violation(f"{op.key}: a healthy worker said unknown: {answer}")

    def _rows_on_disk(self, key: Key) -> dict[str, Any]:
        for (_, type_, name), actor in self.disk.actors.items():
            if (type_, name) == key:
                return {k: codec.decode(raw) for k, raw in self.disk.rows.get(actor, {}).items()}
        return {}

    # -- life

    def run(self) -> None:
        """Play the seed to its end; ``violations`` says what was wrong."""
        lives = random.Random(f"{self.seed} lives").choice((1, 1, 2, 3))
        at_rest = False
        for life in range(lives):
            at_rest = self._live(life, last=life == lives - 1)
            if self.violations:
                return
        if not at_rest:  # the last worker has failed: one more, without faults and new calls
            self._live(lives, last=True, faults=False)
        if not self.violations:
            self._audit()

    def _live(self, life: int, *, last: bool, faults: bool = True) -> bool:
        """One worker from its start to its crash, or until everything is at rest: then True."""
        self.dice = random.Random(f"{self.seed} {life}")
        self.faults = Faults(random.Random(f"{self.seed} {life} faults"))
        self.faults.on = faults
        self._inside: dict[Key, tuple[Sim, Any]] = {}
        self._last_begun: dict[Key, int] = {}
        loop = SeededLoop(random.Random(f"{self.seed} {life} order"), self._now)
        Sim.world = self
        self.dead = False
        loop.set_exception_handler(self._on_loop_error)
        try:
            asyncio.set_event_loop(loop)
            return loop.run_until_complete(self._main(last))
        except Deadlock:
            self.violation("everybody waits and no timer is set")
            return False
        finally:
            self._end(loop)

    def _on_loop_error(self, _loop: Any, context: dict[str, Any]) -> None:
        if "handle" in context:
            self.violation(f"a callback failed: {context.get('exception')!r}")

    async def _main(self, last: bool) -> bool:
        dice = self.dice
        store = SimStore(self.disk, self.faults)
        core = self.core = Core(
            Sim,
            Leaving,
            store=store,
            call_timeout=CALL_TIMEOUT,
            init_timeout=CALL_TIMEOUT,
            memory_target=1 << 20,
        )
        core.shard.committer._flusher = SimFlusher(self.faults)
        core.runner.on_bug = lambda bug: self.violation(f"the runner failed: {bug!r}")
        self.caller = CheckedCaller(self)
        core.alarms.start()
        operations = (OPERATIONS if last else dice.randrange(1, OPERATIONS)) if self.faults.on else 0
        pace = dice.choice((0.0, 0.02, 0.2))
        for _ in range(operations):
            self._send()
            chance = dice.random()
            if chance < 0.5:
                await asyncio.sleep(pace * dice.random())
            if chance < 0.15:
                core.resident = dice.choice((0, 1 << 30))
                core.sweep()
            elif chance < 0.2 and self.caller.calls:
                self.caller.calls[dice.choice(list(self.caller.calls))].cancelled = True
            elif chance < 0.21:
                for call in self.caller.calls.values():
                    call.cancelled = True
            if core.broken:
                break
        if core.broken or not last:
            await asyncio.sleep(_LAST_WORDS if core.broken else 0.3 * dice.random())
            self._crash()
            return False
        return await self._come_to_rest()

    def _send(self) -> None:
        dice = self.dice
        self._sent += 1
        key = (dice.choice(TYPES) if dice.random() < 0.5 else TYPES[0], dice.choice(NAMES))
        alarm = None
        if dice.random() < 0.25:
            self._due += 1  # no two the same
            due = wall.wall_ms() + int(dice.choice((-500, 300, 3_000, 20_000)) * dice.random())
            alarm = 0 if dice.random() < 0.2 else (due // 1000) * 1000 + self._due % 1000
        plan = Plan(
            read=dice.random() < 0.25,
            fail=dice.random() < 0.12,
            sql=dice.random() < 0.15,
            nested=dice.random() < 0.1,
            alarm=alarm,
            sleeps=tuple(dice.choice((-1.0, -1.0, 0.0, dice.random() * 0.3, 4.0 * dice.random() ** 6)) for _ in "1234"),
            swallow=dice.random() < 0.3,
            block=dice.choice((0.0, 0.0, 0.0, 0.0, 0.0, 0.01, 3.0)) if dice.random() < 0.1 else 0.0,
        )
        op = self.ops[self._sent] = Op(self._sent, key, plan)
        self.caller.ops[self.caller._last + 1] = op
        within = dice.choice((60.0,) * 10 + (1.0, 0.0))
        self.core.send(key[1], "op", b"[%d]" % op.number, type_=key[0], within=within, caller=self.caller)

    def _crash(self) -> None:
        """The worker is gone, and the machine with it."""
        self.crashes += 1
        for id_, op in self.caller.ops.items():
            op.answer = "unknown" if self.caller.begun[id_] else "no"
        self.caller.ops.clear()
        self.core.store.crash(self.dice)
        self.dead = True  # what still runs in this iteration of the loop never did

    async def _come_to_rest(self) -> bool:
        self.faults.on = False
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        core = self.core
        while self.caller.ops or core.store.alarms or core.alarms.running or not core.shard.committer.idle:
            if core.broken:
                self._crash()
                return False
            if loop.time() > end:
                open_calls = [op.number for op in self.caller.ops.values()]
                self.violation(f"never at rest: calls {open_calls}, alarms {core.store.alarms}")
                return False
            core.sweep()
            await asyncio.sleep(1.0)
        return True

    def _end(self, loop: SeededLoop) -> None:
        self.dead = True
        self._now = loop.time()
        for core in harness._cores:
            core.alarms.stop()
            core.runner.stop()
        harness._cores.clear()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=10))
        asyncio.set_event_loop(None)
        loop.close()

    # -- the model

    def _audit(self) -> None:
        self.dead = False
        for key in sorted({op.key for op in self.ops.values()}):
            self._audit_key(key)
        self.dead = True

    def _audit_key(self, key: Key) -> None:
        rows = self._rows_on_disk(key)
        ops = [op for op in self.ops.values() if op.key == key]
        events: dict[int, tuple[str, int | None]] = {}  # place -> what happened there
        for op in ops:
            row = rows.get(f"op/{op.number}")
            if op.answer == "":
                self.violation(f"{key}: call {op.number} was never answered")
            elif row is None and op.answer == "yes" and not op.plan.read:
                self.violation(f"{key}: call {op.number} was acknowledged and is lost")
            elif row is not None and op.answer == "no":
                self.violation(f"{key}: call {op.number} was not applied, and is there")
            if row is not None:
                if row[0] in events:
                    self.violation(f"{key}: place {row[0]} is taken twice")
                events[row[0]] = ("set", row[1])
        for name, value in rows.items():
            if name.startswith("fired/"):
                place = int(name.removeprefix("fired/"))
                if place in events:
                    self.violation(f"{key}: place {place} is taken twice")
                events[place] = ("fired", value)
            elif name in ("junk", "late"):
                self.violation(f"{key}: {name} was kept")
        if sorted(events) != list(range(1, rows.get("n", 0) + 1)):
            self.violation(f"{key}: the places are {sorted(events)}, n is {rows.get('n', 0)}")
        armed: int | None = None
        for place in sorted(events):
            what, value = events[place]
            if what == "fired":
                if value != armed:
                    self.violation(f"{key}: at {place} the alarm {value} fired while {armed} was armed")
                armed = None
            elif value is not None:
                armed = value or None
        if armed is not None:
            self.violation(f"{key}: the alarm of {armed} never fired")


def harness_turn() -> Any:
    from actord.shards.call import current_turn

    return current_turn.get()
