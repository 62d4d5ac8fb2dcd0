"""configs/default.toml is the manual: it holds every option, explained, with its true default, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from actord.server.config import SECTIONS, SHORT
from actord.server.rollout import NEED_RESTART
from actord.settings import Settings

FILE = Path(__file__).parent.parent / "configs" / "default.toml"
DEFAULTS: dict[str, dict[str, Any]] = {
    section: values for section, values in msgspec.to_builtins(Settings()).items() if section != "app"
}
OPTIONS = [(section, key) for section, values in DEFAULTS.items() for key in values]


def test_the_file_holds_every_option_with_its_default_and_nothing_else() -> None:
    assert tomllib.loads(FILE.read_text()) == DEFAULTS


def test_the_types_of_the_defaults_are_those_of_the_options() -> None:
    """An int where a float is meant would compare equal above."""
    written = tomllib.loads(FILE.read_text())
    assert {(s, k): type(written[s][k]) for s, k in OPTIONS} == {(s, k): type(DEFAULTS[s][k]) for s, k in OPTIONS}


@pytest.mark.parametrize(("section", "key"), OPTIONS)
def test_every_option_is_explained_right_above_it(section: str, key: str) -> None:
    body = re.search(rf"^\[{section}\]$(.*?)(?=^\[|\Z)", FILE.read_text(), re.MULTILINE | re.DOTALL)
    assert body is not None
    comment = re.search(rf"((?:^# .*\n)+)^{key} = ", body[1], re.MULTILINE)
    assert comment is not None, f"{section}.{key} has no comment above it"
    assert len(comment[1].split()) > 4


def test_the_options_that_a_reload_can_not_change_are_marked() -> None:
    marked = re.findall(r"^# A change needs a restart\.\n(\w+) = ", FILE.read_text(), re.MULTILINE)
    assert sorted(marked) == sorted(name.partition(".")[2] for name in NEED_RESTART)
    assert {tuple(name.split(".")) for name in NEED_RESTART} <= set(OPTIONS)
    page = (FILE.parent.parent / "docs" / "operations.md").read_text()
    assert (
        set(re.findall(r"`([a-z]+\.[a-z_]+)`", page.partition("These options need a restart")[2].partition("\n\n")[0]))
        == NEED_RESTART
    )


def test_the_sections_of_files_are_those_of_the_settings() -> None:
    assert {section: set(keys) for section, (_, keys) in SECTIONS.items()} == {s: set(v) for s, v in DEFAULTS.items()}


def test_the_file_names_every_short_variable() -> None:
    text = FILE.read_text()
    assert [name for name in SHORT if name not in text] == []
