"""The command line as a person and a script meet it: real processes, exit codes, which stream says what."""

from __future__ import annotations

import ast
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import actord as package
import pytest
import typer
from actord import shards
from actord.server import cli
from actord.server.commands.call import in_words, parse_arguments

from tests.support.command import CLEAN, actord

ROOT = Path(__file__).parent.parent.parent
ACCOUNT = ROOT / "examples" / "account.py"


def test_the_version_is_data() -> None:
    done = actord("--version")
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, package.__version__, "")


@pytest.mark.parametrize(
    ("module", "words"),
    [("turns.py", [package.__version__]), (f"turns{EXTENSION_SUFFIXES[0]}", [package.__version__, "(compiled)"])],
)
def test_the_version_says_whether_turns_are_run_by_compiled_code(
    module: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / module).touch()
    monkeypatch.setattr(shards, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "actord.shards.turns", raising=False)
    with pytest.raises(typer.Exit):
        cli._version(True)
    assert capsys.readouterr().out == " ".join(words) + "\n"


def test_the_version_is_that_of_the_project() -> None:
    import tomllib

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == package.__version__


@pytest.mark.parametrize("command", ["", "serve", "dev", "init", "call", "tail", "check", "openapi", "token new"])
def test_help_shows_examples(command: str) -> None:
    done = actord(*command.split(), "--help", environ={"COLUMNS": "80", "TERM": "dumb"})
    assert done.returncode == 0
    assert f"    actord {command}".rstrip() in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_help_names_every_exit_code() -> None:
    from actord.server import exits

    codes = [value for name, value in vars(exits).items() if name.isupper()]
    lines = [line.split()[:1] for line in actord("--help").stdout.splitlines()]
    assert [code for code in codes if [str(code)] not in lines] == []


@pytest.mark.parametrize(
    "words", [["serv"], ["serve", "--prot", "1"], ["serve", "--port", "x"], ["serve", "--log-level", "loud"], ["call"]]
)
def test_a_wrong_command_line_exits_with_2(words: list[str]) -> None:
    done = actord(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


@pytest.mark.parametrize(
    ("words", "environ", "expected"),
    [
        (["serve", "none.py"], {}, "There is no file none.py"),
        (["serve", str(ACCOUNT), "--host", "0.0.0.0"], {}, "actord token new"),
        (["serve", str(ACCOUNT)], {"ACTORD_WORKRES": "1"}, "Did you mean ACTORD_WORKERS?"),
        (["check", "."], {}, "There is no actord.toml"),
    ],
)
def test_what_can_not_work_exits_with_78_and_one_sentence(
    words: list[str], environ: dict[str, str], expected: str, tmp_path: Path
) -> None:
    done = actord(*words, environ=environ, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("actord: ")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_exits_with_75(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = actord("serve", ACCOUNT, "--port", port, "--data-dir", tmp_path / "data")
    assert (done.returncode, done.stdout) == (75, "")
    assert f"127.0.0.1:{port} is in use" in done.stderr


def test_a_data_directory_that_can_not_be_used_exits_with_78(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    done = actord("serve", ACCOUNT, "--port", "0", "--data-dir", tmp_path / "data")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("actord: ")
    assert "Traceback" not in done.stderr


# -- init


def test_a_new_project_passes_its_check_and_its_own_test(tmp_path: Path) -> None:
    done = actord("init", "shop", cwd=tmp_path)
    assert done.returncode == 0
    names = [".gitignore", "README.md", "actord.toml", "app.py", "test_app.py"]
    assert sorted(done.stdout.split()) == [f"shop/{name}" for name in names]
    assert sorted(path.name for path in (tmp_path / "shop").iterdir()) == names
    assert "project-name" not in "".join(path.read_text() for path in (tmp_path / "shop").iterdir())
    checked = actord("check", "shop", "--json", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    program = json.loads(checked.stdout)
    assert [type_["binding"] for type_ in program["types"]] == ["COUNTER"]
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "shop",
        env=CLEAN,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine").touch()
    done = actord("init", "shop", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["mine"]


def test_an_empty_folder_is_fine_and_a_bad_name_is_not(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert actord("init", "shop", cwd=tmp_path).returncode == 0
    assert actord("init", "9 lives", cwd=tmp_path).returncode == 78


# -- check


def test_check_lists_types_methods_and_signatures() -> None:
    done = actord("check", ACCOUNT)
    assert done.returncode == 0
    for expected in ("Account", "ACCOUNT", "balance()", "debit(amount:", "front door", "POST /accounts/"):
        assert expected in done.stdout
    assert done.stderr == ""


def test_check_as_json_is_the_program(tmp_path: Path) -> None:
    program = json.loads(actord("check", ACCOUNT, "--json").stdout)
    methods = {method["name"]: method for method in program["types"][0]["methods"]}
    assert sorted(methods) == ["balance", "debit", "deposit"]
    assert methods["debit"]["parameters"][0]["name"] == "amount"
    assert program["front_door"] is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import nothing_of_this_name", "nothing_of_this_name"),
        ("def broken(:", "app.py"),
        ("x = 1", "StatefulActor"),
        ("raise RuntimeError('at import')", "at import"),
    ],
)
def test_check_refuses_a_program_that_can_not_work(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(text)
    done = actord("check", "app.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert expected in done.stderr


# -- call


def test_openapi_prints_the_document_and_refuses_what_can_not_work(tmp_path: Path) -> None:
    done = actord("openapi", str(ACCOUNT))
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["openapi"].startswith("3.1")
    assert document["paths"]["/actors/Account/{name}/debit"]["post"]["operationId"] == "Account.debit"
    (tmp_path / "app.py").write_text("1 / 0")
    done = actord("openapi", str(tmp_path / "app.py"))
    assert (done.returncode, done.stdout) == (78, "")
    assert "ZeroDivisionError" in done.stderr


def test_named_arguments() -> None:
    words = [
        "amount=30",
        "text=hello",
        "code='30'",
        'quoted="30"',
        "on=true",
        "none=null",
        "map={}",
        "empty=",
        "eq=a=b",
    ]
    assert parse_arguments(words) == {
        "amount": 30,
        "text": "hello",
        "code": "'30'",
        "quoted": "30",
        "on": True,
        "none": None,
        "map": {},
        "empty": "",
        "eq": "a=b",
    }


def test_positional_arguments() -> None:
    assert parse_arguments([]) == []
    assert parse_arguments(["30", "hello", "[1, 2]", "NaN", '"a=b"', "1.50"]) == [
        30,
        "hello",
        [1, 2],
        "NaN",
        "a=b",
        1.5,
    ]


@pytest.mark.parametrize("words", [["a=1", "2"], ["2", "a=1"], ["a=1", "a=2"]])
def test_arguments_that_are_neither(words: list[str]) -> None:
    with pytest.raises(typer.BadParameter):
        parse_arguments(words)


class Recorder(http.server.BaseHTTPRequestHandler):
    """Answers what the test wants, and keeps what it was asked."""

    answer: tuple[int, bytes] = (200, b'{"ok": true}')
    asked: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, body))
        status, answer = self.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[tuple[type[Recorder], str]]:
    handler = type("Handler", (Recorder,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield handler, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_call_prints_the_reply_and_nothing_else(recorder: tuple[type[Recorder], str]) -> None:
    handler, url = recorder
    done = actord("call", "Account/alice", "debit", "amount=30", environ={"ACTORD_URL": url})
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"ok": true}\n', "")
    (path, body) = handler.asked[0]
    assert (path, json.loads(body)) == ("/actors/Account/alice/debit", {"amount": 30})


def test_call_escapes_every_name(recorder: tuple[type[Recorder], str]) -> None:
    handler, url = recorder
    assert actord("call", "Room/a/b c+ü?#%2F", "say", "hi", "--url", url).returncode == 0
    assert handler.asked == [("/actors/Room/a%2Fb%20c%2B%C3%BC%3F%23%252F/say", b'["hi"]')]


def test_an_error_reply_is_told_in_words_with_exit_1(recorder: tuple[type[Recorder], str]) -> None:
    handler, url = recorder
    problem = package.ActorError("not enough", code="poor", status=409, data={"missing": 5}).to_problem()
    handler.answer = (409, json.dumps(problem).encode())
    done = actord("call", "Account/alice", "debit", "--url", url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        'actord: not enough (ActorError, code poor, status 409, nothing was written)\ndata: {"missing": 5}\n'
    )


def test_words_for_an_answer_that_may_have_been_applied() -> None:
    problem = package.ActorUnavailable("The worker died.", applied="unknown", retry_after=1).to_problem()
    words = in_words(503, json.dumps(problem).encode())
    assert "its writes may be stored" in words
    assert "tried again in 1 s" in words
    assert in_words(502, b"<html>bad gateway") == "the server answered 502: <html>bad gateway"


def test_no_server_exits_with_69() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = actord("call", "Account/alice", "debit", "--url", url)
    assert (done.returncode, done.stdout) == (69, "")
    assert url in done.stderr
    assert "actord serve" in done.stderr


def test_no_socket_file_exits_with_69(tmp_path: Path) -> None:
    assert actord("call", "Account/alice", "debit", "--url", f"unix:{tmp_path}/none").returncode == 69


@pytest.mark.parametrize("words", [["alice", "debit"], ["Account/", "debit"], ["A/b", "c", "--url", "ftp://x"]])
def test_a_call_that_can_not_be_meant_exits_with_2(words: list[str]) -> None:
    assert actord("call", *words).returncode == 2


# -- house rules


def test_only_the_command_line_imports_typer_and_rich() -> None:
    found = []
    for folder in ("sdk", "server", "shards", "storage"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if any(name.split(".")[0] in ("typer", "rich", "watchfiles") for name in names):
                    found.append(str(path.relative_to(ROOT)))
    allowed = {"server/cli.py", "server/reload.py"}
    assert [path for path in found if path not in allowed and not path.startswith("server/commands/")] == []


def test_the_scripts_of_the_project_can_be_run() -> None:
    assert all(os.access(ROOT / ".ci" / name, os.X_OK) for name in ("run", "apt"))
