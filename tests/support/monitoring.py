"""A real Prometheus for the servers of tests, and the queries of dashboards and rules."""

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.servers import free_port
from tests.support.serving import TIMEOUT_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations.md"
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
SCRAPE_INTERVAL = "500ms"
RATE_INTERVAL = "5s"


def tool(name: str) -> str:
    """The path of a command. Skips the test with a message if it is not installed."""
    return shutil.which(name) or pytest.skip(f"NOT CHECKED: {name} is not installed")


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """The ``data`` of an answer of its HTTP API."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            return json.load(response)["data"]

    def numbers(self, expression: str) -> list[float]:
        """The current values of an expression without NaN."""
        values = [float(found["value"][1]) for found in self.vector(expression)]
        return [value for value in values if value == value]

    def vector(self, expression: str) -> Any:
        """The current result of an expression."""
        return self.get("query", query=expression)["result"]

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=TIMEOUT_SECONDS):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False


@contextmanager
def running_prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Prometheus with the repository's configuration, faster, and ``target`` as its server."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], SCRAPE_INTERVAL)
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    [job] = [job for job in config["scrape_configs"] if job["job_name"] == "attendant"]
    config["scrape_configs"] = [job | {"static_configs": [{"targets": [target]}]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        tool("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        prometheus = Prometheus(f"http://{address}")
        try:
            wait_until(lambda: process.poll() is not None or prometheus.is_ready())
            assert process.poll() is None, (folder / "log").read_text()
            yield prometheus
        finally:
            process.terminate()


def expressions_of(
    dashboard: dict[str, Any], variables: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """(panel, expression) of all queries, with the dashboard's variables replaced."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", RATE_INTERVAL)
            for name, value in variables.items():
                expression = expression.replace(f"${name}", value)
            assert "$" not in expression, f"{panel['title']} uses an unknown variable: {expression}"
            yield panel["title"], expression


Described = dict[str, tuple[str, frozenset[str]]]
"""Type and labels of each metric."""


def documented_metrics() -> Described:
    """The tables under "Metrics": metrics that a server without a GPU has, and those it lacks."""
    section = OPERATIONS.read_text(encoding="utf-8").partition("## Metrics\n")[2]
    found: Described = {}
    for line in section.partition("\n## ")[0].splitlines():
        if line.startswith("| `"):
            name, kind, _, labels, _ = (cell.strip() for cell in line.strip("|").split("|"))
            found[name.strip("`")] = (kind, frozenset(re.findall(r"`(\w+)`", labels)))
    return found


def rules() -> list[dict[str, Any]]:
    """All rules of all groups."""
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def selectors_of(expression: str) -> list[str]:
    """The series that an expression reads, as selectors without ranges."""
    names = r"(?:(?:attendant|grpc|process)_\w+|(?:service|instance):[\w:]+|\bup)"
    without_labels = re.sub(r"\b(by|on) \([^)]*\)", "", expression)
    return re.findall(rf"(?<![\w:])({names}(?:\{{[^}}]*\}})?)", without_labels)
