"""What of a class is callable, and what a caller hears about the rest."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from actord import StatefulActor, timeout
from actord.errors import ActorArgumentError, ActorUnknownTypeError
from actord.settings import ActorBinding, App
from actord.shards.registry import ActorType, ProgramError, load_program, upper_snake
from msgspec import Meta

from tests.support.harness import Core


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return 2 * await function(self, *args, **kwargs)

    return wrapper


class Mixin:
    def mixed(self) -> str:
        return "mixed"


class Base(StatefulActor):
    async def inherited(self) -> str:
        return "base"

    async def overridden(self) -> str:
        return "base"

    async def withdrawn(self) -> str:
        return "base"


class Thing(Mixin, Base):
    field = 5
    withdrawn = None  # type: ignore[assignment]

    async def overridden(self) -> str:
        return "thing, then " + await super().overridden()

    def plain(self) -> str:
        return "plain"

    def plain_with_a_coroutine(self) -> Any:
        return self.inherited()

    @twice
    async def decorated(self, n: int) -> int:
        return n

    @staticmethod
    def static() -> str:
        return "static"

    @classmethod
    def of_the_class(cls) -> str:
        return "class"

    @property
    def property(self) -> str:
        return "property"

    def _private(self) -> str:
        return "private"

    def __secret(self) -> str:
        return "secret"

    async def alarm(self, info: Any) -> None: ...

    async def web_socket(self, ws: Any, request: Any) -> None: ...

    def on_something(self) -> None: ...


class Narrow(StatefulActor):
    rpc = ("one",)

    def one(self) -> int:
        return 1

    def two(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("inherited", "base"),
        ("overridden", "thing, then base"),
        ("plain", "plain"),
        ("plain_with_a_coroutine", "base"),
        ("mixed", "mixed"),
    ],
)
async def test_public_methods_are_callable_inherited_overridden_plain_and_mixed_in(method: str, result: Any) -> None:
    assert await Core(Thing).value("a", method) == result


async def test_a_decorated_method_keeps_its_signature() -> None:
    core = Core(Thing)
    assert await core.value("a", "decorated", n=4) == 8
    bad = await core.call("a", "decorated", m=4)
    assert bad.name == "ActorArgumentError"


@pytest.mark.parametrize(
    "method",
    [
        "_private",
        "__secret",
        "_Thing__secret",
        "__init__",
        "__class__",
        "_",
        "fetch",
        "alarm",
        "web_socket",
        "web_socket_message",
        "on_something",
        "on_activate",
        "on_deactivate",
        "call_timeout",
        "idle_after",
        "rpc",
    ],
)
async def test_private_and_base_class_names_are_refused_as_private(method: str) -> None:
    answer = await Core(Thing).call("a", method)
    assert (answer.status, answer.name, answer.applied) == (403, "ActorPrivateMethodError", "no")
    assert "_functions" not in answer.detail


@pytest.mark.parametrize(
    "method",
    ["missing", "field", "withdrawn", "static", "of_the_class", "property", "ctx", "env", "", "a b", "é", "Plain"],
)
async def test_what_is_no_method_of_the_class_is_unknown_and_never_reached(method: str) -> None:
    answer = await Core(Thing).call("a", method)
    assert (answer.status, answer.name, answer.applied) == (404, "ActorUnknownMethodError", "no")


async def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    core = Core(Thing, Narrow)
    answer = await core.send("a", "one", type_="Nothing")
    assert (answer.status, answer.name) == (404, "ActorUnknownTypeError")
    assert "Narrow, Thing" in answer.detail
    with pytest.raises(ActorUnknownTypeError):
        core.program.type("thing")


async def test_rpc_narrows_the_type_to_its_list() -> None:
    core = Core(Narrow)
    assert await core.value("a", "one") == 1
    answer = await core.call("a", "two")
    assert (answer.status, answer.name) == (403, "ActorPrivateMethodError")


async def test_refusing_again_and_again_keeps_nothing_in_memory() -> None:
    core = Core(Narrow)
    for _ in range(50):
        assert (await core.call("a", "two")).status == 403
    refusal = core.program.types["Narrow"]._refuse("two")
    depth, frames = 0, refusal.__traceback__
    while frames is not None:
        depth, frames = depth + 1, frames.tb_next
    assert depth < 5


async def test_a_refused_call_makes_no_activation() -> None:
    core = Core(Thing)
    for method in ("missing", "_private"):
        await core.call("a", method)
    await core.call("a", "decorated", "not", "fitting")
    assert core.activations() == {}


def test_rpc_that_lists_no_public_method_is_refused_at_load() -> None:
    class Wrong(StatefulActor):
        rpc = ("_hidden",)

        def _hidden(self) -> None: ...

    with pytest.raises(ProgramError, match=r"Wrong\.rpc lists '_hidden'"):
        ActorType(Wrong, "WRONG")


def test_generators_are_refused_at_load() -> None:
    class Stream(StatefulActor):
        def many(self) -> Iterator[int]:
            yield 1

    class AsyncStream(StatefulActor):
        async def many(self) -> AsyncIterator[int]:
            yield 1

    for cls in (Stream, AsyncStream):
        with pytest.raises(ProgramError, match=f"{cls.__name__}.many is a generator"):
            ActorType(cls, "STREAM")


def test_limits_that_nothing_would_check_are_refused_at_load() -> None:
    class Account(StatefulActor):
        def deposit(self, amount: Annotated[int | float, Meta(ge=0)]) -> None: ...

    class Members(StatefulActor):
        def deposit(self, amount: Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)]) -> None: ...

    class Remark(StatefulActor):
        def deposit(self, by: Annotated[StatefulActor | int | float, Meta(description="no limit")]) -> None: ...

    with pytest.raises(ProgramError, match=r"Account\.deposit: the limits of the parameter 'amount' .* at its members"):
        ActorType(Account, "ACCOUNT")
    for body in (b'{"amount": -1}', b'{"amount": -0.5}', b'{"amount": "ten"}'):
        with pytest.raises(ActorArgumentError):
            ActorType(Members, "MEMBERS").method("deposit").binder.from_json(body)
    ActorType(Remark, "REMARK")


@pytest.mark.parametrize("attribute", ["call_timeout", "idle_after"])
@pytest.mark.parametrize("value", [0, -1, "5", float("nan")])
def test_a_type_with_a_bad_time_is_refused_at_load(attribute: str, value: Any) -> None:
    cls = type("Bad", (StatefulActor,), {attribute: value})
    with pytest.raises(ProgramError, match=f"Bad.{attribute}"):
        ActorType(cls, "BAD")


def test_a_method_with_a_bad_time_is_refused_where_it_stands() -> None:
    with pytest.raises(ValueError, match="more than 0"):
        timeout(0)


def test_a_method_with_a_default_before_a_keyword_without_one_can_be_loaded() -> None:
    class Mixed(StatefulActor):
        def method(self, a: int = 1, *, b: int) -> int:
            return a + b

    assert ActorType(Mixed, "MIXED").methods["method"].describe()["parameters"][1]["required"] is True


@pytest.mark.parametrize(
    ("name", "snake"),
    [("Account", "ACCOUNT"), ("ShoppingCart", "SHOPPING_CART"), ("HTTPRoom", "HTTP_ROOM"), ("Room2Go", "ROOM2_GO")],
)
def test_a_type_is_bound_under_its_upper_snake_name(name: str, snake: str) -> None:
    assert upper_snake(name) == snake


# -- loading a program


def program(tmp_path: Path, source: str, **app: Any) -> Any:
    (tmp_path / "prog.py").write_text("from actord import StatefulActor, Response\n" + source)
    return load_program(App(root=str(tmp_path), main="prog.py", **app))


def test_every_actor_of_a_module_is_bound_unless_the_file_says_which(tmp_path: Path) -> None:
    source = "class A(StatefulActor): ...\nclass BigOne(A): ...\nclass _Hidden(A): ...\n"
    assert set(program(tmp_path, source).bindings) == {"A", "BIG_ONE"}
    bound = program(tmp_path, source, actors=[ActorBinding(binding="ROOM", type="BigOne")])
    assert {name: type_.name for name, type_ in bound.bindings.items()} == {"ROOM": "BigOne"}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "has no StatefulActor subclass"),
        ("class A__B(StatefulActor): ...", "no double underscore"),
        (f"class {'A' * 33}(StatefulActor): ...", "at most 32 characters"),
        ("class Ä(StatefulActor): ...", "ASCII"),
        ("def fetch(request, env): ...", "must be `async def fetch"),
        ("raise ValueError('boom')", "ValueError: boom"),
        ("import no_such_module_at_all", "can't be imported"),
        ("class A(StatefulActor):\n  def f(self):\n    yield 1", "generator"),
        ("syntax error", "SyntaxError"),
    ],
)
def test_a_program_that_can_not_work_is_refused_with_the_reason(tmp_path: Path, source: str, words: str) -> None:
    with pytest.raises(ProgramError, match=words):
        program(tmp_path, source)


def test_a_binding_of_a_class_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="the program has: A"):
        program(tmp_path, "class A(StatefulActor): ...", actors=[ActorBinding(binding="B", type="B")])
    with pytest.raises(ProgramError, match="There is no file"):
        load_program(App(root=str(tmp_path), main="other.py"))
