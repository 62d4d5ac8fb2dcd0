"""What mypy and pyright say about calls through the clients."""

from __future__ import annotations

import re

import pytest

from tests.sdk.test_typed_stubs import HEAD, SDK, Said, mypy, pyright

IMPORTS = "from actord.client import AsyncClient, Client\n"
PLAIN = "class Plain(StatefulActor):\n    def size(self, unit: str) -> int: return 0\n"
LINE = HEAD.count("\n") + IMPORTS.count("\n") + PLAIN.count("\n") + 2

# Written into a function with a `client` and a `later`, the asynchronous one: no error, with these types revealed.
REVEALED = {
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
REFUSED = {
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


@pytest.fixture(scope="module", params=[mypy, pyright], ids=["mypy", "pyright"])
def checker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Said]:
    folder = tmp_path_factory.mktemp("typed")
    (folder / "actord").symlink_to(SDK)
    use = "async def use(client: Client, later: AsyncClient) -> None:\n    "
    for name, (expression, _) in REVEALED.items():
        (folder / f"reveal_{name}.py").write_text(f"{HEAD}{IMPORTS}{PLAIN}{use}reveal_type({expression})\n")
    for name, (expression, *_) in REFUSED.items():
        (folder / f"refuse_{name}.py").write_text(f"{HEAD}{IMPORTS}{PLAIN}{use}{expression}\n")
    return request.param.__name__, request.param(folder)


@pytest.mark.parametrize("name", REVEALED)
def test_a_call_has_the_type_from_which_an_editor_completes(checker: tuple[str, Said], name: str) -> None:
    _, said = checker
    assert len(said[f"reveal_{name}"]) == 1, said[f"reveal_{name}"]
    revealed = re.search(r'"([^"]*)"$', said[f"reveal_{name}"][0])
    assert revealed is not None
    assert re.sub(r"\w+\.", "", revealed[1]) == REVEALED[name][1]


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_does_not_fit_is_an_error(checker: tuple[str, Said], name: str) -> None:
    which, said = checker
    words = REFUSED[name][1 if which == "mypy" else 2]
    errors = [one for one in said[f"refuse_{name}"] if one.startswith(f"{LINE} error ")]
    assert any(words in one for one in errors), said[f"refuse_{name}"]
