"""Where settings come from, which one wins, and what a wrong one is answered."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from actord.server.config import SECTIONS, resolve
from actord.server.exits import CONFIG, ConfigError
from actord.settings import ActorBinding, Settings


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty but for a program."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "app.py").touch()
    return tmp_path / "here"


def project(folder: Path, text: str = "") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "app.py").touch()
    (folder / "actord.toml").write_text('main = "app.py"\n' + text)
    return folder


def settings(
    app: str | None = "app.py",
    environ: Mapping[str, str] | None = None,
    flags: Mapping[tuple[str, str], Any] | None = None,
    config: str | None = None,
) -> Settings:
    return resolve(app, config=config, flags=flags, environ=environ or {})


def refused(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(ConfigError) as info:
        settings(*args, **kwargs)
    assert info.value.exit == CONFIG
    return str(info.value)


# -- which one wins


def test_without_anything_the_defaults_count(here: Path) -> None:
    found = settings()
    expected = Settings()
    expected.server.data_dir = str(here / "data")
    expected.app = found.app
    assert found == expected


def test_file_beats_default_environment_beats_file_and_flag_beats_environment(here: Path) -> None:
    project(here, "[server]\nport = 1001\n")
    flag = {("server", "port"): 1003}
    assert settings(".").server.port == 1001
    assert settings(".", {"ACTORD_PORT": "1002"}).server.port == 1002
    assert settings(".", {"ACTORD_SERVER_PORT": "1002"}).server.port == 1002
    assert settings(".", {"ACTORD_PORT": "1002"}, flag).server.port == 1003


def test_a_flag_that_was_not_given_changes_nothing(here: Path) -> None:
    assert settings(environ={"ACTORD_PORT": "1002"}, flags={("server", "port"): None}).server.port == 1002


@pytest.mark.parametrize("section", list(SECTIONS))
def test_every_key_can_be_set_in_the_environment(here: Path, section: str) -> None:
    attribute, keys = SECTIONS[section]
    defaults = getattr(Settings(), attribute)
    texts = {key: _as_text(getattr(defaults, key)) for key in keys}
    environ = {f"ACTORD_{section}_{key}".upper(): text for key, text in texts.items()}
    found = getattr(settings(environ=environ), attribute)
    if section == "server":
        found.data_dir = "data"
    assert found == defaults


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_truth_in_the_environment(here: Path, text: str, value: bool) -> None:
    assert settings(environ={"ACTORD_SERVER_PIN": text}).server.pin is value


def test_the_same_key_under_two_variables(here: Path) -> None:
    both = {"ACTORD_PORT": "1", "ACTORD_SERVER_PORT": "1"}
    assert settings(environ=both).server.port == 1
    assert "ACTORD_PORT and ACTORD_SERVER_PORT" in refused(environ=both | {"ACTORD_PORT": "2"})


# -- what is not known, or can't be


def test_an_unknown_key_names_the_file_and_the_nearest_key(here: Path) -> None:
    message = refused(str(project(here / "p", "[server]\nprot = 1\n")))
    assert str(here / "p" / "actord.toml") in message
    assert "server.prot" in message
    assert "Did you mean port?" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[sever]\nport = 1", "unknown section 'sever'. Did you mean server?"),
        ("prot = 1", "unknown key 'prot'"),
        ("server = 3", "write [server]"),
        ("[server]\nport = '80'", "server.port = '80' can't be: expected `int`, got `str`"),
        ("[server]\nport = 70000", "server.port = 70000 can't be: expected `int` <= 65535"),
        ("[server]\nport = true", "server.port"),
        ("[server]\npin = 1", "server.pin"),
        ("[server]\ndrain_limit = 0", "server.drain_limit = 0 can't be: expected `float` > 0"),
        ("[log]\nlevel = 'loud'", "log.level = 'loud' can't be"),
        ("[runtime]\nmailbox = 0", "runtime.mailbox"),
        ("[http]\nbody_bytes = 1_000_000_000", "http.body_bytes"),
        ("[http]\nline_bytes = 20_000", "http.line_bytes is 20000"),
        ("[server\n", "is not TOML"),
        ("name = 3", "name = 3 can't be"),
        ("[actors]\ncall_timeout = 3", "write [[actors]]"),
    ],
)
def test_what_can_not_be_is_refused_by_name(here: Path, text: str, expected: str) -> None:
    folder = here / "p"
    folder.mkdir()
    (folder / "app.py").touch()
    (folder / "actord.toml").write_text(f'main = "app.py"\n{text}\n')
    message = refused(str(folder))
    assert expected in message


def test_an_unknown_variable_names_the_nearest_one(here: Path) -> None:
    assert "Did you mean ACTORD_PORT?" in refused(environ={"ACTORD_PROT": "1"})
    assert "Did you mean ACTORD_RUNTIME_IDLE_AFTER?" in refused(environ={"ACTORD_RUNTIME_IDEL_AFTER": "1"})


def test_a_wrong_value_in_the_environment_names_variable_and_key(here: Path) -> None:
    message = refused(environ={"ACTORD_PORT": "eighty"})
    assert message.startswith("ACTORD_PORT: server.port = 'eighty'")


def test_a_wrong_flag_is_named(here: Path) -> None:
    assert refused(flags={("server", "data_dir"): 3}).startswith("--data-dir: server.data_dir")


@pytest.mark.parametrize("name", ["ACTORD_URL", "ACTORD_FAILPOINTS", "ACTORD_TEST_ANYTHING", "PATH"])
def test_variables_of_others_are_left_alone(here: Path, name: str) -> None:
    assert settings(environ={name: "x"}).server.port == 8000


# -- addresses


def test_scopes_of_everybody_are_checked(here: Path) -> None:
    assert "@dor" in refused(environ={"ACTORD_SERVER_ANONYMOUS": "Board:*:read @dor"})
    assert settings(environ={"ACTORD_SERVER_ANONYMOUS": "Board:*:read @door"}).server.anonymous


def test_a_socket_file_takes_the_place_of_tcp_unless_that_is_asked_for(here: Path) -> None:
    uds = {("server", "uds"): "s.sock"}
    assert settings(flags=uds).server.host == ""
    assert settings(flags=uds).server.uds == str(here / "s.sock")
    assert settings(flags=uds | {("server", "port"): 0}).server.host == "127.0.0.1"


# -- the program and its folder


def test_a_file_has_its_folder_as_root_and_its_data_in_the_current_one(here: Path, tmp_path: Path) -> None:
    (tmp_path / "other.py").touch()
    found = settings("../other.py")
    assert Path(found.app.root).resolve() == tmp_path
    assert (found.app.main, found.app.name) == ("other.py", "other")
    assert found.server.data_dir == str(here / "data")


def test_a_module_counts_from_the_current_folder(here: Path) -> None:
    (here / "shop").mkdir()
    (here / "shop" / "__init__.py").touch()
    found = settings("shop.main")
    assert (found.app.root, found.app.main, found.server.data_dir) == (str(here), "shop.main", str(here / "data"))
    assert settings("shop").app.main == "shop"


@pytest.mark.parametrize("app", ["p", "p/", "./p"])
def test_a_folder_is_a_project(here: Path, app: str) -> None:
    project(here / "p", 'name = "shop"\n[server]\ndata_dir = "store"\n')
    found = settings(app)
    assert (found.app.root, found.app.main, found.app.name) == (str(here / "p"), "app.py", "shop")
    assert found.server.data_dir == str(here / "p" / "store")


def test_without_a_word_the_current_folder_is_meant(here: Path) -> None:
    project(here)
    assert settings(None).app.root == str(here)
    assert settings(None).server.data_dir == str(here / "data")


def test_paths_of_the_environment_and_flags_count_from_the_current_folder(here: Path) -> None:
    project(here / "p", '[server]\ndata_dir = "store"\n')
    assert settings("p", {"ACTORD_DATA_DIR": "e"}).server.data_dir == str(here / "e")
    assert settings("p", flags={("server", "data_dir"): "f"}).server.data_dir == str(here / "f")


def test_another_file_can_be_named(here: Path, tmp_path: Path) -> None:
    project(here / "p", "[server]\nport = 1\n")
    other = tmp_path / "prod.toml"
    other.write_text('main = "app.py"\n[server]\nport = 2\n')
    assert settings("p", config=str(other)).server.port == 2
    assert settings("app.py", config=str(other)).server.port == 2
    assert settings("app.py", {"ACTORD_CONFIG": str(other)}).server.data_dir == str(tmp_path / "data")
    assert "There is no file" in refused(config="none.toml")


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        ("none.py", "There is no file none.py"),
        ("none", "There is no file, folder or module 'none'"),
        ("no-module", "neither a Python file"),
        ("empty", "There is no actord.toml in"),
        (None, "actord init"),
        ("x/y.txt", "There is no file x/y.txt"),
    ],
)
def test_a_program_that_is_not_there(here: Path, app: str | None, expected: str) -> None:
    (here / "empty").mkdir()
    assert expected in refused(app)


def test_a_project_has_to_name_a_program_that_is_there(here: Path) -> None:
    (here / "actord.toml").write_text("")
    assert "the key main is missing" in refused(".")
    (here / "actord.toml").write_text('main = "gone.py"')
    assert "gone.py" in refused(".")


# -- bindings


def test_bindings_are_read(here: Path) -> None:
    project(here, '[[actors]]\nbinding = "A"\ntype = "Account"\n[[actors]]\nbinding = "B"\ntype = "Book"\n')
    assert settings(".").app.actors == [
        ActorBinding(binding="A", type="Account"),
        ActorBinding(binding="B", type="Book"),
    ]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ('binding = "A"', "the key type is missing"),
        ('type = "A"', "the key binding is missing"),
        ('binding = "A"\ntype = "B"\nclass = "C"', "unknown key 'class'"),
        ('binding = "A-B"\ntype = "B"', "not an identifier"),
        ('binding = "A"\ntype = "B__C"', "two underscores"),
        ('binding = "class"\ntype = "B"', "not an identifier"),
        ('binding = "A"\ntype = "' + "B" * 33 + '"', "longer than 32"),
        ('binding = 3\ntype = "B"', "is not a text"),
        ('binding = "A"\ntype = "B"\n[[actors]]\nbinding = "A"\ntype = "C"', "'A' is there twice"),
    ],
)
def test_a_binding_that_can_not_work_is_refused(here: Path, entry: str, expected: str) -> None:
    project(here, f"[[actors]]\n{entry}\n")
    message = refused(".")
    assert expected in message
    assert "actord.toml" in message


def test_a_type_of_32_characters_is_fine(here: Path) -> None:
    project(here, f'[[actors]]\nbinding = "A"\ntype = "{"B" * 32}"\n')
    assert len(settings(".").app.actors[0].type) == 32


def test_settings_survive_the_way_to_the_children(here: Path) -> None:
    found = settings()
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(found))), Settings) == found


def test_tracing_without_its_package_is_refused_with_what_to_install(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("opentelemetry") else found(name)
    )
    assert 'pip install "actord[otel]"' in refused(environ={"ACTORD_TRACING_ENABLED": "true"})


@pytest.mark.parametrize("listen", ["9464", ":9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"])
def test_metrics_listen_is_an_address_and_a_port(here: Path, listen: str) -> None:
    assert "write an address and a port" in refused(environ={"ACTORD_METRICS_LISTEN": listen})


def test_metrics_listen_is_a_loopback_address(here: Path) -> None:
    assert "no access control" in refused(environ={"ACTORD_METRICS_LISTEN": "0.0.0.0:9464"})
    for listen in ("127.0.0.1:9464", "[::1]:9464", "localhost:0"):
        assert settings(environ={"ACTORD_METRICS_LISTEN": listen}).metrics.listen == listen
