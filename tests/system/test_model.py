"""Calls, evictions, restarts and crashes by lot: the server always answers as a dict would."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.server import Server, until

EXAMPLES = int(os.environ.get("ACTORD_TEST_MODEL_EXAMPLES", "8"))
NAMES = ["a", "b", "ünï/☃"]
KEYS = ["", "k", "k/1", "k/2", "ä", "\U0001f40d"]  # "" is illegal on purpose

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=5)
    | st.floats(allow_nan=False, width=32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
names, keys = st.sampled_from(NAMES), st.sampled_from(KEYS)
steps = st.one_of(
    st.tuples(st.just("put"), names, keys, values),
    st.tuples(st.just("put_and_fail"), names, keys, values),
    st.tuples(st.just("get"), names, keys),
    st.tuples(st.just("delete"), names, keys),
    st.tuples(st.just("delete_all"), names),
    st.tuples(st.just("keys"), names, st.sampled_from(["", "k", "k/", "ä"]), st.booleans(), st.integers(1, 4)),
    st.tuples(st.just("add"), names, st.integers(-3, 3)),
    st.tuples(st.just("evict"), names),
)
lives = st.tuples(
    st.lists(steps, min_size=5, max_size=25), st.sampled_from(["go on", "restart", "crash", "kill worker"])
)
counter = itertools.count()
ABSENT = object()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("model") / "data"
    options = {"server.workers": 1, "runtime.idle_after": 0.01, "server.restart_delay_max": 0.1}
    with Server("probe.py", Path(data), settings=options, variant="fast-sweeps") as server:
        yield server


def apply(model: dict[str, object], step: tuple) -> tuple[int, object]:
    """The status and the value that the step has to be answered with."""
    kind, _, *args = step
    if args and args[0] == "" and kind in ("put", "get", "delete", "put_and_fail"):
        return 500, None
    if kind == "put":
        model[args[0]] = args[1]
    elif kind == "put_and_fail":
        return 500, None
    elif kind == "get":
        return 200, model.get(args[0])
    elif kind == "delete":
        return 200, model.pop(args[0], ABSENT) is not ABSENT
    elif kind == "delete_all":
        model.clear()
    elif kind == "keys":
        prefix, reverse, limit = args
        return 200, sorted((key for key in model if key.startswith(prefix)), reverse=reverse)[:limit]
    elif kind == "add":
        model["sum"] = model.get("sum", 0) + args[0]
        return 200, model["sum"]
    return 200, None


def between(server: Server, what: str) -> None:
    if what == "restart":
        assert server.stop() == 0
        server.start()
    elif what == "crash":
        server.kill()
        server.start()
    elif what == "kill worker":
        server.kill_child(server.worker_of(0))


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
@given(st.lists(lives, min_size=1, max_size=2))
def test_the_server_answers_as_a_dict_would(server, run):
    number = next(counter)
    models: dict[str, dict[str, object]] = {name: {} for name in NAMES}
    for life, end in run:
        for step in life:
            kind, name, *args = step
            actor = f"{name} {number}"
            if kind == "evict":
                until(lambda a=actor: not server.result("Probe", "witness", "is_live", a), f"{actor} to be evicted")
                continue
            status, expected = apply(models[name], step)
            reply = server.call("Probe", actor, kind, *args)
            assert reply.status == status, (step, reply)
            if status == 200:
                assert reply.json() == expected, step
                assert repr(reply.json()) == repr(expected), step
            else:
                assert reply.json()["applied"] == "no"
        between(server, end)
    for name, model in models.items():
        found = {key: server.result("Probe", f"{name} {number}", "get", key) for key in model}
        assert found == model
        assert server.result("Probe", f"{name} {number}", "keys") == sorted(model)


def test_evictions_happen_at_all(server):
    """What the model test relies on: an instance leaves memory while its worker goes on, and comes back."""
    worker = server.worker_of(0)
    server.result("Probe", "cold", "put", "k", 1)
    until(lambda: not server.result("Probe", "witness", "is_live", "cold"), "the eviction")
    assert server.result("Probe", "cold", "get", "k") == 1
    assert server.worker_of(0) == worker
