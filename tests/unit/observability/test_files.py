"""What stands in deploy/observability speaks of metrics that exist, and every alarm fires, is quiet, and has a page."""

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from libs.common.metrics import HttpMetrics
from libs.common.outbox import FIGURES as OUTBOX
from libs.common.runner import DEAD_LETTERS
from tools.parts import PartMissing
from tools.parts.promtool import find_promtool
from tools.schemas import compose

ROOT = Path(__file__).parents[3]
HERE = ROOT / "deploy" / "observability"
RULES, DASHBOARD = HERE / "tides.rules.yaml", HERE / "tides.dashboard.json"
_NAME = re.compile(r"\btides[_:][a-zA-Z0-9_:]+")
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_MATCHER = re.compile(r"[{,]\s*([a-z_]+)\s*(?:=~|!~|!=|=)")
_SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "info": ("_info",),
    "gauge": ("",),
}
_FROM_PROMETHEUS = {"le", "instance", "job"}


@cache
def shown() -> dict[str, frozenset[str]]:
    """Every series that all services together can show, with the names of its labels where they are declared."""
    registry = CollectorRegistry()
    services = compose(registry)
    HttpMetrics(registry)
    found = {
        family.name + suffix: frozenset[str]()
        for family in registry.collect()
        for suffix in _SUFFIXES[family.type]
        if family.name.startswith("tides")
    }
    for collector, names in registry._collector_to_names.items():
        labels = frozenset(getattr(collector, "_labelnames", ()))
        found |= {name: labels for name in names if name in found}
    figures = [OUTBOX, *(each for service in services for each in service.figures)]
    for gauge in (gauge for each in figures for gauge in each.gauges):
        found[gauge.name] = frozenset({"service", *gauge.labels})
    return found | {DEAD_LETTERS.name: frozenset[str](), "tides_build_info": frozenset({"version"})}


@cache
def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def queries() -> Iterator[tuple[str, str]]:
    """Every query of the rules and of the dashboard, and where it stands."""
    for rule in rules():
        yield rule.get("record") or rule["alert"], rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def promtool(*words: str, cwd: Path = ROOT) -> None:
    try:
        program = find_promtool()
    except PartMissing as missing:
        pytest.fail(str(missing), pytrace=False)
    done = subprocess.run([program, *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("where", "query"), list(queries()), ids=lambda text: text[:40])
def test_a_query_names_metrics_and_labels_that_exist(where: str, query: str) -> None:
    names = set(_NAME.findall(query))
    assert names, f"{where} asks for nothing of ours"
    assert names <= shown().keys() | recorded(), where
    own = names & shown().keys()
    if own == names:
        asked = {
            word.strip() for words in _GROUPING.findall(query) for word in words.split(",") if word.strip()
        }
        asked |= set(_MATCHER.findall(query))
        assert asked - _FROM_PROMETHEUS <= frozenset().union(*(shown()[name] for name in own)), where


def test_promtool_takes_the_rules_and_every_alarm_fires_and_is_quiet() -> None:
    promtool("check", "rules", "--lint-fatal", str(RULES))
    promtool("test", "rules", "rules_test.yaml", cwd=Path(__file__).parent)
    tested = {
        case["name"]
        for case in yaml.safe_load((Path(__file__).parent / "rules_test.yaml").read_text())["tests"]
    }
    for alert in alerts():
        assert {f"{alert['alert']} fires", f"{alert['alert']} is quiet"} <= tested


def test_every_alarm_has_its_page_for_the_night() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    anchors = {line.lstrip("# ").strip().lower() for line in page.splitlines() if line.startswith("#")}
    for alert in alerts():
        where, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert (where, anchor) == ("docs/operations.md", alert["alert"].lower())
        assert anchor in anchors, f"docs/operations.md has no section {alert['alert']}"
        assert alert["labels"]["severity"] in ("critical", "warning")


def test_the_dashboard_is_whole() -> None:
    board = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert all(panel["description"] for panel in board["panels"] if panel["type"] != "row")
    places = [tuple(panel["gridPos"][side] for side in "xywh") for panel in board["panels"]]
    cells = [(x + i, y + j) for x, y, w, h in places for i in range(w) for j in range(h)]
    assert len(cells) == len(set(cells)), "panels lie on one another"
