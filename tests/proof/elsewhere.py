"""The parts that live in folders of their own: schedules, resources, models, corpus, fuzzing, damage.

They are run as their users run them, by their commands; where a folder has none the part says so in the report.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.faults import powercut
from tests.fuzz.engine import has_atheris
from tests.proof.part import Context, Part, Result

FUZZED = ("http", "chunks", "route", "frames", "intake", "codec", "json", "arguments")

MODELS = (
    "tests/shards/test_kv_model.py",
    "tests/shards/test_sql_model.py",
    "tests/shards/test_alarms_model.py",
    "tests/shards/test_wire.py",
    "tests/sdk/test_codec.py",
    "tests/sdk/test_codec_hostile.py",
    "tests/sdk/test_json.py",
    "tests/storage/test_alarms.py",
    "tests/storage/test_scan_model.py",
    "tests/history/test_linearizability.py",
    "tests/system/test_model.py",
)

COMMANDS = ("tests/faults/test_powercut_reshard.py", "tests/faults/test_powercut_backup.py")


def _missing(module: str) -> str:
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    return "" if found else f"{module.replace('.', '/')} is not there"


def _run(context: Context, *words: str, patience: float, **environment: str) -> subprocess.CompletedProcess[str]:
    context.say(" ".join([*(f"{name}={value}" for name, value in environment.items()), *words]))
    return subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        timeout=patience,
        env=os.environ | environment,
        check=False,
    )


def _tail(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stdout + done.stderr)[-2000:]


def schedules(context: Context) -> Result:
    """Slices of seeds, one behind the other, for as long as there is time. Each runs the planted bugs as well."""
    result = Result()
    seeds, size, calls, caught = 0, 100, 0, ""
    while context.go_on() or not seeds:
        begun = time.monotonic()
        words = ("tests.simulation", "--seeds", str(size), "--start", str(context.seed + seeds))
        done = _run(context, *words, patience=600 + context.left)
        if done.returncode:
            result.wrong.append(f"{' '.join(words)}: {_tail(done)}")
            break
        seeds += size
        calls += sum(int(number) for number in re.findall(r"(\d+) calls", done.stdout))
        caught = "".join(re.findall(r"\d+ of \d+(?= planted)", done.stdout))
        spent = max(0.01, time.monotonic() - begun)
        size = max(20, min(4 * size, int(size * 0.9 * context.left / spent)))
    result.figures = {"schedules (seeds)": seeds, "calls in them": calls, "planted bugs caught": caught}
    return result


def _tests(context: Context, *paths: str, **environment: str) -> Result:
    """Tests as they are, or in the long version that the environment asks for."""
    done = _run(context, "pytest", "-q", "-p", "no:cacheprovider", *paths, patience=1800, **environment)
    found = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)}
    figures: dict[str, object] = {}
    if skipped := found.pop("skipped", 0):
        figures["skipped"] = skipped
    figures["checks passed"] = f"{found.get('passed', 0):,} of {sum(found.values()):,}"
    return Result(figures, [f"{' '.join(paths)}: {_tail(done)}"] if done.returncode else [])


def corpus(context: Context) -> Result:
    result = _tests(context, "tests/server/test_corpus.py")
    result.figures = {"requests": len(list(Path("tests/corpus/http1").rglob("*.http"))), **result.figures}
    return result


def resources(context: Context) -> Result:
    """5 s per fsync, 1,000 clients that never read, and all the others of their folder."""
    return _tests(context, "tests/resources", ACTORD_TEST_LONG="1")


def models(context: Context) -> Result:
    """Properties and models by lot, ten times as many cases as in the short version."""
    return _tests(context, *MODELS, ACTORD_TEST_LONG="1", ACTORD_TEST_MODEL_EXAMPLES="100")


def commands(context: Context) -> Result:
    """Every operation of ``actord reshard``, of backups and ``actord restore``, in every kind of state."""
    return _tests(context, *COMMANDS, ACTORD_TEST_LONG="1")


def fuzzing(context: Context) -> Result:
    """By lot and, where atheris is installed, guided by coverage; for each target the same time."""
    result = Result()
    engines = ("lot", "atheris") if has_atheris() else ("lot",)
    each = max(1.0, context.left / len(FUZZED) / len(engines))
    inputs = dict.fromkeys(engines, 0)
    for target, engine in itertools.product(FUZZED, engines):
        words = ("tests.fuzz", target, "--engine", engine, "--seconds", f"{each:.0f}", "--seed", str(context.seed))
        done = _run(context, *words, patience=60 + 4 * each)
        counted = re.findall(r"(\d+) inputs|number_of_executed_units: (\d+)", done.stdout + done.stderr)
        inputs[engine] += sum(int(one or other) for one, other in counted)
        if done.returncode:
            result.wrong.append(f"{' '.join(words)}: {_tail(done)}")
    result.figures = {"targets": len(FUZZED), "inputs by lot": inputs["lot"]}
    if "atheris" in inputs:
        result.figures["inputs guided by coverage"] = inputs["atheris"]
    return result


def damage(context: Context) -> Result:
    """Single bit flips, in slices."""
    from tests.damage.flips import run

    result = Result()
    flips = harmless = detected = 0
    number = 0
    while (context.go_on() or not number) and not result.wrong:
        found = run(200, context.seed + number)
        number += 1
        flips += found.flips
        harmless += found.harmless
        detected += found.detected
        result.wrong += [f"flip seed {context.seed + number - 1}: missed {place}" for place in found.missed]
        context.say(f"{flips} flips, {len(result.wrong)} missed")
    rate = detected / (flips - harmless) if flips > harmless else 1.0
    result.figures = {"bits flipped": flips, "harmless": harmless, "detection rate of the others": f"{rate:.2%}"}
    return result


PARTS = [
    Part("simulation", 70, schedules, lambda: _missing("tests.simulation.__main__"), lane="beside"),
    Part("resources", 15, resources, lane="beside"),
    Part("models", 20, models, lane="beside"),
    Part("corpus", 10, corpus, lane="beside"),
    Part("commands", 15, commands, powercut.unavailable),
    Part("fuzz", 10, fuzzing, lambda: _missing("tests.fuzz.__main__")),
    Part("damage", 5, damage, lambda: _missing("tests.damage.flips")),
]
