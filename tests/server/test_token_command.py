"""``actord token``, and where the tokens of a server are looked for."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from actord.server import tokens
from actord.server.cli import app
from actord.server.exits import CONFIG, ConfigError, StartError
from actord.server.guard import Guard
from actord.settings import Settings
from click.testing import Result
from typer.testing import CliRunner


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["token", *map(str, words)])


def new(file: Path, *words: str) -> str:
    done = run("new", *words, "--file", file)
    assert done.exit_code == 0, done.stderr
    token = str(done.stdout).strip()
    assert token not in done.stderr
    return token


def test_tokens_are_listed_without_being_told(tmp_path: Path) -> None:
    file = tmp_path / "t"
    first = new(file, "--scope", "Account:debit", "--scope", "@door:read", "--name", "ci", "--expires", "90d")
    second = new(file, "--scope", "*")
    listed = run("ls", "--file", file).stdout
    assert first.split("_")[1] + "  ci  Account:debit @door:read  until 20" in listed
    assert second.split("_")[1] + "  -  *\n" in listed
    described = run("ls", "--json", "--file", file).stdout
    assert [json.loads(line)["scopes"] for line in described.splitlines()] == [["Account:debit", "@door:read"], ["*"]]
    for token in (first, second):
        assert token.split("_")[2] not in listed + described + file.read_text()


def test_a_token_is_removed_by_its_id_or_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "t"
    made = [new(file, "--scope", "*") for _ in range(3)]
    assert run("rm", made[0].split("_")[1], made[1], "--file", file).exit_code == 0
    [left] = tokens.read(str(file)).tokens
    assert tokens.fits(made[2], left.sha256)


def test_none_is_removed_when_one_of_them_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "t"
    token = new(file, "--scope", "*")
    done = run("rm", token, "000000000000", "--file", file)
    assert isinstance(done.exception, StartError)
    assert "000000000000" in str(done.exception)
    assert len(tokens.read(str(file)).tokens) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["new"], "--scope"),
        (["new", "--scope", "a b"], "no scope"),
        (["new", "--scope", "A", "--expires", "soon"], "no time"),
        (["new", "--scope", "A", "--expires", "2001-01-31"], "is over"),
        (["new", "--scope", "A", "--name", "a\nb"], "printable"),
    ],
)
def test_a_wrong_command_line_is_refused_and_makes_nothing(tmp_path: Path, words: Sequence[str], said: str) -> None:
    done = run(*words, "--file", tmp_path / "t")
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["ls"], ["rm", "000000000000"]])
def test_without_a_file_there_is_nothing_to_list_or_remove(tmp_path: Path, words: Sequence[str]) -> None:
    done = run(*words, "--file", tmp_path / "t")
    assert isinstance(done.exception, StartError)
    assert "actord token new" in str(done.exception)


# -- where a server looks


def settings(folder: Path, token_file: Path | str = "") -> Settings:
    made = Settings()
    made.server.data_dir = str(folder / "data")
    made.server.token_file = str(token_file)
    (folder / "data").mkdir(exist_ok=True)
    return made


def scopes(guard: Guard) -> list[str] | None:
    guard.load()
    return None if guard.message is None else [one for token in guard.message["tokens"] for one in token["scopes"]]


def test_the_stated_file_wins_over_a_credential_and_that_over_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    stated, credential = tmp_path / "stated", tmp_path / "credentials" / "actord-tokens"
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    assert scopes(Guard(settings(tmp_path), environ)) is None
    new(tmp_path / "data" / "tokens.json", "--scope", "Data")
    assert scopes(Guard(settings(tmp_path), environ)) == ["Data"]
    new(credential, "--scope", "Credential")
    credential.chmod(0o440)
    assert scopes(Guard(settings(tmp_path), environ)) == ["Credential"]
    assert scopes(Guard(settings(tmp_path), {})) == ["Data"]
    new(stated, "--scope", "Stated")
    assert scopes(Guard(settings(tmp_path, stated), environ)) == ["Stated"]
    assert scopes(Guard(settings(tmp_path, credential), environ)) == ["Credential"], "%d in a unit leads there"


def test_a_stated_file_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no token file"):
        Guard(settings(tmp_path, tmp_path / "none"), {}).load()


def test_a_file_without_tokens_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / "t"
    run("rm", new(file, "--scope", "*"), "--file", file)
    assert scopes(Guard(settings(tmp_path, file), {})) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_only_what_other_machines_reach_needs_tokens(tmp_path: Path, host: str) -> None:
    guard = Guard(settings(tmp_path), {})
    guard.load()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as public, socket.socket(family) as private, socket.socket(socket.AF_UNIX) as unix:
        try:
            private.bind(("::1" if ":" in host else "127.0.0.1", 0))
            public.bind((host, 0))
        except OSError as error:
            pytest.skip(f"no such address here: {error}")
        guard.check_public([private, unix])
        with pytest.raises(StartError, match="reachable") as caught:
            guard.check_public([private, public])
        assert caught.value.exit == CONFIG
        run("rm", new(tmp_path / "data" / "tokens.json", "--scope", "*"), "--data-dir", tmp_path / "data")
        assert guard.changed()
        assert guard.reload()
        with pytest.raises(StartError, match="no token"):
            guard.check_public([public])
        new(tmp_path / "data" / "tokens.json", "--scope", "*")
        assert guard.reload()
        guard.check_public([public])
