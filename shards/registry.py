"""The user's program: its actor types, their callable methods and its front door, found once when it is loaded.

Dispatch goes through the tables built here: a caller's text never reaches ``getattr``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from actord.actor import StatefulActor, called_by_runtime, public_functions, type_name
from actord.errors import (
    ActordError,
    ActorPrivateMethodError,
    ActorUnknownMethodError,
    ActorUnknownTypeError,
)
from actord.http import Request, Response
from actord.limits import TYPE_CHARS
from actord.measures import new_times
from actord.settings import ActorBinding, App, MountedProgram
from actord.shards.arguments import AnnotationError, Binder
from actord.shards.call import Work
from actord.shards.socket_handlers import socket_handlers

FrontDoor = Callable[[Request, Any], Coroutine[Any, Any, Response]]

_ROUTE = re.compile(r"^\s*(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS)\s+(/\S*)\s*(\{.*\})?\s*$", re.MULTILINE)
# What a stub has itself (shards/stub.py): a method of such a name could not be reached through one.
_OF_STUBS = {
    "id": "the instance's name",
    "send": "stub.send.method() queues a message",
    "with_key": "stub.with_key(key) carries an idempotency key",
}
_OWN_ENTRY = "is called by the runtime, not from outside"


class Route(NamedTuple):
    """A line of a docstring: ``POST /accounts/{name}/debit {"amount": 30}``."""

    method: str
    path: str
    body: str  # empty when there is none


class ProgramError(Exception):
    """The program can't be served; the message says why and what to change."""


class Method(Work):
    """One callable method of a type."""

    __slots__ = ("binder",)

    def __init__(self, owner: str, name: str, function: Callable[..., Any], timeout: float | None) -> None:
        self.name = name
        self.label = name.encode()
        self.function = function
        self.binder = Binder(function, f"{owner}.{name}")
        self.timeout = timeout  # seconds; None: the server's default
        self.times = new_times()

    def describe(self) -> dict[str, Any]:
        signature = self.binder.signature
        return {
            "name": self.name,
            "signature": str(signature),
            "parameters": [
                {
                    "name": p.name,
                    "annotation": "" if p.annotation is p.empty else inspect.formatannotation(p.annotation).strip("'"),
                    "required": p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD),
                }
                for p in signature.parameters.values()
            ],
            "doc": (inspect.getdoc(self.function) or "").partition("\n\n")[0],
        }


class ActorType:
    """One actor class with its tables."""

    def __init__(self, cls: type[StatefulActor], binding: str) -> None:
        self.cls = cls
        self.name = type_name(cls)
        self.binding = binding
        self.timeout = _seconds(cls, "call_timeout")
        self.idle_after = _seconds(cls, "idle_after")
        self.init_timeout = _seconds(cls, "init_timeout")
        self.mailbox = _count(cls, "mailbox", 1)
        self.has_on_activate = cls.on_activate is not StatefulActor.on_activate
        self.has_on_deactivate = cls.on_deactivate is not StatefulActor.on_deactivate
        self.has_alarm = _has_alarm(cls)
        self.alarm_timeout = _seconds(cls, "alarm_timeout")
        self.alarm_retries = _count(cls, "alarm_retries", 0)
        self.events_kept = _count(cls, "events_kept", 1)
        self.events_age = _seconds(cls, "events_age")
        self.events_public = bool(cls.events_public)
        if type(cls.expose) is not bool:
            raise ProgramError(f"{cls.__name__}.expose must be True or False: callers over HTTP can reach it, or not.")
        self.exposed = cls.expose
        self.send_retries = _count(cls, "send_retries", 0)
        self.version = _version(cls)
        self.upgrades = _upgrades(cls, self.version)
        self.fetch = Method(self.name, "fetch", cls.fetch, getattr(cls.fetch, "__actord_timeout__", self.timeout))
        try:
            self.web_socket, self.web_socket_message, self.web_socket_close = socket_handlers(cls, self.timeout)
        except ValueError as error:
            raise ProgramError(str(error)) from None
        self.build = _builder(cls)
        self.methods: dict[str, Method] = {}
        self._refusals: dict[str, str] = {}  # what to say; an error raised twice would collect tracebacks
        found = public_functions(cls)
        exposed = set(found) if cls.rpc is None else set(_rpc(cls, found))
        for name, function in found.items():
            if name not in exposed:
                self._refusals[name] = f"{self.name}.{name} is not listed in `rpc`."
                continue
            if name in _OF_STUBS:
                raise ProgramError(
                    f"{self.name}.{name}: a stub has its own {name!r} ({_OF_STUBS[name]}), so no other actor could "
                    "call the method. Give it another name, or leave it out of `rpc`."
                )
            if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
                raise ProgramError(f"{self.name}.{name} is a generator: a call has one result. Return a list instead.")
            limit = getattr(function, "__actord_timeout__", self.timeout)
            try:
                self.methods[name] = Method(self.name, name, function, limit)
            except AnnotationError as error:
                raise ProgramError(str(error)) from None

    def method(self, name: str) -> Method:
        """The method that a caller may call by this name; raises the refusal otherwise."""
        method = self.methods.get(name)
        if method is None:
            raise self._refuse(name)
        return method

    def _refuse(self, name: str) -> ActordError:
        if name in self._refusals:
            return ActorPrivateMethodError(self._refusals[name])
        if name.startswith("_"):
            return ActorPrivateMethodError(f"{self.name}.{name}: names that begin with _ are private.")
        if called_by_runtime(name):
            return ActorPrivateMethodError(f"{self.name}.{name} {_OWN_ENTRY}.")
        known = ", ".join(sorted(self.methods)) or "none"
        return ActorUnknownMethodError(f"{self.name} has no method {name!r}. It has: {known}.")

    def routes(self) -> list[Route]:
        """Those that the docstring of ``fetch`` lists."""
        return _routes(self.cls.fetch)

    def describe(self) -> dict[str, Any]:
        methods = sorted(self.methods.values(), key=lambda m: m.function.__code__.co_firstlineno)
        return {
            "type": self.name,
            "binding": self.binding,
            "version": self.version,
            "exposed": self.exposed,
            "methods": [m.describe() for m in methods],
        }


class Mounted(NamedTuple):
    """The front door of a further program: a function, or an ASGI application."""

    mount: str
    front_door: FrontDoor | None
    app: Any


class Program:
    """All that a worker serves: one program, or several that share their types."""

    def __init__(
        self,
        name: str,
        types: list[ActorType],
        front_door: FrontDoor | None,
        module: ModuleType | None = None,
        app: Any = None,
        *,
        bindings: dict[str, ActorType] | None = None,
        mounted: Sequence[Mounted] = (),
    ) -> None:
        """``bindings``: by default each type under its own."""
        self.name = name
        self.module = module
        self.types = {t.name: t for t in types}
        self.bindings = {t.binding: t for t in types} if bindings is None else bindings
        self.front_door = front_door
        self.app = app  # an ASGI application, instead of a front door's function
        self.mounted = tuple(mounted)

    @property
    def has_front_door(self) -> bool:
        return self.front_door is not None or self.app is not None or bool(self.mounted)

    def type(self, name: str) -> ActorType:
        found = self.types.get(name)
        if found is None:
            raise self.unknown_type(name)
        return found

    def unknown_type(self, name: str, *, outside: bool = False) -> ActorUnknownTypeError:
        """What to say of a type that is not there; ``outside``: for whom those that are not exposed aren't either."""
        known = ", ".join(sorted(n for n, t in self.types.items() if t.exposed or not outside)) or "none"
        return ActorUnknownTypeError(f"There is no actor type {name!r}. There is: {known}.")

    def routes(self) -> list[Route]:
        """Those that the front door's docstring lists."""
        return _routes(self.front_door)

    def describe(self) -> dict[str, Any]:
        """The program as plain JSON: types, methods, and the routes that the front door's docstring lists."""
        return {
            "name": self.name,
            "front_door": self.has_front_door,
            "mounts": [one.mount for one in self.mounted],
            "routes": [
                {"method": route.method, "path": route.path, "body": route.body or None} for route in self.routes()
            ],
            "types": [t.describe() for t in self.types.values()],
        }


def load_program(app: App) -> Program:
    """Import the programs that ``app`` names and build their tables. Raises ``ProgramError``."""
    main = _import(app)
    modules: list[tuple[App | MountedProgram, ModuleType]] = [(app, main)]
    modules += [(one, _import(App(root=app.root, main=one.main))) for one in app.programs]
    classes: dict[str, type[StatefulActor]] = {}
    for _, module in modules:
        for name, cls in _actor_classes(module).items():
            if classes.setdefault(name, cls) is not cls:
                raise ProgramError(
                    f"Two programs have a class {name}: the type of an actor is the name of its class, so one of them "
                    f"has to import it from the other ({classes[name].__module__}, {cls.__module__})."
                )
    types: dict[str, ActorType] = {}
    bindings: dict[str, ActorType] = {}
    for one, module in modules:
        for binding, name in _bindings(one, module, classes).items():
            if name not in types:
                _check_type_name(name)
                types[name] = ActorType(classes[name], binding)
            other = bindings.setdefault(binding, types[name]).name
            if other != name:
                raise ProgramError(f"Two programs have the binding {binding!r}, for {other} and for {name}.")
    _expose([one for program, _ in modules for one in program.actors], types)
    front_door, asgi = _front_door(app.main, main)
    mounted = []
    for further, (_, module) in zip(app.programs, modules[1:], strict=True):
        found = Mounted(further.mount, *_front_door(further.main, module))
        has_door = found.front_door is not None or found.app is not None
        if has_door and not further.mount:
            raise ProgramError(f"{further.main} has a front door: give it a mount below [[programs]].")
        if further.mount and not has_door:
            raise ProgramError(f"{further.main} has a mount below [[programs]], and neither `fetch` nor `app`.")
        if has_door:
            mounted.append(found)
    program = Program(
        app.name or Path(app.main).stem,
        list(types.values()),
        front_door,
        main,
        asgi,
        bindings=bindings,
        mounted=mounted,
    )
    if not types and not program.has_front_door:
        raise ProgramError(
            f"{app.main} has no StatefulActor subclass, no `async def fetch(request, env)`, and no ASGI "
            "application `app`."
        )
    return program


def _actor_classes(module: ModuleType) -> dict[str, type[StatefulActor]]:
    return {
        type_name(value): value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, StatefulActor) and value is not StatefulActor
    }


def _bindings(
    program: App | MountedProgram, module: ModuleType, classes: dict[str, type[StatefulActor]]
) -> dict[str, str]:
    """Binding -> type's name: as ``[[actors]]`` says, else the module's classes under their own names."""
    if not program.actors:
        return {upper_snake(name): name for name in _actor_classes(module) if not name.startswith("_")}
    for binding in program.actors:
        if binding.type not in classes:
            known = ", ".join(sorted(classes)) or "no StatefulActor subclass"
            raise ProgramError(f"[[actors]] names the type {binding.type!r}, but the program has: {known}.")
    return {binding.binding: binding.type for binding in program.actors}


def _expose(stated: Iterable[ActorBinding], types: dict[str, ActorType]) -> None:
    """What ``[[actors]]`` say of who may reach a type wins over its class. Types have it, not bindings."""
    said: dict[str, bool] = {}
    for one in stated:
        if one.expose is not None and said.setdefault(one.type, one.expose) != one.expose:
            raise ProgramError(f"[[actors]] say of the type {one.type!r} that it is exposed, and that it is not.")
    for name, exposed in said.items():
        types[name].exposed = exposed


def _front_door(name: str, module: ModuleType) -> tuple[FrontDoor | None, Any]:
    front_door = getattr(module, "fetch", None)
    asgi = _application(getattr(module, "app", None))
    if front_door is not None and asgi is not None:
        raise ProgramError(
            f"{name} has both `fetch` and `app`, and every path is served by one: rename either, or mount what "
            "`fetch` does as routes of `app`."
        )
    if front_door is not None and not inspect.iscoroutinefunction(front_door):
        raise ProgramError("`fetch` must be `async def fetch(request, env) -> Response`.")
    return front_door, asgi


def _routes(function: Callable[..., Any] | None) -> list[Route]:
    doc = inspect.getdoc(function) if function is not None else None
    return [Route(*found) for found in _ROUTE.findall(doc or "")]


def _application(app: Any) -> Any:
    """The module's ``app`` if it is an ASGI 3 application; None for what is nothing to call."""
    if app is None or not callable(app):
        return None
    if inspect.isclass(app):
        raise ProgramError("`app` is a class: make an instance of it, as in `app = FastAPI()`.")
    if not inspect.iscoroutinefunction(app) and not inspect.iscoroutinefunction(getattr(app, "__call__", None)):  # noqa: B004
        try:
            inspect.signature(app).bind({}, None, None)
        except (TypeError, ValueError):
            raise ProgramError(
                "`app` is no ASGI 3 application, `async def app(scope, receive, send)`. A WSGI application (Flask, "
                "Django's wsgi) needs an adapter such as a2wsgi; anything else needs another name."
            ) from None
    return app


def upper_snake(name: str) -> str:
    """``ShoppingCart`` -> ``SHOPPING_CART``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).upper()


def _import(app: App) -> ModuleType:
    root = str(Path(app.root).resolve())
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        if app.main.endswith(".py"):
            return _import_file(Path(root, app.main))
        return importlib.import_module(app.main)
    except ProgramError:
        raise
    except ModuleNotFoundError as error:
        where = f"Is it installed in {sys.prefix}?"
        raise ProgramError(f"{app.main} can't be imported: {error}. {where}") from _theirs(error)
    except Exception as error:
        raise ProgramError(f"{app.main} can't be imported: {type(error).__name__}: {error}") from _theirs(error)


def _theirs(error: Exception) -> Exception:
    """The error with the frames of the program alone: how it is imported helps nobody."""
    frames = error.__traceback__
    python = (importlib.__file__, "<frozen importlib")
    while frames and (frames.tb_frame.f_globals is globals() or frames.tb_frame.f_code.co_filename.startswith(python)):
        frames = frames.tb_next
    return error.with_traceback(frames)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ProgramError(f"There is no file {path}.")
    sys.path.insert(0, str(path.parent))
    name = path.stem if path.stem.isidentifier() else "actord_program"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _check_type_name(name: str) -> None:
    if len(name) > TYPE_CHARS or "__" in name or not name.isascii():
        raise ProgramError(
            f"The class name {name!r} can't be a type: ASCII, at most {TYPE_CHARS} characters, no double underscore."
        )


def _rpc(cls: type[StatefulActor], found: dict[str, Callable[..., Any]]) -> tuple[str, ...]:
    names = (cls.rpc,) if isinstance(cls.rpc, str) else tuple(cls.rpc or ())
    for name in names:
        if name not in found:
            raise ProgramError(f"{cls.__name__}.rpc lists {name!r}, which is no public method of the class.")
    return names


def _seconds(cls: type[StatefulActor], attribute: str) -> float | None:
    value = getattr(cls, attribute)
    if value is None:
        return None
    if not isinstance(value, int | float) or not value > 0:
        raise ProgramError(f"{cls.__name__}.{attribute} must be a number of seconds above 0, not {value!r}.")
    return float(value)


def _version(cls: type[StatefulActor]) -> int:
    """Its class attribute ``version``; a method of that name is no version."""
    version = getattr(cls, "version", 1)
    if callable(version):
        return 1
    if type(version) is not int or version < 1:
        raise ProgramError(f"{cls.__name__}.version must be a whole number of at least 1, not {version!r}.")
    return version


def _upgrades(cls: type[StatefulActor], version: int) -> dict[int, Callable[[Any], Any]]:
    """The version that each leads to -> the method. They have to follow each other up to the class's version."""
    found: dict[int, Callable[[Any], Any]] = {}
    for base in cls.__mro__:
        for name, value in vars(base).items():
            to = getattr(value, "__actord_upgrade__", None)
            if to is None or getattr(cls, name, None) is not value:  # a subclass has another of this name
                continue
            if not inspect.iscoroutinefunction(value) or len(inspect.signature(value).parameters) != 1:
                raise ProgramError(f"{cls.__name__}.{name} must be `async def {name}(self)`: it is an upgrade.")
            if to in found:
                raise ProgramError(f"{cls.__name__} has two upgrades to version {to}: {found[to].__name__} and {name}.")
            found[to] = value
    first = min(found, default=version + 1)
    if sorted(found) != list(range(first, version + 1)):
        raise ProgramError(
            f"{cls.__name__} has version {version} and upgrades to {', '.join(map(str, sorted(found))) or 'none'}: one "
            f"for each version up to {version} is needed, as in `@upgrade({version})`."
        )
    if version > 1 and not found:
        raise ProgramError(f"{cls.__name__} has version {version} and no `@upgrade({version})` that leads to it.")
    return found


def _has_alarm(cls: type[StatefulActor]) -> bool:
    handler = getattr(cls, "alarm", None)
    if handler is None:
        return False
    try:
        inspect.signature(handler).bind(None, None)
        fits = inspect.iscoroutinefunction(handler)
    except TypeError:
        fits = False
    if not fits:
        raise ProgramError(f"{cls.__name__}.alarm must be `async def alarm(self, info)`.")
    return True


def _count(cls: type[StatefulActor], attribute: str, least: int) -> int | None:
    value = getattr(cls, attribute)
    if value is not None and (type(value) is not int or value < least):
        raise ProgramError(f"{cls.__name__}.{attribute} must be a whole number of at least {least}, not {value!r}.")
    return value


def _builder(cls: type[StatefulActor]) -> Callable[[Any, Any], StatefulActor]:
    """How to construct an instance: its ``__init__`` takes (ctx, env) or nothing; ctx and env are there either way."""
    if cls.__init__ is StatefulActor.__init__:
        return cls
    try:
        inspect.signature(cls.__init__).bind(None, None, None)
        takes_both = True
    except TypeError:
        takes_both = False
        try:
            inspect.signature(cls.__init__).bind(None)
        except TypeError:
            raise ProgramError(f"{cls.__name__}.__init__ must take (self, ctx, env) or (self) alone.") from None

    def build(ctx: Any, env: Any) -> StatefulActor:
        instance = cls.__new__(cls)
        instance.ctx = ctx
        instance.env = env
        if takes_both:
            cls.__init__(instance, ctx, env)
        else:
            cls.__init__(instance)  # type: ignore[call-arg]
        return instance

    return build
