"""Dashboards and alert rules ask for metrics and labels that a running service has; Prometheus takes them, they fire.

With `prometheus` and `promtool` on the PATH every expression is also evaluated on a service that is scraped.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from watched import METRICS_KEY, Served, garden, lay_out, serving

from bnpipe.demo.processes import free_port
from bnpipe.serving.routing import Canary

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "config" / "prometheus"
GRAFANA = ROOT / "config" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
RULES = PROMETHEUS / "alerts.yml"

# Prometheus' own, and what this service has not: these exist from the first failure, the first label on.
OWN = {"up": {"job", "instance"}}
RARE = {"bnpipe_engine_failures_total": {"model", "kind"}, "bnpipe_labelled_rows_total": {"model"}}
SILENT = {"BnpipeRegistrySilent"}  # fires here, where no registry answers


def need(program: str) -> str:
    """Find a program of Prometheus, or skip."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not on the PATH (Debian's package is called prometheus)")
    return found


@dataclass(frozen=True)
class Scraped:
    """A service that has answered all kinds of questions, and its metrics."""

    served: Served
    labels: Mapping[str, set[str]]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """Two models, one with a canary and one with a shadow, asked everything that is counted."""
    folder = tmp_path_factory.mktemp("scraped")
    versions = {1: garden(), 2: garden(0.3)}
    lay_out(folder / "cache", versions, canary=Canary(2, 0.5, 0.0, "salt"))
    lay_out(folder / "cache", versions, name="meadow", canary=Canary(2, 0.0, 1.0, "salt"))
    with serving(folder, folder / "cache", workers=1, defaults={"unknown_variables": "ignore"}) as served:
        ask_everything(served)
        served.wait_for(lambda: "bnpipe_shadow_distance_count" in served.metrics())
        labels: dict[str, set[str]] = defaultdict(set)
        for name, found in re.findall(r"(?m)^(\w+)(?:\{(.*)\})? \S+$", served.metrics()):
            labels[name] |= set(re.findall(r'(\w+)="', found))
        yield Scraped(served, labels)


def ask_everything(served: Served) -> None:
    """Ask what makes every metric of a healthy service move."""
    for model in ("garden", "meadow"):
        for place in range(10):
            rows = [{"rain": "yes", "gauge": place}, {"wet": "no"}, {}]
            for kind in ("posterior", "predict", "explanation", "likelihood"):
                assert served.ask(kind, *rows, model=model, key=f"k{place}").status_code == 200
        assert served.ask("posterior", {"rain": "hail"}, model=model).status_code == 200
        assert served.ask("posterior", {"rain": "yes", "wet": "no"}, model=model).status_code == 200
        assert served.ask("predict", {}, model=model, abstain_below=0.99).status_code == 200
        assert served.ask("posterior", {"wind": "west"}, model=model).status_code == 200
        assert served.ask("posterior", model=model).status_code == 422


# -- what is asked


def expressions(of: str) -> list[tuple[str, str]]:
    """Give every expression with its place: of the rules, or of the dashboards."""
    if of == "rules":
        rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
        return [(rule["alert"], rule["expr"]) for rule in rules]
    found = []
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        found += [(f"{note['name']} (annotation)", note["expr"]) for note in dashboard["annotations"]["list"]]
        for panel in dashboard["panels"]:
            found += [(panel["title"], target["expr"]) for target in panel.get("targets", ())]
    return found


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Give the metrics of an expression, each with the labels that its matchers name."""
    text = re.sub(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)", " ", expression)
    found = re.findall(r"\b([a-z_]\w*)\b(?!\s*\()(?:\{([^}]*)\})?", re.sub(r"\[[^]]*\]", "", text))
    words = {"and", "or", "unless", "bool", "offset", "e", "by", "on"}
    return [(name, set(re.findall(r"(\w+)\s*[=!]~?", matchers))) for name, matchers in found if name not in words]


def grouped(expression: str) -> set[str]:
    """Give the labels that an expression groups or joins by."""
    inside = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
    return {label.strip() for labels in inside for label in labels.split(",") if label.strip()}


def test_the_reader_of_expressions_sees_every_metric():
    """What checks the names must not be blind."""
    found = selectors('sum by (le, m) (rate(a_bucket{x="1",y=~"$z"}[5m])) / on (m) group_left () b_total > 0.5 and c')
    assert found == [("a_bucket", {"x", "y"}), ("b_total", set()), ("c", set())]
    assert grouped("sum by (le, m) (a) / on (n) group_left () b") == {"le", "m", "n"}


@pytest.mark.parametrize("of", ["rules", "dashboards"])
def test_every_metric_and_label_is_one_that_a_service_has(scraped: Scraped, of: str):
    """A name that nobody exposes makes a panel empty and an alert silent for ever."""
    known = {**scraped.labels, **OWN, **RARE}
    asked = expressions(of)
    assert len(asked) > 15
    for place, expression in asked:
        names = selectors(expression)
        assert names, place
        for name, labels in names:
            assert name in known, f"{place}: nothing exposes {name}"
            assert labels <= known[name] | OWN["up"], f"{place}: {name} has no label {labels - known[name]}"
        theirs = set().union(*(known[name] for name, _ in names))
        assert grouped(expression) <= theirs, f"{place}: {grouped(expression) - theirs}"


def test_every_metric_is_shown_somewhere(scraped: Scraped):
    """What is counted and never looked at costs and helps nobody."""
    shown = {
        name for of in ("rules", "dashboards") for _, expression in expressions(of) for name, _ in selectors(expression)
    }
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    exposed = {re.sub(r"_(bucket|sum|count)$", "", name) for name in scraped.labels}
    assert exposed - families == {"bnpipe_registry_up"}  # its age says more


def test_the_manual_explains_every_metric(scraped: Scraped):
    """docs/monitoring.md names each metric, and none that is not there."""
    manual = (ROOT / "docs" / "monitoring.md").read_text()
    told = {
        name for line in manual.splitlines() if line.startswith("| `") for name in re.findall(r"`(bnpipe_\w+)`", line)
    }
    exposed = {re.sub(r"_(bucket|sum|count)$", "", name) for name in {**scraped.labels, **RARE}}
    assert told == exposed


def test_legends_and_annotations_name_labels_that_are_left():
    """A legend of a label that was summed away is empty."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                left = re.search(r"\bby \(([^)]*)\)", target["expr"])
                kept = {"pid"} if left is None else {label.strip() for label in left[1].split(",")}
                assert named <= kept, panel["title"]


def test_dashboards_have_panels_that_do_not_overlap():
    """Identifiers are unique, each panel says what it shows, and none lies on another."""
    assert DASHBOARDS
    for path in DASHBOARDS:
        panels = json.loads(path.read_text())["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        cells: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            its = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not its & cells, panel["title"]
            cells |= its
            assert panel["type"] == "row" or panel["description"], panel["title"]


def test_grafana_finds_its_source_and_its_dashboards():
    """Provisioning names the folder that docker-compose.yaml mounts, and asks the Prometheus beside it."""
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/bnpipe.yaml").read_text())["providers"][0]
    compose = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]["grafana"]
    assert source["type"] == "prometheus"
    assert source["url"] == "${PROMETHEUS_URL}"
    assert "PROMETHEUS_URL" in compose["environment"]
    assert any(volume.endswith(f":{provider['options']['path']}:ro") for volume in compose["volumes"])


def test_each_alert_says_what_to_do_and_is_made_to_fire():
    """Every rule has a summary, a remedy and a severity, and alerts_test.yaml lets it fire."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "do"}, rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}
    fired = set(re.findall(r'alertname="(\w+)"', (ROOT / "tests/serving/alerts_test.yaml").read_text()))
    assert {rule["alert"] for rule in rules} == fired


# -- with Prometheus at hand


def test_prometheus_takes_the_rules_and_they_fire():
    """promtool: rules and configuration are valid; each alert fires when it should, and none when all is well."""
    promtool = need("promtool")
    config, tests = PROMETHEUS / "prometheus.yml", ROOT / "tests/serving/alerts_test.yaml"
    for command in (["check", "rules", RULES], ["check", "config", "--syntax-only", config], ["test", "rules", tests]):
        done = subprocess.run([promtool, *map(str, command)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(240)
def test_expressions_have_answers_on_a_scraped_service(scraped: Scraped, tmp_path: Path):
    """A real Prometheus reads the service with a key from a file; panels are not empty, and rules can be evaluated."""
    program, port = need("prometheus"), free_port(0)
    config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES)]
    (job,) = config["scrape_configs"]
    (tmp_path / "key").write_text(METRICS_KEY)
    job["authorization"]["credentials_file"] = str(tmp_path / "key")
    job["static_configs"] = [{"targets": [scraped.served.address.removeprefix("http://")]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    flags = {"config.file": "prometheus.yml", "storage.tsdb.path": "data", "web.listen-address": f"127.0.0.1:{port}"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [program, *(f"--{name}={value}" for name, value in flags.items())], cwd=tmp_path, stdout=log, stderr=log
        )
        try:
            scraped.served.wait_for(lambda: _query(port, 'up{job="bnpipe"} == 1'))
            for _ in range(6):
                ask_everything(scraped.served)
                time.sleep(2)
            _assert_answers(port)
            alerts = {found["metric"]["alertname"] for found in _query(port, 'ALERTS{alertstate="firing"}')}
            assert alerts <= SILENT, alerts
        finally:
            process.terminate()
            process.wait(20)


def _assert_answers(port: int) -> None:
    empty = []
    for place, expression in expressions("dashboards"):
        filled = expression.replace("$__rate_interval", "1m").replace("$model", ".*")
        if not _query(port, filled) and not re.search(r"failures|swaps.* > 0", expression):
            empty.append((place, filled))
    assert not empty
    for _, expression in expressions("rules"):
        _query(port, expression)  # raises where it is no expression


def _query(port: int, expression: str) -> list[dict[str, Any]]:
    answer = requests.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": expression}, timeout=20)
    found = answer.json()
    assert found["status"] == "success", f"{expression}: {found}"
    result: list[dict[str, Any]] = found["data"]["result"]
    return result
