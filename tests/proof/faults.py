"""The parts over running servers: power cuts, the real file system, I/O errors, kills, recovery times."""

from __future__ import annotations

import random
import subprocess
import tempfile
import time

from tests.faults import armed, ext4, kills, powercut, server_powercut
from tests.proof.part import Context, Part, Result

PHASE = 300  # deposits between two faults of a power-cut run
STATES_A_RUN = 3_000  # points; about twice as many states
WAL_SIZES = {"1 MiB": 1 << 20, "16 MiB": 16 << 20, "64 MiB": 64 << 20}
RESPAWN_SECONDS = 2.0
SLOW_STOP_SECONDS = 30.0


def power_cuts(context: Context) -> Result:
    """Runs of a whole server, every other one with failing syncs; each is replayed, then with its planted bugs."""
    result = Result()
    runs = states = deposits = failed = caught = planted = 0
    rng = random.Random(context.seed)
    with tempfile.TemporaryDirectory(dir=powercut.scratch_parent()) as scratch:
        while (context.go_on() or not runs) and not result.wrong:
            seed = context.seed + runs
            faulty = runs % 2 == 1
            context.say(f"run {runs + 1}, seed {seed}{', syncs fail' if faulty else ''}: recording")
            number = rng.randrange(20, 60)  # a start alone makes several: with fewer a run takes hours
            try:
                log, audit = server_powercut.record(
                    context.fresh(f"run-{runs}"),
                    seed,
                    phase=PHASE,
                    inject=[f"fdatasync:error=EIO:when={number}"] if faulty else None,
                    settings={"storage.flush": "thread" if faulty else rng.choice(["thread", "auto"])},
                )
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                result.wrong.append(f"seed {seed}{f', EIO at fdatasync {number}' if faulty else ''}: {error}")
                break
            runs += 1
            deposits += audit.deposits
            failed += server_powercut.failed_syncs(log)
            limit = time.monotonic() + max(20.0, context.left)
            found, wrong = server_powercut.replay(
                log, audit, seed, scratch, STATES_A_RUN, limit=lambda limit=limit: time.monotonic() > limit
            )
            states += found
            result.wrong += [f"seed {seed}: {line}" for line in wrong]
            context.say(f"{found} states, {len(wrong)} violations, {states} states so far")
            for name, bug in (
                ("no sync", server_powercut.never_synced(log)),
                ("a reply before its sync", server_powercut.replied_too_early(log, audit)),
            ):
                _, lies = server_powercut.replay(bug, audit, seed, scratch, 60, kinds=("dropped", "torn"))
                planted += 1
                caught += any("lost" in line for line in lies)
                if not any("lost" in line for line in lies):
                    result.wrong.append(f"seed {seed}: the planted bug was not caught: {name}")
        # A worker that is really built so, not only a trace that is changed.
        log, audit = server_powercut.record(context.fresh("no-sync"), context.seed, phase=20, variant="no-sync")
        _, lies = server_powercut.replay(log, audit, context.seed, scratch, 100, kinds=("dropped", "torn"))
        planted += 1
        caught += any("lost" in line for line in lies)
        if not lies:
            result.wrong.append("the planted bug was not caught: workers that never sync")
    result.figures = {
        "server runs recorded": runs,
        "disk states replayed": states,
        "acknowledged deposits in them": deposits,
        "failed fsyncs in them": failed,
        "lost, partial or wrong": len(result.wrong),
        "planted bugs caught": f"{caught} of {planted}",
    }
    return result


def real_cuts(context: Context) -> Result:
    count, history, wrong = ext4.rounds(100_000, 300, context.go_on)
    return Result(
        {
            "ext4 shutdowns without a flush of the journal": count,
            "calls acknowledged": history.count,
            "operations checked for linearizability": len(history.operations),
        },
        wrong,
    )


def io_errors(context: Context) -> Result:
    result = Result()
    total = armed.Outcome()
    for flush, share in (("thread", 0.9), ("kernel", 1.0)):
        chain = armed.Chain(context.fresh(flush), flush=flush)
        until = time.monotonic() + context.left * share
        _chain(chain, armed.io_errors(flush), context, until, total, result)
    result.figures = {
        "I/O errors injected": total.fired,
        "calls acknowledged": total.calls,
        "operations checked for linearizability": total.checked,
    }
    result.notes = [f"{name}: {number} points" for name, number in total.by_series.items()]
    return result


def _chain(chain: armed.Chain, series, context: Context, until: float, total: armed.Outcome, result: Result) -> None:
    """Run a chain in slices, so that it can be told how far it is; adds up in ``total``."""
    told = [0.0]

    def clock() -> float:
        now = time.monotonic()
        if now > told[0] + 20:
            told[0] = now
            outcome = chain.outcome
            context.say(f"{outcome.fired} faults in {outcome.points} lives, {outcome.calls} calls acknowledged")
        return now

    outcome = chain.run(series, context.seed, until_=until, clock=clock)
    total.points += outcome.points
    total.fired += outcome.fired
    total.kills += outcome.kills
    total.calls += outcome.calls
    total.checked += outcome.checked
    total.by_series |= outcome.by_series
    result.wrong += outcome.wrong


def killing(context: Context) -> Result:
    """First by lot, then at named points."""
    result = Result()
    half = time.monotonic() + context.left / 2
    by_lot = kills.Outcome()
    batch = 0
    while (time.monotonic() < half or not batch) and not result.wrong:
        one = kills.run(
            context.fresh(f"lot-{batch}"),
            kills.deal(context.seed + batch, 40),
            stop_seconds=SLOW_STOP_SECONDS if batch == 0 and context.left > 300 else 2.0,
            go_on=lambda: time.monotonic() < half,
        )
        batch += 1
        by_lot.kills += one.kills
        by_lot.stops += one.stops
        by_lot.calls += one.calls
        by_lot.checked += one.checked
        by_lot.kinds += one.kinds
        result.wrong += one.wrong
        context.say(f"{by_lot.kills} kills and {by_lot.stops} stops by lot, {by_lot.calls} calls acknowledged")
    at_points = armed.Outcome()
    if not result.wrong:
        chain = armed.Chain(context.fresh("points"))
        _chain(chain, armed.kill_points(), context, context.until, at_points, result)
    result.figures = {
        "processes killed with SIGKILL": by_lot.kills + at_points.kills,
        "of them at a named point": at_points.fired,
        "processes stopped with SIGSTOP": by_lot.stops,
        "calls acknowledged": by_lot.calls + at_points.calls,
        "acknowledged and lost": sum("acknowledged and is gone" in line for line in result.wrong),
        "operations checked for linearizability": by_lot.checked + at_points.checked,
    }
    result.notes = [f"by lot, {name}: {number}" for name, number in sorted(by_lot.kinds.items())]
    result.notes += [f"{name}: {number} kills" for name, number in at_points.by_series.items()]
    return result


def recovery(context: Context) -> Result:
    result = Result()
    for number, (name, size) in enumerate(WAL_SIZES.items()):
        until = time.monotonic() + context.left / (len(WAL_SIZES) - number)
        taken = kills.recovery_times(
            context.fresh(f"wal-{size}"), size, 100, lambda until=until: time.monotonic() < until
        )
        p50, p99 = kills.median(taken), kills.percentile(taken, 0.99)
        result.figures[f"respawn to serving, log of {name}: p50 / p99"] = (
            f"{p50:.2f} s / {p99:.2f} s ({len(taken)} kills)"
        )
        context.say(f"{name}: {p50:.2f} s / {p99:.2f} s of {len(taken)}")
        if p99 > RESPAWN_SECONDS:
            result.wrong.append(f"respawn with a log of {name} took {p99:.2f} s at p99, over {RESPAWN_SECONDS:g} s")
    return result


PARTS = [
    Part("powercuts", 60, power_cuts, powercut.unavailable),
    Part("ext4", 10, real_cuts, ext4.unavailable),
    Part("ioerrors", 50, io_errors, armed.unavailable, lane="servers"),
    Part("kills", 45, killing, armed.unavailable, lane="servers"),
    Part("recovery", 10, recovery, lane="alone"),
]
