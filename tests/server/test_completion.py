"""Completion of `attendant-server` in bash."""

import pytest
from attendant_server.setting_sources import load_settings

from tests.support.completions import completed_by_bash, script_of


@pytest.fixture
def bash(capsys, tmp_path):
    script = script_of(lambda words: load_settings(words, {}), "bash", capsys, tmp_path / "script")
    return lambda *words: completed_by_bash(script, *words)


def test_bash_completes_the_settings(bash):
    assert bash("attendant-server", "--log-") == ["--log-level", "--log-format"]


def test_bash_completes_the_values_of_a_setting(bash):
    assert bash("attendant-server", "--port", "0", "--precision", "fp") == ["fp32", "fp16"]


def test_bash_completes_files_of_a_setting(bash, tmp_path):
    (tmp_path / "server.crt").touch()
    assert bash("attendant-server", "--tls-cert", "ser") == ["server.crt"]
    assert bash("attendant-server", "--models", "ser") == []
