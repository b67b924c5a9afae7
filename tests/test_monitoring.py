"""Rules, runbook, dashboard and what configures them fit together, and promtool agrees."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tests.support.prometheus import RULES, alerts_of, hurried, missing_prometheus

MONITORING = ROOT / "monitoring"
ALERTS = [name for file in RULES for name in alerts_of(file.read_text())]
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
METRICS = {
    line.split()[2].partition("{")[0]
    for line in (ROOT / "tests/data/metrics.golden").read_text().splitlines()
}

needs_promtool = pytest.mark.skipif(bool(missing_prometheus()), reason=missing_prometheus())


def ran(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_rules_are_rules() -> None:
    ran("promtool", "check", "rules", *RULES)


@needs_promtool
def test_each_rule_does_what_its_tests_say() -> None:
    ran("promtool", "test", "rules", *sorted((MONITORING / "tests").glob("*.yml")))


@needs_promtool
def test_the_rules_in_a_hurry_are_rules_too(tmp_path: Path) -> None:
    for file in RULES:
        (tmp_path / file.name).write_text(hurried(file.read_text()))
    ran("promtool", "check", "rules", *sorted(tmp_path.iterdir()))


@needs_promtool
def test_the_configuration_for_prometheus_is_one() -> None:
    ran("promtool", "check", "config", MONITORING / "prometheus.yml")


@needs_promtool
def test_the_configuration_that_the_page_shows_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs/monitoring.md").read_text()
    shown = re.findall(r"(?s)<!-- prometheus -->\n```yaml\n(.*?)```", page)
    assert shown
    for number, text in enumerate(shown):
        file = tmp_path / f"{number}.yml"
        file.write_text(text.replace("franker/rules", str(MONITORING / "rules")))
        ran("promtool", "check", "config", file)


@pytest.mark.skipif(shutil.which("amtool") is None, reason="no amtool (prometheus-alertmanager)")
def test_the_configuration_for_alertmanager_is_one() -> None:
    ran("amtool", "check-config", MONITORING / "alertmanager.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_test(alert: str) -> None:
    texts = "".join(file.read_text() for file in (MONITORING / "tests").glob("*.yml"))
    fires = rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels"
    silent = rf"alertname: {alert}, exp_alerts: \[\]"
    assert re.search(fires, texts), "no test in which it fires"
    assert re.search(silent, texts), "no test in which it is silent"


def test_each_alert_has_its_section_in_the_runbook_and_each_section_its_alert() -> None:
    assert re.findall(r"(?m)^## (\w+)$", RUNBOOK) == list(dict.fromkeys(_in_order()))
    assert sorted(ALERTS) == sorted(re.findall(r"(?m)^## (\w+)$", RUNBOOK))


SECTIONS = dict(re.findall(r"(?ms)^## (\w+)$(.*?)(?=^## |\Z)", RUNBOOK))
"""The runbook's sections by the alerts they are about."""


@pytest.mark.parametrize("alert", ALERTS)
def test_each_section_says_what_happened_what_it_means_for_the_mail_and_what_to_type(
    alert: str,
) -> None:
    happened, rest = SECTIONS[alert].strip().split("\n\n", 1)
    assert re.match(r"[A-Z].*\.$", happened), happened
    assert rest.startswith("**The mail:** "), rest
    assert re.search(r"`(franker|systemctl) \w|(?m:^    (franker|journalctl) )", rest), rest


def test_every_service_that_the_runbook_names_is_one() -> None:
    units = {file.name.partition(".")[0] for file in (ROOT / "systemd").glob("franker*.*")}
    named = re.findall(r"(?:systemctl \w+|--unit) '?(franker[\w@.*-]*)", RUNBOOK)
    assert named
    for name in named:
        unit = re.sub(r"(?<=@).*|\..*", "", name)
        assert unit in units or unit in ("franker*", "franker-*"), name


def test_every_container_that_the_runbook_names_is_one() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    named = set(re.findall(r"docker-compose (?:exec|ps) (\w+)", RUNBOOK))
    assert {"proxy", "worker", "redis"} <= named
    assert named <= set(re.findall(r"(?m)^  (\w+):$", compose)), named


def _in_order() -> list[str]:
    """Return the alerts as the page about monitoring lists them."""
    return re.findall(r"(?m)^\| `(Franker\w+)` \|", (ROOT / "docs/monitoring.md").read_text())


def test_each_alert_leads_to_its_section() -> None:
    for file in RULES:
        text = file.read_text()
        named = re.findall(r"(?m)^ *runbook: docs/runbook\.md#(\w+)$", text)
        assert named == [name.lower() for name in alerts_of(text)]


def test_the_page_gives_each_alert_the_severity_that_it_has() -> None:
    rules = "".join(file.read_text() for file in RULES)
    blocks = re.split(r"(?m)^ *- alert: ", rules)[1:]
    severity = {b.partition("\n")[0]: re.findall(r"severity: (\w+)", b)[0] for b in blocks}
    page = (ROOT / "docs/monitoring.md").read_text()
    shown = dict(re.findall(r"(?m)^\| `(Franker\w+)` \| (\w+) \|", page))
    assert shown == severity


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(#([\w-]+)\)", RUNBOOK))))
def test_links_within_the_runbook_lead_somewhere(link: str) -> None:
    assert link in {name.lower() for name in ALERTS}


@pytest.mark.parametrize("file", [*RULES, MONITORING / "grafana/dashboards/franker.json"])
def test_every_metric_that_is_asked_for_exists(file: Path) -> None:
    # A recorded number has colons around the name of what it is made of.
    asked = re.findall(r"(?<![\w:])franker_\w+(?![\w:])", file.read_text())
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert families <= METRICS, families - METRICS


def test_every_recorded_number_that_is_asked_for_is_recorded() -> None:
    text = "".join(file.read_text() for file in RULES)
    recorded = set(re.findall(r"(?m)^ *- record: (\S+)$", text))
    asked = set(re.findall(r"\bsite\w*:franker_\w+:\w+", text))
    assert asked == recorded


def test_the_dashboards_panels_neither_overlap_nor_share_a_number() -> None:
    dashboard = json.loads((MONITORING / "grafana/dashboards/franker.json").read_text())
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not mine & cells, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells |= mine
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_every_panel_asks_the_chosen_prometheus_for_the_chosen_site() -> None:
    dashboard = json.loads((MONITORING / "grafana/dashboards/franker.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}", panel["title"]
            assert '$site"' in target["expr"], panel["title"]
