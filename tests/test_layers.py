"""The house rules of ARCHITECTURE.md: imports go one way, packages are the folders, files stay small."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {
    "sdk": "actord",
    **{name: f"actord.{name}" for name in ("server", "shards", "storage", "loadtest", "configs")},
}
MAX_LINES = 500

# Layer or module -> what of ours it may import. A module's own line wins over its folder's; a package allows its all.
ALLOWED = {
    "actord": {"actord"},
    "actord.storage": {"actord.storage", "actord.errors", "actord.limits"},
    "actord.shards": {"actord.shards", "actord.storage.api", "actord"},
    "actord.shards.worker": {"actord.shards", "actord.storage", "actord"},
    "actord.shards.migration": {"actord.shards", "actord.storage", "actord"},
    "actord.server": {
        "actord.server",
        "actord.shards.wire",
        "actord.shards.slots",
        "actord.shards.link",
        "actord.shards.shedding",
        "actord",
    },
    "actord.server.front": {"actord.shards.control"},
    "actord.server.children": {"actord.shards.control", "actord.shards.blackbox"},
    "actord.server.process": {"actord.shards.control"},
    "actord.server.rollout": {"actord.shards.control"},
    "actord.server.supervisor": {"actord.shards.control", "actord.shards.blackbox", "actord.storage.datadir"},
    "actord.server.admin": {"actord.shards.control"},
    "actord.server.commands.check": {"actord.shards.registry"},
    "actord.server.commands.openapi": {"actord.shards.openapi", "actord.shards.registry"},
    "actord.server.commands.doctor": {
        "actord.storage.doctor",
        "actord.storage.doctor_disk",
        "actord.storage.findings",
    },
    "actord.server.commands.looking": {"actord.storage.datadir", "actord.storage.look"},
    "actord.server.commands.ls": {"actord.storage.look_actor"},
    "actord.server.commands.inspect": {"actord.storage.look", "actord.storage.look_actor"},
    "actord.server.commands.backup": {
        "actord.storage.backup",
        "actord.storage.backup_files",
        "actord.storage.doctor",
        "actord.storage.restore",
        "actord.storage.stopped",
    },
    "actord.server.commands.export": {"actord.shards.whole", "actord.storage.look", "actord.storage.look_actor"},
    "actord.server.commands.moving": {"actord.shards.whole", "actord.storage.actor_edit", "actord.storage.trash"},
    "actord.server.trash": {"actord.storage.trash"},
    "actord.server.commands.sql": {"actord.storage.look", "actord.storage.look_actor", "actord.storage.look_views"},
    "actord.server.commands.values": {"actord.storage.edit", "actord.storage.look", "actord.storage.look_actor"},
    "actord.server.commands.reshard": {"actord.storage.reshard"},
    "actord.server.commands.migrate": {"actord.shards.migration", "actord.shards.registry"},
    "actord.server.machine": {"actord.storage.findings"},
    "actord.loadtest": {"actord.loadtest"},
    "actord.loadtest.client_users": {"actord.loadtest", "actord"},
    "actord.configs": set(),
}
ADDED_TO_THE_FOLDERS = {name for name in ALLOWED if name.startswith("actord.server.")}
SUBPACKAGES = set(FOLDERS.values()) - {"actord"}


def python_files() -> list[Path]:
    return [
        path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if "scaffold" not in path.parts
    ]


def module_of(path: Path) -> str:
    top, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[top], *rest]).removesuffix(".__init__")


MODULES = {module_of(path): path for path in python_files()}


def imports_of(path: Path, module: str) -> Iterator[str]:
    """The full names of the modules of ours that a file imports anywhere in it, also inside of functions."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "actord")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            if base.split(".")[0] == "actord":
                names = (f"{base}.{alias.name}" for alias in node.names)
                yield from (name if name in MODULES else base for name in names)


def layer_of(module: str) -> str:
    return next((name for name in SUBPACKAGES if module == name or module.startswith(f"{name}.")), "actord")


def is_allowed(target: str, allowed: set[str]) -> bool:
    if target in allowed:
        return True
    layer = layer_of(target)
    if layer == "actord":  # the sdk: a flat package
        return "actord" in allowed
    return layer in allowed


def forbidden_imports(path: Path, module: str) -> list[str]:
    allowed = set(ALLOWED.get(module, ALLOWED[layer_of(module)]))
    if module in ADDED_TO_THE_FOLDERS:
        allowed |= ALLOWED[layer_of(module)]
    return [target for target in imports_of(path, module) if not is_allowed(target, allowed)]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module: str) -> None:
    assert forbidden_imports(MODULES[module], module) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("actord.http", "from actord.shards import wire"),
        ("actord.storage.sqlite", "from actord import shards"),
        ("actord.storage.api", "import actord.http"),
        ("actord.shards.turns", "from actord.storage.sqlite import SqliteStore"),
        ("actord.shards.turns", "from ..storage import sqlite"),
        ("actord.server.front", "from actord.storage import datadir"),
        ("actord.server.front", "from actord.shards.turns import x"),
        ("actord.server.cli", "def f():\n    import actord.shards.registry"),
        ("actord.loadtest.bench", "import actord"),
    ],
)
def test_the_walk_sees_a_forbidden_import(module: str, line: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(line)
    assert forbidden_imports(planted, module) != []


def test_the_packages_of_the_project_are_the_folders() -> None:
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    found = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == found
    with_code = {module_of(path.parent / "__init__.py") for path in MODULES.values()}
    assert with_code == found, "a folder with Python files has no __init__.py"


def test_every_folder_is_mapped_below_the_import_package() -> None:
    mapping = PYPROJECT["tool"]["setuptools"]["package-dir"]
    assert {folder: package for package, folder in mapping.items() if "/" not in folder} == FOLDERS


@pytest.mark.parametrize(
    "path",
    [*python_files(), *sorted((ROOT / "tests").rglob("*.py"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_import_actord_is_light() -> None:
    """A process pays only for what it uses: the names of the package are loaded lazily."""
    import subprocess
    import sys

    code = "import sys, actord; print(*[m for m in sys.modules if m.startswith('actord.')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == []
