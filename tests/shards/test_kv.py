"""``ctx.storage``: copies, limits, named errors, and what a failing call leaves behind: nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from actord import CodecError, StatefulActor, Storage, TurnEnded
from actord.limits import VALUE_BYTES

from tests.sdk.codec_values import EVERY_TYPE, same
from tests.support.harness import Core

Job = Callable[[Storage], Awaitable[Any]]


class Box(StatefulActor):
    """Runs whatever the test puts into ``job`` as its turn."""

    job: Job
    result: Any

    async def run(self) -> None:
        Box.result = await type(self).job(self.ctx.storage)


async def run(core: Core, job: Job, name: str = "a") -> Any:
    """What ``job`` returns, run as a turn of that instance."""
    Box.job = staticmethod(job)  # type: ignore[assignment]
    answer = await core.call(name, "run")
    assert answer.status == 200, answer
    return Box.result


async def content(core: Core, name: str = "a") -> dict[str, Any]:
    return await run(core, lambda storage: storage.list(limit=1000), name)  # type: ignore[no-any-return]


async def test_read_your_writes_within_a_turn(store: Any) -> None:
    core = Core(Box, store=store)

    async def setup(storage: Storage) -> None:
        await storage.put_many({"a": 1, "b": 2, "c": 3})

    async def job(storage: Storage) -> list[Any]:
        await storage.put("b", 20)
        found = [await storage.get("b"), await storage.delete("a"), await storage.get("a", "gone")]
        found.append(await storage.list())
        await storage.delete_all()
        found += [await storage.get("b"), await storage.list(), await storage.delete("c")]
        await storage.put("d", 4)
        found += [await storage.get_many(["a", "b", "d"]), await storage.list()]
        return found

    await run(core, setup)
    assert await run(core, job) == [20, True, "gone", {"b": 20, "c": 3}, None, {}, False, {"d": 4}, {"d": 4}]
    assert await content(core) == {"d": 4}
    core.activation("a").kv.forget()
    assert await content(core) == {"d": 4}


async def test_what_get_returns_is_the_callers_own_copy(store: Any) -> None:
    core = Core(Box, store=store)

    async def job(storage: Storage) -> Any:
        value = {"items": [1, 2]}
        await storage.put("v", value)
        value["items"].append(3)
        for read in (await storage.get("v"), (await storage.list())["v"], (await storage.get_many(["v"]))["v"]):
            read["items"].clear()
        return await storage.get("v")

    assert await run(core, job) == {"items": [1, 2]}
    assert await content(core) == {"v": {"items": [1, 2]}}


async def test_every_type_comes_back_equal_and_of_the_same_type(store: Any) -> None:
    core = Core(Box, store=store)
    values = {f"k{i:03}": value for i, value in enumerate(EVERY_TYPE)}

    async def put(storage: Storage) -> None:
        for key, value in values.items():
            await storage.put(key, value)

    await run(core, put)
    for _ in range(2):
        assert same(await content(core), values)
        core.activation("a").kv.forget()


async def test_get_of_none_is_not_get_of_nothing() -> None:
    core = Core(Box)

    async def job(storage: Storage) -> Any:
        await storage.put("none", None)
        return await storage.get("none", 1), await storage.get("nothing", 1), await storage.delete("none")

    assert await run(core, job) == (None, 1, True)


async def test_many_forms_keep_the_order_asked_for_and_count_what_was_there() -> None:
    core = Core(Box)

    async def job(storage: Storage) -> Any:
        await storage.put_many({"a": 1, "b": 2, "c": 3})
        found = await storage.get_many(["c", "x", "a"])
        return list(found.items()), await storage.delete_many(["a", "a", "x", "b"]), await storage.list()

    assert await run(core, job) == ([("c", 3), ("a", 1)], 2, {"c": 3})


bad_keys: list[tuple[Any, type[Exception], str]] = [
    ("", ValueError, "1 to 2048 bytes"),
    ("x" * 2049, ValueError, "this one has 2049"),
    ("é" * 1025, ValueError, "this one has 2050"),
    ("__actord_x", ValueError, "reserved"),
    ("\ud800", ValueError, "lone surrogate"),
    (5, TypeError, "must be a str, not int"),
    (b"k", TypeError, "must be a str, not bytes"),
    (None, TypeError, "must be a str, not NoneType"),
]


@pytest.mark.parametrize(("key", "kind", "words"), bad_keys)
async def test_a_bad_key_is_refused_by_name_and_leaves_nothing_behind(key: Any, kind: Any, words: str) -> None:
    core = Core(Box)

    async def job(storage: Storage) -> None:
        for attempt in (
            lambda: storage.get(key),
            lambda: storage.put(key, 1),
            lambda: storage.delete(key),
            lambda: storage.get_many(["ok", key]),
            lambda: storage.put_many({"ok": 1, key: 2}),
            lambda: storage.delete_many(["there", key]),
        ):
            with pytest.raises(kind, match=words):
                await attempt()

    async def setup(storage: Storage) -> None:
        await storage.put("there", 1)

    await run(core, setup)
    await run(core, job)
    assert await content(core) == {"there": 1}


async def test_keys_at_the_limit_and_odd_ones_are_fine(store: Any) -> None:
    core = Core(Box, store=store)
    keys = [
        "x" * 2048,
        "é" * 1024,
        "\0",
        "a\0b",
        " ",
        "__actor",
        "\U0001f600",
        "\uffff",
        "\U00010000",
        "日本",
        "%",
        "'\"",
    ]

    async def job(storage: Storage) -> None:
        for key in keys:
            await storage.put(key, key)

    await run(core, job)
    core.activation("a").kv.forget()
    found = await content(core)
    assert list(found) == sorted(keys, key=str.encode)
    assert all(key == value for key, value in found.items())


async def test_a_value_over_two_mib_is_refused_and_one_at_the_limit_is_not(store: Any) -> None:
    core = Core(Box, store=store)

    async def job(storage: Storage) -> None:
        await storage.put("fits", b"x" * (VALUE_BYTES - 5))
        with pytest.raises(CodecError, match=r"'big'.*2097153 bytes.*2097152"):
            await storage.put("big", b"x" * (VALUE_BYTES - 4))
        with pytest.raises(CodecError):
            await storage.put_many({"small": 1, "big": b"x" * VALUE_BYTES})

    await run(core, job)
    core.activation("a").kv.forget()
    assert list(await content(core)) == ["fits"]


class Custom:
    pass


cycle: list[Any] = []
cycle.append(cycle)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"items": [1, 2, 3, {"owner": Custom()}]}, r"\$\.items\[3\]\.owner"),
        ({"a b": {1: Custom()}}, r'\$\["a b"\]\[1\]'),
        (Custom(), r"\$"),
        (cycle, r"\$\[0\]"),
        ([{"x": "\ud800"}], r"\$\[0\]\.x"),
    ],
)
async def test_an_unstorable_value_is_refused_with_its_path_and_put_many_is_all_or_nothing(
    value: Any, path: str
) -> None:
    core = Core(Box)

    async def job(storage: Storage) -> None:
        with pytest.raises(CodecError, match=path):
            await storage.put("v", value)
        with pytest.raises(CodecError, match=path):
            await storage.put_many({"first": 1, "v": value, "last": 2})

    await run(core, job)
    assert await content(core) == {}
    assert core.store.commit_seq == 0


@pytest.mark.parametrize("limit", [0, -1, 1001, True, 5.0, "5", None])
async def test_a_bad_limit_is_refused_and_not_clamped(limit: Any) -> None:
    core = Core(Box)

    async def job(storage: Storage) -> None:
        with pytest.raises(ValueError, match="1 to 1000"):
            await storage.list(limit=limit)

    await run(core, job)


@pytest.mark.parametrize("bound", ["prefix", "start", "start_after", "end"])
async def test_a_bound_that_is_no_text_is_refused_whatever_is_stored(bound: str, store: Any) -> None:
    core = Core(Box, store=store)

    async def job(storage: Storage) -> None:
        with pytest.raises(TypeError, match=bound):
            await storage.list(**{bound: 5})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"{bound}.*surrogate"):
            await storage.list(**{bound: "a\ud800"})  # type: ignore[arg-type]

    async def fill(storage: Storage) -> None:
        await storage.put_many({f"k{i}": i for i in range(200)})

    await run(core, job)
    await run(core, fill)
    await run(core, job)
    core.activation("a").kv.forget()
    await run(core, job)


async def test_start_and_start_after_exclude_each_other_and_several_keys_are_no_str() -> None:
    core = Core(Box)

    async def job(storage: Storage) -> None:
        with pytest.raises(ValueError, match="start or start_after"):
            await storage.list(start="a", start_after="a")
        for several in (storage.get_many, storage.delete_many):
            with pytest.raises(TypeError, match="several keys"):
                await several("abc")

    await run(core, job)


async def test_list_has_a_default_limit_of_128_and_goes_up_to_1000(store: Any) -> None:
    core = Core(Box, store=store)

    async def fill(storage: Storage) -> None:
        await storage.put_many({f"{i:04}": i for i in range(1200)})

    await run(core, fill)
    for _ in range(2):
        assert list(await run(core, lambda storage: storage.list())) == [f"{i:04}" for i in range(128)]
        assert len(await run(core, lambda storage: storage.list(limit=1000))) == 1000
        core.activation("a").kv.forget()


async def test_storage_belongs_to_its_own_instance_and_turn() -> None:
    core = Core(Box)
    kept: list[Storage] = []

    async def keep(storage: Storage) -> None:
        kept.append(storage)

    async def misuse(storage: Storage) -> None:
        for attempt in (kept[0].get("k"), kept[0].put("k", 1), kept[0].list(), kept[0].delete_all()):
            with pytest.raises(TurnEnded):
                await attempt

    await run(core, keep, "a")
    await run(core, misuse, "b")
    with pytest.raises(TurnEnded):  # outside of any turn
        await kept[0].put("k", 1)


async def test_keys_of_different_instances_never_meet(store: Any) -> None:
    core = Core(Box, store=store)
    names = ["a", "A", "a ", "a/b", "a:b", "a+b", "é", "e\u0301", "\U0001f600", "..", "x" * 512]

    def put(name: str) -> Job:
        async def job(storage: Storage) -> None:
            await storage.put("name", name)

        return job

    for name in names:
        await run(core, put(name), name)
    for name in names:
        core.activation(name).kv.forget()
        assert await content(core, name) == {"name": name}


async def test_values_survive_a_cold_start_with_their_types(store: Any) -> None:
    core = Core(Box, store=store)
    value = {"when": datetime(2024, 1, 1, tzinfo=UTC), "d": Decimal("1.10"), "u": UUID(int=1), "t": (1, timedelta(1))}

    async def put(storage: Storage) -> None:
        await storage.put("v", value)

    await run(core, put)
    again = Core(Box, store=store)
    assert same(await content(again), {"v": value})
