"""The committed dashboards match the code and Grafana's types, and explain every panel."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.monitoring import DASHBOARDS, ROOT, documented_metrics

TYPESCRIPT = ROOT / "build" / "grafana"
TSC = TYPESCRIPT / "node_modules" / ".bin" / "tsc"
OPTIONS = ("--noEmit", "--skipLibCheck", "--strict", "--module", "esnext", "--moduleResolution")


WITHOUT_PANEL = {
    "attendant_build_info": "the variable Instance lists its instances",
    "attendant_model_info": "the variable Model lists its models",
    "process_virtual_memory_bytes": "address space is not memory, and has no limit",
}
"""Metrics that are on no panel, each with the reason."""


def panels(path: Path) -> list[dict]:
    return [p for p in json.loads(path.read_text())["panels"] if p["type"] != "row"]


def test_the_committed_dashboards_are_what_the_code_builds():
    pytest.importorskip("grafana_foundation_sdk", reason="NOT CHECKED: no grafana-foundation-sdk")
    from deploy.dashboards.__main__ import documents

    assert {path.name: path.read_text() for path in DASHBOARDS} == documents()


def test_every_panel_says_what_a_bad_value_means():
    for path in DASHBOARDS:
        found = panels(path)
        assert len(found) >= 15
        assert len({p["title"] for p in found}) == len(found)
        assert all(len(p["description"]) > 60 for p in found)


@pytest.mark.parametrize("title", ["Serving", "Calls"])
def test_a_server_that_is_gone_leaves_no_last_value_that_looks_well(title: str):
    [panel] = [p for path in DASHBOARDS for p in panels(path) if p["title"] == title]
    [query] = panel["targets"]
    assert query["expr"].endswith(" or vector(0)")


def test_every_metric_is_on_a_panel_or_has_a_reason_why_not():
    targets = (t for path in DASHBOARDS for p in panels(path) for t in p["targets"])
    shown = set(re.findall(r"\w+", " ".join(target["expr"] for target in targets)))
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    missing = {
        name
        for name, (kind, _) in documented_metrics().items()
        if shown.isdisjoint(name + part for part in parts.get(kind, ("",)))
    }
    assert missing == set(WITHOUT_PANEL)


def type_errors(folder: Path, document: str) -> str:
    """The errors of the TypeScript compiler for a dashboard."""
    if not TSC.exists():
        pytest.skip("NOT CHECKED: no TypeScript; 'make check' installs it")
    (folder / "node_modules").symlink_to(TYPESCRIPT / "node_modules")
    shutil.copy(ROOT / "deploy" / "grafana" / "dashboard.ts", folder)
    imported = 'import type { OurDashboard } from "./dashboard";'
    (folder / "checked.ts").write_text(f"{imported}\nexport const d: OurDashboard = {document};\n")
    command = [str(TSC), *OPTIONS, "bundler", "checked.ts"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_has_grafanas_own_type(tmp_path, path):
    assert type_errors(tmp_path, path.read_text()) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"unit": "s"', '"unitt": "s"'),
        ('"refresh": "30s"', '"refresh": 30'),
        ('"showPoints": "never"', '"showPoints": "nevr"'),
        ('"placement": "bottom"', '"plaecment": "bottom"'),
    ],
)
def test_a_mistake_in_a_dashboard_is_found(tmp_path, right, wrong):
    document = DASHBOARDS[0].read_text()
    assert right in document
    assert "error TS" in type_errors(tmp_path, document.replace(right, wrong))
