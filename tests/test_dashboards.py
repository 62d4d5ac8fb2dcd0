"""configs/grafana.json and configs/alerts.yml ask for metrics, labels and buckets that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from actord.server.metric_names import METRICS

ROOT = Path(__file__).parent.parent
BOARD = ROOT / "configs" / "grafana.json"
ALERTS = ROOT / "configs" / "alerts.yml"
PAGE = ROOT / "docs" / "observability.md"
# Added by the scraper, or known to every value.
EVERYWHERE = {"process", "instance", "job"}


def series() -> dict[str, set[str]]:
    """The labels of every series that a scrape gives."""
    found = {}
    for metric in METRICS:
        labels = {*metric.labels, *EVERYWHERE}
        if metric.kind == "histogram":
            found[f"{metric.name}_bucket"] = labels | {"le"}
            found[f"{metric.name}_count"] = found[f"{metric.name}_sum"] = labels
        else:
            found[metric.name] = labels
    return found


SERIES = series()


def panels() -> Iterator[dict[str, Any]]:
    for panel in json.loads(BOARD.read_text())["panels"]:
        yield panel
        yield from panel.get("panels", ())


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def queries() -> list[tuple[str, str]]:
    found = [
        (f"{panel['title']} {target['refId']}", target["expr"])
        for panel in panels()
        for target in panel.get("targets", ())
    ]
    return found + [(rule["alert"], rule["expr"]) for rule in rules()]


def wrong(query: str) -> list[str]:
    """What a query asks for that is not there."""
    faults = []
    known: set[str] = set()
    for name, selector in re.findall(r"\b(actord_[a-z_]+)\b(?:\{([^}]*)\})?", query):
        if name not in SERIES:
            faults.append(f"there is no series {name}")
            continue
        known |= SERIES[name]
        faults += [
            f"{name} has no label {label}"
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)
            if label not in SERIES[name]
        ]
    if not known:
        faults.append("it asks for nothing of ours")
    for grouped in re.findall(r"\b(?:by|without) \(([^)]*)\)", query):
        faults += [f"no series has the label {label}" for label in re.split(r",\s*", grouped) if label not in known]
    return faults


@pytest.mark.parametrize(("where", "query"), queries(), ids=lambda value: value if len(value) < 40 else "")
def test_a_query_asks_for_what_exists(where: str, query: str) -> None:
    assert wrong(query) == []


@pytest.mark.parametrize(
    "query",
    [
        "actord_calls",
        'rate(actord_calls_total{name="alice"}[5m])',
        "sum by (actor) (actord_up)",
        "rate(actord_call_seconds[5m])",
        "up",
    ],
)
def test_a_query_for_what_does_not_exist_is_noticed(query: str) -> None:
    assert wrong(query) != []


def test_legends_and_summaries_name_labels_that_the_query_keeps() -> None:
    for panel in panels():
        for target in panel.get("targets", ()):
            assert_kept(target["legendFormat"], target["expr"])
    for rule in rules():
        assert_kept(re.sub(r"\$labels\.", "", rule["annotations"]["summary"]), rule["expr"])


def assert_kept(words: str, query: str) -> None:
    named = set(re.findall(r"{{\s*([a-z_]+)\s*}}", words))
    groups = re.findall(r"\bby \(([^)]*)\)", query)
    names = re.findall(r"actord_[a-z_]+", query)
    kept = set(re.split(r",\s*", groups[0])) if groups else set.union(*(SERIES[name] for name in names))
    assert named <= kept, (words, query)


def test_every_metric_is_on_the_board() -> None:
    asked = {name for _, query in queries() for name in re.findall(r"actord_[a-z_]+", query)}
    shown = {
        re.sub(r"_(bucket|count|sum)$", "", name) if name not in {m.name for m in METRICS} else name for name in asked
    }
    assert {metric.name for metric in METRICS} - shown == set()


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    found = list(panels())
    assert len({panel["id"] for panel in found}) == len(found)
    taken: set[tuple[int, int]] = set()
    for panel in found:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_alert_says_how_grave_it_is_and_stands_on_the_page() -> None:
    page = PAGE.read_text()
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert f"`{rule['alert']}`" in page
    assert len({rule["alert"] for rule in rules()}) == len(rules()) >= 10


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    return subprocess.run([found, *map(str, words)], capture_output=True, text=True, check=False, timeout=60)


def test_promtool_takes_the_rules_and_the_queries_of_the_board(tmp_path: Path) -> None:
    done = promtool("check", "rules", ALERTS)
    assert done.returncode == 0, done.stdout + done.stderr
    as_rules = [
        {"record": f"board:q{number}", "expr": query.replace("$__rate_interval", "1m").replace("$instance", ".*")}
        for number, (_, query) in enumerate(queries())
    ]
    file = tmp_path / "board.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": as_rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    def case(alert: str, at: str, *series: tuple[str, str], fires: bool, **labels: str) -> dict[str, Any]:
        [rule] = [rule for rule in rules() if rule["alert"] == alert]
        expected = {"exp_labels": {**labels, **rule["labels"]}} if fires else None
        return {
            "interval": "15s",
            "input_series": [{"series": name, "values": values} for name, values in series],
            "alert_rule_test": [{"alertname": alert, "eval_time": at, "exp_alerts": [expected] if expected else []}],
        }

    down = ('actord_up{process="worker-1",instance="a"}', "1x4 0x20")
    shard = ('actord_shard_up{process="worker-1",instance="a",shard="3"}', "1x4 0x20")
    good = ('actord_calls_total{process="worker-0",instance="a",type="T",method="m",outcome="ok"}', "0+80x60")
    bad = ('actord_calls_total{process="worker-0",instance="a",type="T",method="m",outcome="failed"}', "0+20x60")
    late = ('actord_alarm_overdue_seconds{process="worker-0",instance="a"}', "0x4 61+15x40")
    cases = [
        case("ActordProcessDown", "90s", down, fires=False),
        case("ActordProcessDown", "3m", down, fires=True, process="worker-1", instance="a"),
        case("ActordShardDown", "3m", shard, fires=True, process="worker-1", instance="a", shard="3"),
        case("ActordCallsFail", "12m", good, bad, fires=True, instance="a", type="T", method="m"),
        case("ActordCallsFail", "12m", good, fires=False),
        case("ActordAlarmsLate", "2m", late, fires=False),
        case("ActordAlarmsLate", "8m", late, fires=True, process="worker-0", instance="a"),
        case("ActordAway", "5m", fires=True, process="supervisor"),
    ]
    for one in cases:  # the words of a summary are not what is tested
        for expected in one["alert_rule_test"][0]["exp_alerts"]:
            [rule] = [rule for rule in rules() if rule["alert"] == one["alert_rule_test"][0]["alertname"]]
            expected["exp_annotations"] = {"summary": "words"}
            assert rule["annotations"].keys() == {"summary"}
    plain = yaml.safe_load(ALERTS.read_text())
    for rule in plain["groups"][0]["rules"]:
        rule["annotations"] = {"summary": "words"}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(plain))
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": cases})
    )
    done = promtool("test", "rules", tmp_path / "test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
