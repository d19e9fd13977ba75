"""`contrib/prometheus` and `contrib/grafana`: queried metrics exist, alerts fire, runbooks parse."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.docs import pages
from tests.docs.test_commands import test_every_documented_command_parses as check_command
from tests.operators.outside import CONTRIB, program

from distconvd.testing.daemon import open_daemon

PROMETHEUS = CONTRIB / "prometheus"
RULES = [
    rule
    for group in msgspec.yaml.decode((PROMETHEUS / "distconv.rules.yml").read_bytes())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
DASHBOARD: dict[str, Any] = json.loads((CONTRIB / "grafana" / "distconv.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
OF_THE_SCRAPE = {"job", "instance"}
"""Labels that Prometheus adds."""
# Commands of the system that a runbook may name.
SYSTEM = {"systemctl", "journalctl", "df", "curl"}


def expressions() -> Iterator[tuple[str, str]]:
    """Yield each expression with the name of what asks it."""
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield f"${variable['name']}", variable["definition"]


EXPRESSIONS = list(expressions())


def documented_metrics() -> dict[str, set[str]]:
    """Return the labels of each metric that the user guide documents."""
    guide = pages.section(pages.read("docs/user_guide.md"), "## Metrics")
    return {
        cells[0].strip("`"): set(re.findall(r"`(\w+)`", cells[2]))
        for cells in pages.table_cells(guide)
        if cells[0].startswith("`")
    }


def metrics_of(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each metric of ours in an expression, with the labels that it is chosen by."""
    for found in re.finditer(r"\b(distconv_\w+)(?:\{([^}]*)\})?", _plain(expression)):
        yield found[1], set(re.findall(r"(\w+)\s*[=!]", found[2] or ""))


def _plain(expression: str) -> str:
    """Return an expression with its strings emptied: they may contain braces."""
    return re.sub(r'"[^"]*"', '""', expression)


def family_of(name: str, families: set[str]) -> str:
    """Return the metric that a sample belongs to: `x_bucket` belongs to the histogram `x`."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if base in families else name


# ------------------------------------------------------------------------------------- the metrics


async def test_every_metric_queried_is_exported_by_a_daemon() -> None:
    async with open_daemon() as daemon:
        text = (await daemon.client.get("/metrics")).body.decode()
    metrics = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    asked = {name for _, expression in EXPRESSIONS for name, _ in metrics_of(expression)}
    assert len(asked) > 20
    assert {name for name in asked if family_of(name, metrics) not in metrics} == set()


async def test_the_documented_labels_are_those_of_the_samples() -> None:
    guide = documented_metrics()
    async with open_daemon() as daemon:
        await daemon.client.post("/jobs/", {"source_url": "http://h/a", "target_codec": "av1"})
        text = (await daemon.client.get("/metrics")).body.decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                name = family_of(sample.name, set(guide))
                assert guide[name] == set(sample.labels) - {"le"}, sample


@pytest.mark.parametrize("name, expression", EXPRESSIONS, ids=[name for name, _ in EXPRESSIONS])
def test_every_label_queried_exists_on_its_metric(name: str, expression: str) -> None:
    guide = documented_metrics()
    found = list(metrics_of(expression))
    known = {"le", *OF_THE_SCRAPE}
    for metric, labels in found:
        here = guide[family_of(metric, set(guide))]
        assert labels <= here | known, metric
        known |= here
    grouped = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", _plain(expression))
    if found:
        assert {word for words in grouped for word in re.findall(r"\w+", words)} <= known


async def test_response_times_exclude_exactly_the_routes_that_wait() -> None:
    async with open_daemon() as daemon:
        patterns = {route.pattern for route in daemon.parts.routes}
    said = {
        found for _, expression in EXPRESSIONS for found in re.findall(r'route!~"([^"]*)"', expression)
    }  # fmt: skip
    assert len(said) == 1  # the rules and the dashboard mean the same
    waiting = re.compile(said.pop())
    assert {pattern for pattern in patterns if waiting.fullmatch(pattern)} == {
        *("/events", "/assign_job", "/jobs/{job_id}", "/engines/{engine_id}/ws"),
        "/media/{name...}",
    }


# -------------------------------------------------------------------------------------- promtool


def promtool(*arguments: str, cwd: Path = PROMETHEUS) -> str:
    done = subprocess.run(
        [program("promtool"), *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_rules_and_configuration() -> None:
    assert f"SUCCESS: {len(RULES)} rules found" in promtool("check", "rules", "distconv.rules.yml")
    assert "SUCCESS" in promtool("check", "config", "--syntax-only", "prometheus.yml")


@pytest.mark.e2e
def test_every_alert_fires_in_promtools_tests_and_a_healthy_farm_fires_none() -> None:
    text = (PROMETHEUS / "distconv.rules.test.yml").read_text()
    assert [rule["alert"] for rule in ALERTS if rule["alert"] not in text] == []
    assert "SUCCESS" in promtool("test", "rules", "distconv.rules.test.yml")


def test_promtool_accepts_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {
            "record": f"panel{number}",
            "expr": target["expr"].replace("$__rate_interval", "5m").replace("$job", "distconv"),
        }
        for number, target in enumerate(t for panel in PANELS for t in panel["targets"])
    ]
    group = {"groups": [{"name": "dashboard", "rules": rules}]}
    (tmp_path / "rules.yml").write_bytes(msgspec.yaml.encode(group))
    assert f"SUCCESS: {len(rules)} rules found" in promtool(
        "check", "rules", "rules.yml", cwd=tmp_path
    )


# -------------------------------------------------------------------------------------- runbooks


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_an_alert_has_a_summary_and_a_command_to_type(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"]
    ours = 0
    for command in re.findall(r"`([^`]+)`", rule["annotations"]["runbook"]):
        words = shlex.split(command.partition(" | ")[0])
        if words[0] in ("distconv", "distconvd"):
            check_command(rule["alert"], words)
            ours += 1
        elif " " in command:
            assert words[0] in SYSTEM, command
            units = [word.strip("*") for word in words if word.startswith("distconv-")]
            for unit in units:
                assert list((CONTRIB / "systemd").glob(f"{unit}*.service")), unit
            ours += words[0] in SYSTEM
    assert ours >= 1


def test_the_readme_of_prometheus_names_every_alert() -> None:
    text = (PROMETHEUS / "README.md").read_text()
    assert set(re.findall(r"`(Distconv\w+)`", text)) == {rule["alert"] for rule in ALERTS}


# ------------------------------------------------------------------------------------- dashboard


def test_each_panel_has_a_title_and_description_and_overlaps_no_other() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all(target["legendFormat"] for target in panel["targets"])


def test_the_dashboard_works_at_any_site() -> None:
    text = json.dumps(DASHBOARD)
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}
    assert "${DS_" not in text  # what an export for sharing leaves behind
    for panel in PANELS:
        for target in panel["targets"]:
            chosen = [labels for _, labels in metrics_of(target["expr"])]
            assert all(labels >= OF_THE_SCRAPE for labels in chosen), panel["title"]


def test_the_dashboard_shows_what_the_original_says_to_monitor() -> None:
    titles = {panel["title"] for panel in PANELS}
    assert titles >= {
        "Response times",
        "Completion rate",
        "Engine utilisation",
        "Failures by class",
    }
    assert titles >= {"Engines out", "Oldest wait", "Commit time", "Disk space", "Attempts lost"}
