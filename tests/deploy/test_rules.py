"""The recording and alert rules, checked by promtool."""

import re
import subprocess

import pytest
import yaml

from tests.support.monitoring import OPERATIONS, PROMETHEUS, rules, tool

ALERTS = [rule for rule in rules() if "alert" in rule]


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        [tool("promtool"), *arguments], cwd=PROMETHEUS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.prometheus
def test_the_configuration_and_the_rules_are_right():
    assert f"{len(rules())} rules found" in promtool("check", "rules", "rules.yml")
    promtool("check", "config", "prometheus.yml")


@pytest.mark.prometheus
def test_alerts_fire_and_stay_silent_as_they_should():
    promtool("test", "rules", "rules_test.yml")


def test_every_alert_has_a_case_that_fires_and_a_case_that_stays_silent():
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    cases = {
        (case["alertname"], bool(case["exp_alerts"]))
        for test in tests
        for case in test["alert_rule_test"]
    }
    assert cases == {(rule["alert"], fires) for rule in ALERTS for fires in (True, False)}


def test_every_alert_has_a_runbook_entry_and_every_entry_an_alert():
    headings = re.findall(r"^### (Attendant\w+)$", OPERATIONS.read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in ALERTS]
    for rule in ALERTS:
        anchor = rule["alert"].lower()
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{anchor}"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_every_runbook_entry_says_what_it_means_what_to_look_at_and_what_to_do():
    _, *entries = re.split(r"^### (?=Attendant)", OPERATIONS.read_text(), flags=re.MULTILINE)
    for entry in entries:
        text = re.split(r"^##", entry, maxsplit=1, flags=re.MULTILINE)[0]
        for part in ("*Means*", "*Look at*", "*Do*"):
            assert part in text, text
