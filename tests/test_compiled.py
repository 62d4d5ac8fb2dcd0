"""A ``.pxd`` does not fall behind the ``.py`` beside it: both name the same attributes, methods and local variables.

A class of a ``.pxd`` has no ``__dict__`` once it is compiled, so an attribute that the ``.py`` alone has would be an
AttributeError there, and only there. These tests read the files: no compiler is needed.
"""

from __future__ import annotations

import ast
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
TYPED = sorted({path.relative_to(ROOT) for folder in FOLDERS.values() for path in (ROOT / folder).rglob("*.pxd")})

Function = ast.FunctionDef | ast.AsyncFunctionDef

STEPPERS_OWN = {"send"}  # what stepping.py has for its generator, which stepping.pyx does without

_CIMPORT = re.compile(r"from ([\w.]+) cimport (.+)$")
_CLASS = re.compile(r"cdef class (\w+)(?:\((\w+)\))?:$")
_LOCALS = re.compile(r"@cython\.locals\((.*)\)$")
_METHOD = re.compile(r"(cpdef|cdef) (?:.+ )?(\w+)\((.*)\)(?: except .+)?$")
_ATTRIBUTES = re.compile(r"cdef (?:public |readonly )?(.+)$")
_NAME = re.compile(r"(\w+)(=\*)?$")  # what is left of it is its type


@dataclass
class Method:
    kind: str  # cpdef or cdef
    least: int
    most: int
    locals: set[str]


@dataclass
class Declared:
    """What a ``.pxd`` says of a class; of its functions, when it is no class."""

    base: tuple[Path, str] | None = None
    attributes: set[str] = field(default_factory=set)
    public: set[str] = field(default_factory=set)
    methods: dict[str, Method] = field(default_factory=dict)


def read_pxd(root: Path, typed: Path) -> dict[str, Declared]:
    """Classes by name, and "": the module. A line that is not understood is an error."""
    where: dict[str, Path] = {}  # cimported classes
    found = {"": Declared()}
    current, names = "", set()
    for line in (root / typed).read_text().splitlines():
        text = line.partition("#")[0].strip()
        if not text or text == "cimport cython":
            continue
        if not line.startswith(" ") and not text.startswith("@"):
            current = ""
        if match := _CIMPORT.match(text):
            where |= dict.fromkeys(match[2].split(", "), path_of(match[1]))
        elif match := _CLASS.match(text):
            current = match[1]
            found[current] = Declared((where.get(match[2], typed), match[2]) if match[2] else None)
        elif match := _LOCALS.match(text):
            names = set(re.findall(r"(\w+)=", match[1]))
        elif match := _METHOD.match(text):
            arguments = [_NAME.search(part) for part in match[3].split(", ") if part]
            optional = sum(argument is not None and argument[2] is not None for argument in arguments)
            found[current].methods[match[2]] = Method(match[1], len(arguments) - optional, len(arguments), names)
            names = set()
        elif match := _ATTRIBUTES.match(text):
            attributes = {part.split()[-1] for part in match[1].split(", ")}
            found[current].attributes |= attributes
            if text.startswith("cdef public"):
                found[current].public |= attributes
        else:
            raise ValueError(f"{typed}: {line}")
    return found


def path_of(module: str) -> Path:
    """``actord.shards.call``: shards/call.pxd."""
    package, _, name = module.rpartition(".")
    return Path(FOLDERS[package], f"{name}.pxd")


@dataclass
class Written:
    """What a ``.py`` says of a class."""

    bases: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    methods: dict[str, Function] = field(default_factory=dict)


def read_class(node: ast.ClassDef) -> Written:
    """Attributes: what is in ``__slots__``, annotated in the class, or assigned on ``self``; no property."""
    found = Written({ast.unparse(base).rpartition(".")[2] for base in node.bases})
    properties = set()
    for entry in node.body:
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name):
            if "ClassVar" not in ast.unparse(entry.annotation):
                found.attributes.add(entry.target.id)
        elif isinstance(entry, ast.Assign) and ast.unparse(entry.targets[0]) == "__slots__":
            found.attributes |= set(ast.literal_eval(entry.value))
        elif isinstance(entry, Function):
            found.methods[entry.name] = entry
            if any(ast.unparse(each) in ("property", f"{entry.name}.setter") for each in entry.decorator_list):
                properties.add(entry.name)
            found.attributes |= set(assigned_on_self(entry))
    found.attributes -= properties
    return found


def assigned_on_self(function: Function) -> Iterator[str]:
    own = {argument.arg for argument in [*function.args.posonlyargs, *function.args.args][:1]}
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            yield from {node.attr} if node.value.id in own else ()


def read_py(root: Path, typed: Path) -> dict[str, Written]:
    """Classes by name, and "": the functions of the module."""
    body = ast.parse((root / typed.with_suffix(".py")).read_text()).body
    functions = {node.name: node for node in body if isinstance(node, Function)}
    return {"": Written(methods=functions)} | {
        node.name: read_class(node) for node in body if isinstance(node, ast.ClassDef)
    }


def known_below(root: Path, base: tuple[Path, str]) -> set[str]:
    """What the declared subclasses of a class assign: an interface declares it for all of them."""
    found: set[str] = set()
    for typed in TYPED:
        for name, declared in read_pxd(root, typed).items():
            if declared.base == base:
                found |= read_py(root, typed)[name].attributes | known_below(root, (typed, name))
    return found


def problems(root: Path, typed: Path) -> list[str]:
    """What a ``.pxd`` and its source say differently."""
    classes = read_py(root, typed)
    pyx = root / typed.with_suffix(".pyx")
    found = []
    for name, declared in read_pxd(root, typed).items():
        written = classes.get(name)
        if written is None:
            found.append(f"class {name} is not in the source")
        elif pyx.exists():
            found += [f"{name}: {problem}" for problem in unlike_pyx(declared, written, pyx.read_text())]
        else:
            found += [f"{name}: {problem}" for problem in unlike(root, declared, written, typed, name)]
    return found


def unlike(root: Path, declared: Declared, written: Written, typed: Path, class_: str) -> Iterator[str]:
    if declared.base is not None and declared.base[1] not in written.bases:
        yield f"{declared.base[1]} is no base in the source"
    inherited: set[str] = set()
    base = declared.base
    while base is not None:
        of_base = read_pxd(root, base[0])[base[1]]
        inherited |= of_base.attributes
        base = of_base.base
    yield from (f"{name} is not declared" for name in sorted(written.attributes - declared.attributes - inherited))
    unknown = declared.attributes - written.attributes - {"__weakref__"}
    if unknown:
        unknown -= known_below(root, (typed, class_))
    yield from (f"{name} is declared, and not in the source" for name in sorted(unknown))
    for name, method in declared.methods.items():
        function = written.methods.get(name)
        if function is None:
            yield f"method {name} is declared, and not in the source"
        else:
            yield from (f"method {name}: {problem}" for problem in unlike_function(method, function))


def unlike_function(method: Method, function: Function) -> Iterator[str]:
    arguments = function.args
    if arguments.vararg or arguments.kwarg:
        yield "takes any number of arguments"
    most = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
    defaults = len(arguments.defaults) + sum(default is not None for default in arguments.kw_defaults)
    if (method.least, method.most) != (most - defaults, most):
        yield f"declared with {method.least} to {method.most} arguments"
    stored = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    stored |= {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    yield from (f"{name} is no variable of it" for name in sorted(method.locals - stored))


def unlike_pyx(declared: Declared, written: Written, pyx: str) -> Iterator[str]:
    """A ``.pyx`` does the same in another way, so this is about what others see: names without an underscore."""
    seen = {name for name in written.attributes if not name.startswith("_")}
    seen |= {name for name in written.methods if not name.startswith("_")}
    offered = declared.public | declared.methods.keys() | set(re.findall(r"@property\n    def (\w+)", pyx))
    yield from (f"{name} is not in the .pyx" for name in sorted(seen - offered - STEPPERS_OWN))
    yield from (f"{name} is declared, and not in the .py" for name in sorted(declared.public - written.attributes))
    for name, method in declared.methods.items():
        if f" {name}(" not in pyx:
            yield f"method {name} is declared, and not in the .pyx"
        elif method.kind == "cpdef" and name not in written.methods:
            yield f"method {name} is declared, and not in the .py"
        elif method.kind == "cpdef":
            yield from (f"method {name}: {problem}" for problem in unlike_function(method, written.methods[name]))


def test_there_is_something_to_compile() -> None:
    assert Path("shards/turns.pxd") in TYPED


@pytest.mark.parametrize("typed", TYPED, ids=str)
def test_what_is_declared_is_what_is_written(typed: Path) -> None:
    assert problems(ROOT, typed) == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that these tests read, to be changed."""
    for typed in TYPED:
        (tmp_path / typed).parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".pxd", ".py", ".pyx"):
            if (ROOT / typed.with_suffix(suffix)).exists():
                shutil.copy(ROOT / typed.with_suffix(suffix), tmp_path / typed.with_suffix(suffix))
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


CLASSES = [(typed, name) for typed in TYPED for name in read_pxd(ROOT, typed) if name]


@pytest.mark.parametrize(("typed", "class_"), CLASSES, ids=str)
def test_an_attribute_that_a_class_alone_has_is_found(typed: Path, class_: str, copy: Path) -> None:
    path = copy / typed.with_suffix(".py")
    lines = path.read_text().splitlines()
    [node] = [node for node in ast.parse(path.read_text()).body if getattr(node, "name", "") == class_]
    lines[node.end_lineno : node.end_lineno] = ["", "    def planted(self):", "        _, self.planted_one = 1, 2"]
    path.write_text("\n".join(lines))
    assert [problem for problem in problems(copy, typed) if "planted_one" in problem]


@pytest.mark.parametrize(("typed", "class_"), CLASSES, ids=str)
def test_an_attribute_that_a_declaration_alone_has_is_found(typed: Path, class_: str, copy: Path) -> None:
    lines = (copy / typed).read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if re.match(rf"cdef class {class_}\b", line))
    lines.insert(at + 1, "    cdef public object planted")
    (copy / typed).write_text("\n".join(lines))
    assert [problem for problem in problems(copy, typed) if "planted is declared" in problem]


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("shards/call.py", '"writes",', '"writes",\n        "planted",'),
        ("shards/call.pxd", "cpdef leave(self)", "cpdef leave(self, more)"),
        ("shards/call.pxd", "cpdef leave(self)", "cpdef gone(self)"),
        ("shards/call.pxd", "cdef class Call:", "cdef class Gone:"),
        ("shards/call.py", "def succeed(self, value: Any)", "def succeed(self, value: Any = None)"),
        ("shards/turns.pxd", "commit=*", "commit"),
        ("shards/turns.py", "class TurnRunner(Stepping)", "class TurnRunner(Other)"),
        ("shards/wire.pxd", "need=cython", "gone=cython"),
        ("shards/stepping.pxd", "cpdef leave(self)", "cpdef left(self)"),
        ("shards/stepping.pyx", "def box(self)", "def gone(self)"),
        ("sdk/slots.pxd", "str type_, str name", "str key"),
    ],
)
def test_what_else_differs_is_found(path: str, old: str, new: str, copy: Path) -> None:
    change(copy / path, old, new)
    assert problems(copy, Path(path).with_suffix(".pxd")) != []


def test_a_line_that_is_not_understood_is_an_error(copy: Path) -> None:
    change(copy / "shards/call.pxd", "cimport cython", "ctypedef int planted")
    with pytest.raises(ValueError, match="ctypedef int planted"):
        problems(copy, Path("shards/call.pxd"))
