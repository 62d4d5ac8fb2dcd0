"""What mypy and pyright say about calls through stubs and clients. Each checker runs once, over all of these programs.

pyright takes part where it is installed and runs; it is no dependency.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import tools

ROOT = Path(__file__).parents[2]
SDK = ROOT / "sdk"
OURS = [*sorted((ROOT / "examples").glob("*.py")), ROOT / "server" / "scaffold" / "app.py"]

# Ten lines: the first line of a program is line 11.
HEAD = """\
from dataclasses import dataclass
from actord import Env, Request, Response, StatefulActor, env, stub_id
@dataclass
class Receipt:
    amount: float
class Account(StatefulActor):
    async def balance(self) -> float: return 0.0
    async def debit(self, amount: float, *, note: str = "") -> Receipt: return Receipt(amount)
class Stranger:
    pass
"""

# Written into `async def use(env: Env)`: no error, with these types revealed.
REVEALED = {
    "get": ('env.get(Account, "a")', "Account"),
    "get_with_a_key": ('await env.get(Account, "a", idempotency_key="k").debit(5)', "Receipt"),
    "result": ('await env.get(Account, "a").debit(5, note="rent")', "Receipt"),
    "send": ('env.send(Account, "a", delay=1.5)', "Account"),
    "namespace": ("env.namespace(Account)", "Namespace[Account]"),
    "namespace_get": ('env.namespace(Account).get("a", idempotency_key="k")', "Account"),
    "id_from_name": ('env.namespace(Account).id_from_name("a")', "Account"),
    "unique": ("env.namespace(Account).new_unique_id()", "Account"),
    "name": ("stub_id(env.namespace(Account).new_unique_id())", "str"),
    "fetch": ('await env.get(Account, "a").fetch(Request("GET", "/"))', "Response"),
    "binding": ('env.ACCOUNT.id_from_name("a").debit', "Any"),
}

# An expression, and words of the error that each checker has for it.
REFUSED = {
    "wrong_argument": (
        'await env.get(Account, "a").debit("x")',
        '"str"; expected "float"',
        'is not assignable to "float"',
    ),
    "missing_argument": ('await env.get(Account, "a").debit()', 'argument "amount"', 'parameter "amount"'),
    "unknown_argument": ('await env.get(Account, "a").debit(1, memo="")', '"memo"', 'No parameter named "memo"'),
    "unknown_method": ('await env.get(Account, "a").withdraw(1)', 'has no attribute "withdraw"', '"withdraw"'),
    "wrong_result": ('(await env.get(Account, "a").debit(1)).total', 'has no attribute "total"', '"total"'),
    "no_name": ("env.get(Account)", '"name"', '"name"'),
    "name_of_another_type": ("env.get(Account, 7)", 'expected "str"', '"str"'),
    "no_actor": ('env.get(Stranger, "a")', '"Stranger"', '"Stranger"'),
    "wrong_message": ('await env.send(Account, "a").debit("x")', 'expected "float"', '"float"'),
    "wrong_delay": ('env.send(Account, "a", delay="1 s")', '"delay"', '"delay"'),
    "in_a_namespace": ('await env.namespace(Account).get("a").debit("x")', 'expected "float"', '"float"'),
    "by_a_unique_name": ("await env.namespace(Account).new_unique_id().debit()", '"amount"', '"amount"'),
}

# Where an env comes from: each of them is checked.
WHERE = {
    "in_an_actor": "self.env",
    "in_a_context": "self.ctx.env",
    "of_the_process": "env()",
}

IMPORTS = "from actord.client import AsyncClient, Client\n"
PLAIN = "class Plain(StatefulActor):\n    def size(self, unit: str) -> int: return 0\n"
LINE = HEAD.count("\n") + IMPORTS.count("\n") + PLAIN.count("\n") + 2

# Written into a function with a `client` and a `later`, the asynchronous one: no error, with these types revealed.
CLIENT_REVEALED = {
    "async_stub": ('later.actor(Account, "a")', "Account"),
    "async_result": ('await later.actor(Account, "a", timeout=5, idempotent=False).debit(5, note="rent")', "Receipt"),
    "async_key": ('await later.actor(Account, "a", idempotency_key="k").balance()', "float"),
    "async_fetch": ('await later.actor(Account, "a").fetch(Request("GET", "/"))', "Response"),
    "async_by_name": ('await later.actor("Account", "a").debit(5)', "Any"),
    "async_door": ('await later.fetch("/")', "Response"),
    "sync_by_method": ('client.call(Account, "a", Account.debit, 5, note="rent")', "Receipt"),
    "sync_no_arguments": ('client.call(Account, "a", Account.balance)', "float"),
    "sync_plain_method": ('client.call(Plain, "a", Plain.size, "kg")', "int"),
    "sync_stub": ('client.actor(Account, "a")', "ActorStub"),
    "sync_result": ('client.actor(Account, "a").debit(5)', "Any"),
    "sync_fetch": ('client.actor(Account, "a").fetch("/")', "Response"),
    "sync_id": ('client.actor(Account, "a").id', "str"),
}

# An expression, and words of the error that each checker has for it.
CLIENT_REFUSED = {
    "async_argument": (
        'await later.actor(Account, "a").debit("x")',
        '"str"; expected "float"',
        'is not assignable to "float"',
    ),
    "async_method": ('await later.actor(Account, "a").withdraw(1)', 'no attribute "withdraw"', '"withdraw"'),
    "async_no_actor": ('later.actor(Stranger, "a")', '"Stranger"', "No overloads"),
    "sync_argument": ('client.call(Account, "a", Account.debit, "x")', '"str"', '"float"'),
    "sync_missing": ('client.call(Account, "a", Account.debit)', "No overload variant", "No overloads"),
    "sync_other_class": ('client.call(Plain, "a", Account.debit, 5)', "No overload variant", "No overloads"),
    "sync_result": ('client.call(Account, "a", Account.debit, 5).total', 'no attribute "total"', '"total"'),
    "sync_not_awaited": ('client.call(Account, "a", Account.debit, 5).send(None)', "no attribute", '"send"'),
}

Said = dict[str, list[str]]  # by program, what the checker said: "line severity text"


def programs(folder: Path) -> None:
    for name, (expression, _) in REVEALED.items():
        (folder / f"reveal_{name}.py").write_text(
            HEAD + f"async def use(env: Env) -> None:\n    reveal_type({expression})\n"
        )
    for name, (expression, *_) in REFUSED.items():
        (folder / f"refuse_{name}.py").write_text(HEAD + f"async def use(env: Env) -> None:\n    {expression}\n")
    for name, env in WHERE.items():
        body = f'    async def pay(self) -> None:\n        await {env}.get(Account, "a").debit("x")\n'
        (folder / f"where_{name}.py").write_text(f"{HEAD}class Till(StatefulActor):\n{body}")
    use = "async def use(client: Client, later: AsyncClient) -> None:\n    "
    for name, (expression, _) in CLIENT_REVEALED.items():
        (folder / f"reveal_client_{name}.py").write_text(f"{HEAD}{IMPORTS}{PLAIN}{use}reveal_type({expression})\n")
    for name, (expression, *_) in CLIENT_REFUSED.items():
        (folder / f"refuse_client_{name}.py").write_text(f"{HEAD}{IMPORTS}{PLAIN}{use}{expression}\n")
    for path in OURS:
        (folder / f"ours_{path.name}").write_text(path.read_text())


def mypy(folder: Path) -> Said:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        "cache",
        "--no-error-summary",
        "--hide-error-context",
    ]
    done = subprocess.run(
        [*command, *sorted(p.name for p in folder.glob("*.py"))],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1, done.stdout + done.stderr  # errors were found; 2 is a failure of mypy
    said: Said = {}
    for line in done.stdout.splitlines():
        found = re.fullmatch(r"(\w+)\.py:(\d+): (error|note): (.*)", line)
        assert found, line
        said.setdefault(found[1], []).append(f"{found[2]} {found[3]} {found[4]}")
    return said


def pyright(folder: Path) -> Said:
    command = tools.found("pyright")
    if command is None:
        pytest.skip("pyright is not installed (make test-tools)")
    done = subprocess.run(
        [command, "--pythonpath", sys.executable, "--outputjson", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
    )
    if done.returncode not in (0, 1):
        pytest.skip(f"pyright does not run here: {done.stderr[-200:]}")
    said: Said = {}
    for found in json.loads(done.stdout)["generalDiagnostics"]:
        line = found["range"]["start"]["line"] + 1
        said.setdefault(Path(found["file"]).stem, []).append(f"{line} {found['severity']} {found['message']}")
    return said


@pytest.fixture(scope="module", params=[mypy, pyright], ids=["mypy", "pyright"])
def checker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Said]:
    folder = tmp_path_factory.mktemp("typed")
    (folder / "actord").symlink_to(SDK)
    programs(folder)
    check: Callable[[Path], Said] = request.param
    return check.__name__, check(folder)


@pytest.mark.parametrize("name", REVEALED)
def test_a_stub_has_the_type_from_which_an_editor_completes(checker: tuple[str, Said], name: str) -> None:
    _, said = checker
    assert len(said[f"reveal_{name}"]) == 1
    revealed = re.search(r'"([^"]*)"$', said[f"reveal_{name}"][0])
    assert revealed is not None
    assert re.sub(r"\w+\.", "", revealed[1]) == REVEALED[name][1]


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_does_not_fit_is_an_error(checker: tuple[str, Said], name: str) -> None:
    which, said = checker
    words = REFUSED[name][1 if which == "mypy" else 2]
    errors = [one for one in said[f"refuse_{name}"] if one.startswith("12 error ")]
    assert any(words in one for one in errors), said[f"refuse_{name}"]


@pytest.mark.parametrize("name", WHERE)
def test_every_env_checks_the_calls_through_it(checker: tuple[str, Said], name: str) -> None:
    _, said = checker
    assert len(said[f"where_{name}"]) == 1
    assert '"float"' in said[f"where_{name}"][0]


def test_our_own_programs_are_typed(checker: tuple[str, Said]) -> None:
    which, said = checker
    faults = {name: lines for name, lines in said.items() if name.startswith("ours_")}
    if which == "pyright":
        faults.pop("ours_job", None)  # it takes the result of `|=` on a TypedDict for a plain dict
    assert faults == {}


# -- through a client


@pytest.mark.parametrize("name", CLIENT_REVEALED)
def test_a_call_has_the_type_from_which_an_editor_completes(checker: tuple[str, Said], name: str) -> None:
    _, said = checker
    lines = said[f"reveal_client_{name}"]
    assert len(lines) == 1, lines
    revealed = re.search(r'"([^"]*)"$', lines[0])
    assert revealed is not None
    assert re.sub(r"\w+\.", "", revealed[1]) == CLIENT_REVEALED[name][1]


@pytest.mark.parametrize("name", CLIENT_REFUSED)
def test_a_call_of_a_client_that_does_not_fit_is_an_error(checker: tuple[str, Said], name: str) -> None:
    which, said = checker
    words = CLIENT_REFUSED[name][1 if which == "mypy" else 2]
    lines = said[f"refuse_client_{name}"]
    assert any(words in one for one in lines if one.startswith(f"{LINE} error ")), lines
