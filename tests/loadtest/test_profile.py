"""From py-spy's stacks to the parts of a call."""

from __future__ import annotations

import pytest
from actord.loadtest.profile import divide, part_of

OUTER = "<module> (actord/shards/worker.py:443);Loop__run (loop.c:20313);uv_run (core.c:464)"
FRONT = "<module> (actord/server/front.py:139);uv_run (core.c:464)"


@pytest.mark.parametrize(
    ("role", "stack", "part"),
    [
        ("worker", f"{OUTER};uv__io_poll (linux.c:1452);epoll_pwait (libc.so.6)", None),
        ("worker", f"{OUTER};TurnRunner._pump (actord/shards/turns.py:140)", "turn"),
        (
            "worker",
            f"{OUTER};TurnRunner._pump (actord/shards/turns.py:140);debit (account.py:9)",
            "the actor's own code",
        ),
        ("worker", f"{OUTER};debit (account.py:9);KV.get (actord/shards/kv.py:56)", "storage: cache and writes"),
        ("worker", f"{OUTER};SqliteStore._apply (actord/storage/sqlite.py:300);walWriteFrames", "rows and commit"),
        (
            "worker",
            f"{OUTER};SqliteStore._apply (actord/storage/sqlite.py:300);unixWrite;__libc_pwrite64 (libc.so.6)",
            "rows and commit (kernel: write to the log)",
        ),
        ("worker", f"{OUTER};TurnRunner._pump (shards/turns.py:140)", "turn"),
        ("worker", f"{OUTER};TurnRunner._pump (shards/turns.py:140);encode (sdk/codec.py:80)", "storage: values"),
        ("worker", f"{OUTER};Thing.run (elsewhere/shards/turns.py:140)", "event loop"),
        ("worker", f"{OUTER};submit (actord/storage/flush.py:99);syscall (libc.so.6)", "ask for the sync"),
        ("front", f"{FRONT};RequestParser.next (actord/server/http.py:158);unicode_isprintable", "parse the request"),
        ("front", f"{FRONT};uv__read (stream.c:1063);read (libc.so.6)", "event loop (kernel: read)"),
        ("front", "uv_run (core.c:464);uv__read (stream.c:1063);read (libc.so.6)", "event loop (kernel: read)"),
        ("front", "uv_run (core.c:464);uv__run_timers", "event loop"),
    ],
)
def test_a_sample_belongs_to_the_innermost_function_of_actord(role: str, stack: str, part: str | None) -> None:
    assert part_of(role, stack, "account.py") == part


def test_the_cost_of_a_call_is_divided_by_the_samples_that_did_not_wait() -> None:
    raw = [
        f"{OUTER};epoll_pwait (libc.so.6) 500",
        f"{OUTER};TurnRunner._pump (actord/shards/turns.py:140) 30",
        f"{OUTER};TurnRunner._pump (actord/shards/turns.py:141) 30",
        f"{OUTER};OutputGate.release (actord/shards/gate.py:20) 20",
    ]
    assert divide("worker", raw, "account.py", 16.0) == {"turn": 12.0, "output gate": 4.0}
