"""Key/value storage against a dict: every operation and range, over cold and partial caches, open batches, failures."""

from __future__ import annotations

from typing import Any

import pytest
from actord import ActorError, StatefulActor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import harness, virtual_time
from tests.support.harness import Core, open_sqlite, steps
from tests.support.lots import cases
from tests.support.memory_store import MemoryStore

# More keys than the first load takes (64), with neighbours that prefixes and bounds can fall between.
ALPHABET = ["", "0", "1", "5", "9", "\0", "é", "\ud7ff", "\ue000", "\U0010ffff"]
KEYS = sorted(
    {f"{p}{i:02}{s}" for p in ("a", "b", "é", "\U0010ffff") for i in range(0, 40, 2) for s in ("", "\U0010ffff")}
)
keys = st.sampled_from(KEYS)
bounds = st.none() | keys | st.builds(lambda k, n, s: k[:n] + s, keys, st.integers(0, 4), st.sampled_from(ALPHABET))
prefixes = st.builds(lambda k, n: k[:n], keys, st.integers(0, 4)) | st.sampled_from(ALPHABET)
limits = st.integers(1, 6) | st.sampled_from([64, 128, 1000])
ranges = st.fixed_dictionaries(
    {},
    optional={
        "prefix": prefixes,
        "start": bounds,
        "end": bounds,
        "reverse": st.booleans(),
        "limit": limits,
        "after": st.booleans(),
    },
)
values = st.integers(0, 1 << 40) | st.text(max_size=8)
operations = st.one_of(
    st.tuples(st.just("put"), keys, values),
    st.tuples(st.just("put_many"), st.dictionaries(keys, values, max_size=40)),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("delete_many"), st.lists(keys, max_size=20)),
    st.tuples(st.just("delete_all")),
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("get_many"), st.lists(keys, max_size=10)),
    st.tuples(st.just("list"), ranges),
    st.tuples(st.just("list"), ranges),
)
turns = st.tuples(
    st.lists(operations, min_size=1, max_size=6),
    st.sampled_from(["ok", "ok", "ok", "fail"]),  # how the turn ends
    st.sampled_from(["", "", "forget", "flush", "restart"]),  # what happens after it
)


def expected_list(model: dict[str, Any], options: dict[str, Any]) -> list[tuple[str, Any]]:
    """The reference: bounds by UTF-8 bytes, everything else by the words of the contract."""
    prefix = options.get("prefix", "")
    start, end, after = options.get("start"), options.get("end"), options.get("after", False)
    found = []
    for key in sorted(model, key=str.encode):
        raw = key.encode()
        if not key.startswith(prefix):
            continue
        if start is not None and (raw < start.encode() or (after and raw == start.encode())):
            continue
        if end is not None and raw >= end.encode():
            continue
        found.append((key, model[key]))
    if options.get("reverse"):
        found.reverse()
    return found[: options.get("limit", 128)]


class Box(StatefulActor):
    script: Any

    async def run(self) -> None:
        model, steps_of_turn, fate = Box.script
        storage = self.ctx.storage
        for name, *args in steps_of_turn:
            if name == "put":
                await storage.put(*args)
                model[args[0]] = args[1]
            elif name == "put_many":
                await storage.put_many(args[0])
                model.update(args[0])
            elif name == "delete":
                assert await storage.delete(args[0]) is (model.pop(args[0], None) is not None)
            elif name == "delete_many":
                there = {key for key in args[0] if key in model}
                assert await storage.delete_many(args[0]) == len(there)
                for key in there:
                    del model[key]
            elif name == "delete_all":
                await storage.delete_all()
                model.clear()
            elif name == "get":
                assert await storage.get(args[0], "absent") == model.get(args[0], "absent")
            elif name == "get_many":
                expected = {key: model[key] for key in args[0] if key in model}
                assert list((await storage.get_many(args[0])).items()) == list(expected.items())
            else:
                options = dict(args[0])
                expected = expected_list(model, options)
                if options.pop("after", False) and "start" in options:
                    options["start_after"] = options.pop("start")
                assert list((await storage.list(**options)).items()) == expected
        if fate == "fail":
            raise ActorError("on purpose")


async def play(store: Any, script: Any) -> None:
    core = Core(Box, store=store)
    core.hold_fsyncs()
    model: dict[str, Any] = dict.fromkeys(KEYS, 0)  # more than the first load takes
    script = [([("put_many", dict(model))], "ok", "restart"), *script]
    calls = []
    for operations_of_turn, fate, afterwards in script:
        after = dict(model)
        Box.script = (after, operations_of_turn, fate)
        calls.append((core.call("a", "run"), 400 if fate == "fail" else 200))
        await steps(5)
        if core.flusher.waiting and afterwards:  # else the batch stays in flight, and others open behind it
            while core.flusher.waiting:
                await core.fsync()
        if fate == "ok":
            model = after
        if afterwards == "restart":
            core.runner.stop()
            core = Core(Box, store=store)
            core.hold_fsyncs()
        elif afterwards == "forget":
            core.activation("a").kv.forget()
    Box.script = (dict(model), [("list", {"limit": 1000})], "ok")
    calls.append((core.call("a", "run"), 200))
    await steps()
    while core.flusher.waiting:
        await core.fsync()
    for call, status in calls:
        assert call.answer.status == status, call.answer


def run(store: Any, script: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        virtual_time.run(harness.stop_all_after(play(store, script)), patch)


@settings(max_examples=cases(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=st.lists(turns, max_size=12))
def test_key_value_storage_equals_a_dict_over_a_store_in_memory(script: Any) -> None:
    run(MemoryStore(), script)


@settings(max_examples=cases(30), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=st.lists(turns, max_size=12))
def test_key_value_storage_equals_a_dict_over_sqlite(script: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    with open_sqlite(tmp_path_factory.mktemp("kv")) as store:
        run(store, script)


def every_range() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for prefix in ("", "b", "b1", "\U0010ffff"):
        for start in (None, "b1", "b10", "b10\U0010ffff", "zz"):
            for after in (False, True) if start else (False,):
                for end in (None, "b2", "b30", "é", "a"):
                    for reverse in (False, True):
                        for limit in (1, 7, 1000):
                            options = {"prefix": prefix, "end": end, "reverse": reverse, "limit": limit, "after": after}
                            found.append(options | ({"start": start} if start else {}))
    return found


@pytest.mark.parametrize("state", ["warm", "cold", "overlaid", "tombstones"])
async def test_every_combination_of_bounds_in_every_state_of_the_cache(state: str, store: Any) -> None:
    script: list[Any] = [("list", options) for options in every_range()]
    core = Core(Box, store=store)
    model: dict[str, Any] = {}
    Box.script = (model, [("put_many", {key: i for i, key in enumerate(KEYS)})], "ok")
    assert (await core.call("a", "run")).status == 200
    if state != "warm":
        core.activation("a").kv.forget()
    if state == "overlaid":
        core.hold_fsyncs()
        Box.script = (model, [("put_many", {f"b{i:02}": "odd" for i in range(1, 40, 2)})], "ok")
        core.call("a", "run")
        await steps()
    if state == "tombstones":
        script = [("delete_many", KEYS[10:40]), ("put", "b01", 1), *script]
    Box.script = (model, script, "ok")
    last = core.call("a", "run")
    await steps()
    while core.flusher.waiting:
        await core.fsync()
    assert last.answer.status == 200, last.answer
