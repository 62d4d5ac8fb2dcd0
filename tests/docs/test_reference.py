"""The reference pages name everything that exists, and nothing that does not."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from actord import errors, limits
from actord.codec import DEPTH_MAX
from actord.context import Context, Storage
from actord.http import Request, Response
from actord.server import cli, exits
from actord.server.cli import app
from actord.server.config import OTHER_VARIABLES, SECTIONS, SHORT
from actord.server.metric_names import METRICS
from actord.settings import Settings

from tests.docs import metrics, options, pages, sessions
from tests.docs.pages import PAGES, ROOT, Block
from tests.test_layers import ALLOWED, FOLDERS

DOCS = ROOT / "docs"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
ERRORS = {
    name: cls
    for name, cls in vars(errors).items()
    if inspect.isclass(cls)
    and issubclass(cls, errors.ActordError)
    # the store's own errors don't reach a caller, but for the one that a read can meet
    and (cls is errors.StoreCorrupt or not issubclass(cls, errors.StorageError))
    and not pages.planned(name)
}
WORDS = {page: pages.code_words(pages.prose(page)) for page in PAGES}
EVERY_WORD = sorted({word for words in WORDS.values() for word in words})


def words_like(pattern: str) -> list[str]:
    return [word for word in EVERY_WORD if re.fullmatch(pattern, word)]


# -- options


def test_the_tables_of_options_are_those_of_the_manual() -> None:
    page = options.PAGE.read_text()
    shown = page.partition(options.BEGIN)[2].partition(options.END)[0]
    assert shown.strip() == options.tables().strip(), "run: python -m tests.docs.options write"


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    shown = metrics.PAGE.read_text().partition(metrics.BEGIN)[2].partition(metrics.END)[0]
    assert shown.strip() == metrics.table().strip(), "run: python -m tests.docs.metrics write"


def test_every_metric_that_a_page_names_exists() -> None:
    known = {metric.name for metric in METRICS}
    known |= {f"{metric.name}_{part}" for metric in METRICS for part in ("bucket", "count", "sum")}
    assert [name for name in words_like(r"actord_[a-z_]+") if name not in known] == []


def test_every_option_that_a_page_names_exists() -> None:
    named = words_like(rf"({'|'.join(SECTIONS)})\.[a-z_]+")
    assert len(named) > 20
    assert [name for name in named if name.partition(".")[2] not in SECTIONS[name.partition(".")[0]][1]] == []


def test_every_variable_that_a_page_names_exists() -> None:
    known = {f"ACTORD_{section}_{key}".upper() for section, (_, keys) in SECTIONS.items() for key in keys}
    named = {word for page in PAGES for word in re.findall(r"\bACTORD_[A-Z_]+\b", pages.prose(page))} - {"ACTORD_"}
    assert named - known - set(SHORT) - OTHER_VARIABLES == set()
    assert set(SHORT) | OTHER_VARIABLES <= named


def test_limits_of_http_are_the_defaults_of_their_options() -> None:
    settings = Settings().http
    shown = {}
    for row in pages.rows(pages.section(DOCS / "http.md", "What is refused, and when a connection ends")):
        key = row[1].strip("`").removeprefix("http.")
        number = re.match(r"([\d,]+)( KiB| MiB)?", row[2])
        scale = {None: 1, " KiB": 1024, " MiB": 1024 * 1024}
        shown[key] = 0 if number is None else int(number[1].replace(",", "")) * scale[number[2]]
    assert shown == {key: getattr(settings, key) for key in shown}
    assert set(shown) >= {key for key in SECTIONS["http"][1] if key not in {"write_buffer", "call_deadline"}} - {
        "server_timing",
        "origins",
        "root_path",
    }


# -- the command line


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_described_with_all_of_its_options(command: str) -> None:
    described = [row[0] for row in pages.rows(pages.section(DOCS / "cli.md", f"`actord {command}`"))]
    parameters = [p for p in COMMANDS[command].params if p.param_type_name == "option"]
    existing = [f"`{p.opts[0]}`" for p in parameters] + ["`--help`"]
    assert all(len(p.opts) == 1 and not p.secondary_opts for p in parameters)
    assert sorted(described) == sorted(existing)


def test_every_command_is_listed() -> None:
    listed = [row[0].strip("`") for row in pages.rows((DOCS / "cli.md").read_text().partition("## Exit codes")[0])]
    assert listed == [name for chapter in cli.CHAPTERS.values() for name in chapter]


def test_every_exit_code_is_listed() -> None:
    listed = [int(row[0]) for row in pages.rows(pages.section(DOCS / "cli.md", "Exit codes"))]
    assert listed == sorted({value for name, value in vars(exits).items() if name.isupper()})


def test_the_exit_codes_are_those_of_the_help() -> None:
    listed = [int(row[0]) for row in pages.rows(pages.section(DOCS / "cli.md", "Exit codes"))]
    told = typer.main.get_command(app).help.partition("Exit codes:")[2]  # type: ignore[union-attr]
    assert [int(code) for code in re.findall(r"^ +(\d+) ", told, re.MULTILINE)] == listed


def test_exit_codes_in_sentences_are_listed_ones() -> None:
    known = {value for name, value in vars(exits).items() if name.isupper()}
    named = {int(code) for page in PAGES for code in re.findall(r"exit code (\d+)", page.read_text())}
    assert named
    assert named <= known


def command_lines() -> list[tuple[Block, str]]:
    found = []
    for block in pages.all_blocks("sh", "console"):
        lines = (
            [command for command, _ in sessions.commands(block)]
            if block.language == "console"
            else block.text.splitlines()
        )
        found += [(block, part.strip()) for line in lines for part in re.split(r"&&|;|[>&]", line) if part.strip()]
    return found


@pytest.mark.parametrize(
    ("block", "line"), [(b, line) for b, line in command_lines() if "actord " in line], ids=lambda value: str(value)
)
def test_an_actord_command_on_a_page_can_be_parsed(block: Block, line: str) -> None:
    words = shlex.split(line)
    command, *arguments = words[words.index("actord") + 1 :]
    if command.startswith("--"):
        assert command in ("--version", "--help")
        return
    COMMANDS[command].make_context(command, arguments)


@pytest.mark.parametrize("line", sorted({line for _, line in command_lines() if line.startswith("make ")}))
def test_a_make_target_on_a_page_exists(line: str) -> None:
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_make_targets_in_sentences_exist() -> None:
    named = words_like(r"make \w+")
    assert named
    assert [
        w for w in named if not re.search(rf"^{w.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    ] == []


def test_the_first_two_commands_serve_the_example_and_run_the_tests() -> None:
    assert pages.blocks(ROOT / "README.md", "sh")[0].text == "make serve\nmake test\n"
    assert sessions.recipe("serve") == f"{sessions.BIN}/actord serve examples/account.py"
    assert sessions.recipe("test").splitlines()[-1].split()[:3] == [f"{sessions.BIN}/python", "-m", "pytest"]
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()


# -- errors


def error_rows() -> list[list[str]]:
    return pages.rows(pages.section(DOCS / "http.md", "Errors"))


def test_every_error_is_in_the_table_or_named_as_not_raised() -> None:
    listed = {row[1].strip("`") for row in error_rows() if len(row) == 5}
    unused = pages.code_words(pages.section(DOCS / "http.md", "Errors").partition("The classes ")[2])
    assert listed | (unused & set(ERRORS)) == set(ERRORS) - {"ActordError"}


def test_status_and_retryable_of_the_table_are_those_of_the_classes() -> None:
    for status, name, retryable, applied, _ in (row for row in error_rows() if len(row) == 5):
        cls = ERRORS[name.strip("`")]
        assert retryable == ("yes" if cls.retryable else "no"), name
        assert set(applied.split(", ")) <= {"no", "yes", "unknown"}, name
        if status != "its own":
            assert int(status) in {cls().http_status, cls(disk_full=True).http_status if "Gate" in name else 0}, name


def test_the_members_of_a_problem_are_those_of_a_real_one() -> None:
    listed = {row[0].strip("`") for row in error_rows() if len(row) == 2}
    assert listed == set(errors.ActorUnavailable("x", retry_after=1).to_problem())


def test_every_error_class_that_a_page_names_exists() -> None:
    known = {name for name, value in vars(errors).items() if inspect.isclass(value)} | {"ValueError", "RuntimeError"}
    named = words_like(r"[A-Z]\w*Error|Actor[A-Z]\w+|Turn[A-Z]\w+|Instance\w+|Store[A-Z]\w+|BadRequest|Data[A-Z]\w+")
    assert len(named) > 15
    assert set(named) - known - {"ActorUser", "ActorStub"} == set()  # classes of the load test and of the client


# -- the Python API


def members(protocol: type) -> set[str]:
    names = {name for name, value in vars(protocol).items() if not name.startswith("_") and value is not None}
    return {name for name in names if not pages.planned(name)}


def test_every_member_of_the_context_is_described() -> None:
    described = {
        re.split(r"[.(]", row[0].strip("`"))[1] for row in pages.rows(pages.section(DOCS / "actors.md", "`self.ctx`"))
    }
    assert described == members(Context)


def test_every_method_of_the_storage_is_described_with_its_signature() -> None:
    storage = pages.section(DOCS / "actors.md", "Storage").partition("###")[0]
    described = {}
    for row in pages.rows(storage):
        node = ast.parse(f"def {row[0].strip('`')}: ...").body[0]
        assert isinstance(node, ast.FunctionDef)
        defaults = [ast.literal_eval(value) for value in node.args.defaults]
        described[node.name] = ([argument.arg for argument in node.args.args], defaults)
    existing = {}
    for name in members(Storage):
        if isinstance(inspect.getattr_static(Storage, name), property):
            continue
        parameters = list(inspect.signature(getattr(Storage, name)).parameters.values())[1:]
        names = ["mapping" if p.name == "values" else p.name for p in parameters]
        existing[name] = (names, [p.default for p in parameters if p.default is not p.empty])
    assert described == existing


@pytest.mark.parametrize(("cls", "index"), [(Request, 0), (Response, 1)])
def test_members_of_request_and_response_exist(cls: type, index: int) -> None:
    section = pages.section(DOCS / "front-door.md", "Request and Response")
    first = pages.rows(section[: section.index("| `Response`")] if index == 0 else section[section.index("| `Resp") :])
    named = {
        re.split(r"[( ]", word.removeprefix("await ").removeprefix(f"{cls.__name__}."))[0]
        for row in first
        for word in re.findall(r"`([^`]+)`", row[0])
    } - {cls.__name__}
    assert named
    assert [name for name in named if not hasattr(cls, name)] == []
    assert {name for name in dir(cls) if not name.startswith("_")} - named <= {
        "from_wire",
        "to_wire",
        "head",
        "body_follows",
        "on_progress",
    }


def test_the_limits_of_actors_are_those_of_the_code() -> None:
    table = {row[0]: row[1] for row in pages.rows(pages.section(DOCS / "actors.md", "Limits"))}
    settings = Settings().actors
    expected = {
        "name of an instance": f"1 to {limits.NAME_BYTES} bytes",
        "class name (actor type)": f"{limits.TYPE_CHARS} characters",
        "key": f"1 to {limits.STORAGE_KEY_BYTES:,} bytes",
        f"keys that begin with `{limits.STORAGE_RESERVED_PREFIX}`": "reserved",
        "one value, encoded": f"{limits.VALUE_BYTES:,} bytes",
        "nesting of containers in a value": str(DEPTH_MAX),
        "`limit` of `list`": f"1 to {limits.LIST_MAX:,}, default {limits.LIST_DEFAULT}",
        "the data of one event, as JSON": f"{limits.EVENT_BYTES:,} bytes",
        "calls waiting for one instance": f"`runtime.mailbox`, {settings.mailbox:,}",
        "running time of a call": f"`runtime.call_timeout`, {settings.call_timeout:g} s",
        "running time of an initialisation": f"`runtime.init_timeout`, {settings.init_timeout:g} s",
    }
    assert set(table) == set(expected)
    assert [name for name in table if not table[name].startswith(expected[name])] == []


# -- tests, files, architecture


@pytest.mark.parametrize("name", words_like(r"tests/[\w/.]+(::\w+)?"))
def test_a_test_that_a_page_names_exists(name: str) -> None:
    path, _, function = name.partition("::")
    assert (ROOT / path).exists()
    if function:
        assert re.search(rf"^(async )?def {function}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_every_guarantee_names_tests() -> None:
    for title in re.findall(r"^## (\d\. .*)$", (DOCS / "guarantees.md").read_text(), re.MULTILINE):
        text = pages.section(DOCS / "guarantees.md", title)
        assert all(part in text for part in ("**How.**", "**Not promised.**", "**Tests.**")), title
        assert "::test_" in text, title


@pytest.mark.parametrize(
    "path", words_like(r"(sdk|server|shards|storage|loadtest|configs|examples|\.ci)/([\w/-]*\.(py|toml))?")
)
def test_a_file_that_a_page_names_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"run": project["dependencies"], **project["optional-dependencies"]}
    wanted = {(re.split(r"[<>=]", item)[0], group) for group, items in groups.items() for item in items}
    listed = {(row[0].strip("`"), row[1]) for row in pages.rows(pages.section(ARCHITECTURE, "Dependencies"))}
    assert listed == wanted


def test_the_layers_are_those_that_the_tests_enforce() -> None:
    listed = {}
    for module, allowed in pages.rows(pages.section(ARCHITECTURE, "Layers")):
        listed[module.strip("`")] = set(re.findall(r"`([^`]+)`", allowed))
    assert listed == {module: set(allowed) for module, allowed in ALLOWED.items()}


def test_every_folder_is_described() -> None:
    listed = {row[0].strip("`/") for row in pages.rows(pages.section(ARCHITECTURE, "Folders"))}
    assert listed >= {*FOLDERS, "tests", "examples", "docs", ".ci"}
    assert [folder for folder in listed if not (ROOT / folder).is_dir()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_plain_text_of_readable_width(page: Path) -> None:
    text = page.read_text()
    outside = [line for line in pages.prose(page).splitlines() if not line.startswith("|")]
    assert [line for line in outside if len(line) > 120] == []
    assert re.search("[\U0001f300-\U0001faff☀-⛿✀-➿]", text) is None
    assert text.endswith("\n")
