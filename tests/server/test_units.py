"""The units that ``actord systemd`` prints: those of configs/, valid, and a sandbox by systemd's own score."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from actord.server.exits import CONFIG, TEMPORARY, USAGE, ConfigError
from actord.server.units import Plan, Units, units
from actord.settings import Settings

from tests.support.command import actord

ROOT = Path(__file__).parent.parent.parent
PLAN = Plan("shop", ("/bin/true", "serve", "/srv/shop"))
SCORE = 2.0

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def made(plan: Plan = PLAN, **server: object) -> Units:
    settings = Settings()
    for key, value in server.items():
        setattr(settings.server, key, value)
    return units(plan, settings)


def values(text: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def test_the_units_of_configs_are_what_the_command_prints(tmp_path: Path) -> None:
    printed = actord("systemd", cwd=tmp_path)
    service, socket = ((ROOT / "configs" / f"actord.{kind}").read_text() for kind in ("service", "socket"))
    folder = "/etc/systemd/system"
    assert printed.stdout == f"# {folder}/actord.service\n{service}\n# {folder}/actord.socket\n{socket}"
    assert (printed.returncode, printed.stderr) == (0, "")


def test_both_files_are_written_and_others_are_left_alone(tmp_path: Path) -> None:
    first = actord("systemd", "--write", tmp_path, cwd=tmp_path)
    assert first.stdout.splitlines() == [str(tmp_path / "actord.service"), str(tmp_path / "actord.socket")]
    assert "systemctl daemon-reload" in first.stderr
    assert (tmp_path / "actord.service").read_text() == (ROOT / "configs" / "actord.service").read_text()
    assert actord("systemd", "--write", tmp_path, cwd=tmp_path).returncode == 0  # the same text again
    (tmp_path / "actord.socket").write_text("mine")
    refused = actord("systemd", "--write", tmp_path, "--port", "9000", cwd=tmp_path)
    assert refused.returncode == 78
    assert "actord.service exists and says something else" in refused.stderr or "actord.socket" in refused.stderr
    assert (tmp_path / "actord.socket").read_text() == "mine"


def test_a_project_gives_its_own_values_and_the_shell_gives_none(tmp_path: Path) -> None:
    shop = tmp_path / "my shop"
    shop.mkdir()
    (shop / "app.py").touch()
    (shop / "actord.toml").write_text(
        'main = "app.py"\n[server]\nport = 9000\ndrain_limit = 90.5\nstuck_after = 20\n[http]\nconnections = 200000\n'
    )
    done = actord(
        "systemd", "--name", "shop", "my shop", cwd=tmp_path, environ={"ACTORD_PORT": "1", "ACTORD_WORKERS": "9"}
    )
    assert done.returncode == 0, done.stderr
    [command] = values(done.stdout, "ExecStart")
    assert re.fullmatch(rf'/\S*/actord serve "{shop}" --data-dir %S/shop', command)
    assert values(done.stdout, "ListenStream") == ["127.0.0.1:9000"]
    assert values(done.stdout, "TimeoutStopSec") == ["101s"]
    assert values(done.stdout, "WatchdogSec") == ["40s"]
    assert values(done.stdout, "LimitNOFILE") == ["201024"]
    assert values(done.stdout, "User") == values(done.stdout, "StateDirectory") == ["shop"]
    assert f'{shop}" --data-dir' in actord("systemd", cwd=shop).stdout


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["nowhere"], "There is no file, folder or module 'nowhere'", CONFIG),
        (["shop.main"], "finds no module in a current folder", CONFIG),
        (["--name", "a/b"], "no name for a unit", CONFIG),
        (["--host", "example.test"], "is a name", CONFIG),
        (["--uds", "/run/a b"], "can't name '/run/a b' here", CONFIG),
        (["--write", "nowhere"], "can't be written", CONFIG),
        (["--user", "--tokens", "x"], "hands over no credentials", USAGE),
    ],
)
def test_what_no_unit_can_say_is_refused(words: list[str], message: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    done = actord("systemd", *words, cwd=tmp_path)
    assert done.returncode == code
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_errors_of_the_configuration_are_not_tried_again_and_busy_data_is() -> None:
    [never] = values(made().service, "RestartPreventExitStatus")
    assert set(never.split()) == {str(CONFIG), str(USAGE)}
    assert str(TEMPORARY) not in never


def test_words_of_the_command_line_are_quoted() -> None:
    plan = Plan("shop", ("/opt/a b/actord", "serve", '/srv/50% "off" $HOME\\'))
    assert values(made(plan).service, "ExecStart") == [
        r'"/opt/a b/actord" serve "/srv/50%% \"off\" $$HOME\\" --data-dir %S/shop'
    ]
    with pytest.raises(ConfigError, match="control character"):
        made(Plan("shop", ("/bin/true", "a\nExecStartPre=/bin/false")))


def test_data_elsewhere_may_be_written_and_a_home_may_be_read() -> None:
    service = made(Plan("shop", ("/bin/true", "serve", "/home/you/shop"), data_dir="/mnt/data")).service
    assert values(service, "ReadWritePaths") == ["/mnt/data"]
    assert values(service, "StateDirectory") == []
    assert values(service, "ProtectHome") == ["read-only"]
    assert values(made().service, "ProtectHome") == ["yes"]


def test_sockets_are_those_of_the_settings() -> None:
    assert values(made(host="::1", port=1).socket, "ListenStream") == ["[::1]:1"]
    both = made(host="localhost", uds="/run/shop.sock").socket
    assert values(both, "ListenStream") == ["127.0.0.1:8000", "/run/shop.sock"]
    assert values(both, "SocketUser") == ["shop"]
    with pytest.raises(ConfigError, match="needs a port"):
        made(port=0)


def test_the_units_of_a_user_need_no_root() -> None:
    mine = made(PLAN._replace(user=True))
    assert values(mine.service, "WantedBy") == ["default.target"]
    for key in ("User", "ProtectSystem", "CapabilityBoundingSet", "PrivateDevices", "LoadCredential"):
        assert values(mine.service, key) == []
    assert values(mine.service, "MemoryDenyWriteExecute") == ["yes"]


def test_a_token_file_is_handed_over_as_a_credential() -> None:
    service = made(PLAN._replace(tokens="/etc/shop/tokens.json")).service
    assert values(service, "LoadCredential") == ["actord-tokens:/etc/shop/tokens.json"]
    assert values(service, "Environment") == ["ACTORD_SERVER_TOKEN_FILE=%d/actord-tokens"]
    assert values(made().service, "LoadCredential") == values(made().service, "Environment") == []


ALL = [
    PLAN,
    PLAN._replace(user=True),
    PLAN._replace(data_dir="/mnt/data", tokens="/etc/shop/tokens.json"),
    PLAN._replace(serve=("/bin/true", "serve", "/home/you/my shop")),
]


def verify(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "verify", *words],
        cwd=folder,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_analyze
@pytest.mark.parametrize("plan", ALL)
def test_systemd_finds_nothing_to_complain_of(plan: Plan, tmp_path: Path) -> None:
    both = made(plan, uds="/run/shop.sock", host="127.0.0.1")
    for file, text in both.files().items():
        (tmp_path / file).write_text(text)
    done = verify(tmp_path, *(["--user"] if plan.user else []), *both.files())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_analyze
def test_systemd_complains_of_a_unit_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "shop.service").write_text(made().service.replace("KillMode=mixed", "KillMode=gently"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "shop.service"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "gently" in done.stderr


@needs_analyze
@pytest.mark.parametrize("plan", [plan for plan in ALL if not plan.user])
def test_the_sandbox_scores_as_promised(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "shop.service").write_text(made(plan).service)
    threshold = f"--threshold={SCORE * 10:.0f}"
    command = ["systemd-analyze", "security", "--offline=true", threshold, str(tmp_path / "shop.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-200:]
    [score] = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert 0 < float(score) <= SCORE
