"""State that changes its shape: upgrades run once, in order, before anything else, and commit with their number."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from actord import ActorError, StatefulActor, upgrade
from actord.actor import public_functions, type_name
from actord.errors import StoreFull
from actord.shards.registry import ActorType, ProgramError
from actord.storage.sqlite import SqliteStore

from tests.support.harness import Core
from tests.support.memory_store import MemoryStore


class Account(StatefulActor):
    """The first version: a whole number of euros."""

    async def deposit(self, amount: int) -> None:
        await self.ctx.storage.put("euros", await self.ctx.storage.get("euros", 0) + amount)

    async def show(self) -> Any:
        return dict(await self.ctx.storage.list())


class Third(StatefulActor):
    """The third: cents, and a currency."""

    type = "Account"
    version = 3
    ran: ClassVar[list[str]] = []
    fails = False

    @upgrade(3)
    async def add_currency(self) -> None:
        Third.ran.append("3")
        await self.ctx.storage.put("currency", "EUR")
        if Third.fails:
            raise ActorError("not today")

    @upgrade(2)
    async def to_cents(self) -> None:
        Third.ran.append("2")
        euros = await self.ctx.storage.get("euros", 0)
        await self.ctx.storage.delete("euros")
        await self.ctx.storage.put("cents", euros * 100)

    async def on_activate(self) -> None:
        Third.ran.append("on_activate")

    async def show(self) -> Any:
        return dict(await self.ctx.storage.list())

    async def clear(self) -> None:
        await self.ctx.storage.delete_all()


@pytest.fixture(autouse=True)
def fresh() -> None:
    Third.ran, Third.fails = [], False


async def old(store: Any) -> None:
    core = Core(Account, store=store)
    await core.call("alice", "deposit", 5)
    await core.call("bob", "deposit", 7)


async def test_upgrades_run_once_in_order_before_on_activate_and_commit_with_the_first_call() -> None:
    store = MemoryStore()
    await old(store)
    commits = store.commit_seq
    core = Core(Third, store=store)
    assert (await core.call("alice", "show")).value == {"cents": 500, "currency": "EUR"}
    assert Third.ran == ["2", "3", "on_activate"]
    assert store.commit_seq == commits + 1
    assert store.newest_versions(after=0, limit=9) == ({"Account": 3}, 0)
    assert store.older_actors("Account", 3, after=0, limit=9) == [(2, "bob")]
    core = Core(Third, store=store)
    assert (await core.call("alice", "show")).value == {"cents": 500, "currency": "EUR"}
    assert Third.ran == ["2", "3", "on_activate", "on_activate"]


async def test_an_actor_without_data_begins_with_the_version_of_its_class() -> None:
    store = MemoryStore()
    core = Core(Third, store=store)
    assert (await core.call("carol", "show")).value == {}
    assert store.commit_seq == 0
    await core.call("carol", "clear")
    core = Core(Third, store=store)
    await core.call("carol", "show")
    assert Third.ran == ["on_activate", "on_activate"]


async def test_an_upgrade_that_raises_keeps_nothing_and_is_tried_again() -> None:
    store = MemoryStore()
    await old(store)
    core = Core(Third, store=store)
    Third.fails = True
    answer = await core.call("alice", "show")
    assert (answer.status, answer.applied) == (400, "no")
    assert store.rows[1].keys() == {"euros"}
    Third.fails = False
    assert (await core.call("alice", "show")).value == {"cents": 500, "currency": "EUR"}
    assert Third.ran == ["2", "3", "2", "3", "on_activate"]


async def test_what_a_full_disk_took_back_is_upgraded_again() -> None:
    store = MemoryStore()
    await old(store)
    core = Core(Third, store=store)
    store.fail_write.append(StoreFull("full"))
    assert (await core.call("alice", "show")).status == 507
    assert (await core.call("alice", "show")).value == {"cents": 500, "currency": "EUR"}
    assert store.newest_versions(after=0, limit=9) == ({"Account": 3}, 0)


async def test_data_of_a_later_version_are_refused_and_left_alone() -> None:
    store = MemoryStore()
    await old(store)
    await Core(Third, store=store).call("alice", "show")

    class Second(StatefulActor):
        type = "Account"
        version = 2

        @upgrade(2)
        async def to_cents(self) -> None:
            raise AssertionError

        async def show(self) -> Any:
            return dict(await self.ctx.storage.list())

    answer = await Core(Second, store=store).call("alice", "show")
    assert (answer.status, answer.applied) == (500, "no")
    assert "have version 3" in answer.detail
    assert "newer program" in answer.detail


async def test_data_whose_upgrade_is_gone_are_refused_and_left_alone() -> None:
    store = MemoryStore()
    await old(store)

    class Late(StatefulActor):
        type = "Account"
        version = 3

        @upgrade(3)
        async def add_currency(self) -> None:
            raise AssertionError

        async def show(self) -> Any:
            return dict(await self.ctx.storage.list())

    answer = await Core(Late, store=store).call("alice", "show")
    assert (answer.status, answer.applied) == (500, "no")
    assert "no upgrade to 2 any more" in answer.detail


async def test_versions_are_in_the_store_after_a_restart(tmp_path: Any) -> None:
    def opened() -> SqliteStore:
        return SqliteStore.open(
            str(tmp_path / "0.db"), shard=0, identity="x", slots=range(1024), checkpoint_wal=1 << 22, page_cache=1 << 20
        )

    store = opened()
    await old(store)
    await Core(Third, store=store).call("alice", "show")
    store.close()
    store = opened()
    assert (store.read_version(1), store.read_version(2), store.newest_versions(after=0, limit=1)) == (
        3,
        1,
        ({"Account": 3}, 1),
    )
    assert store.older_actors("Account", 3, after=0, limit=9) == [(2, "bob")]
    assert (await Core(Third, store=store).call("bob", "show")).value == {"cents": 700, "currency": "EUR"}
    store.close()


def test_an_upgrade_is_no_method_for_callers_and_a_renamed_class_keeps_its_type() -> None:
    assert set(public_functions(Third)) == {"show", "clear"}
    assert (type_name(Third), type_name(Account)) == ("Account", "Account")

    class Heir(Third):
        pass

    assert type_name(Heir) == "Heir"


def _class(**members: Any) -> type[StatefulActor]:
    return type("Some", (StatefulActor,), members)


@upgrade(2)
async def second(self: Any) -> None: ...


@upgrade(4)
async def fourth(self: Any) -> None: ...


@upgrade(2)
def plain(self: Any) -> None: ...


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"version": 2}, "no `@upgrade(2)`"),
        ({"version": 0}, "at least 1"),
        ({"version": 3, "second": second}, "one for each version up to 3"),
        ({"version": 4, "second": second, "fourth": fourth}, "one for each version"),
        ({"version": 1, "second": second}, "version 1 and upgrades to 2"),
        ({"version": 2, "second": second, "other": upgrade(2)(fourth.__class__(fourth.__code__, {}))}, "two upgrades"),
        ({"version": 2, "plain": plain}, "async def plain(self)"),
    ],
)
def test_versions_without_their_upgrades_are_refused_when_the_program_is_loaded(
    members: dict[str, Any], says: str
) -> None:
    with pytest.raises(ProgramError) as refused:
        ActorType(_class(**members), "SOME")
    assert says in str(refused.value)


def test_an_upgrade_leads_to_version_two_or_later() -> None:
    with pytest.raises(ValueError, match="version 2 or later"):
        upgrade(1)
