import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from attendant_server.settings import Settings, settings_table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["torch", "onnx", "transformers", "pickle5"])
def test_importing_the_server_does_not_import(package: str):
    code = f"import sys, attendant_server.app; sys.exit({package!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_readme_has_the_table_of_settings():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert settings_table() in readme


def test_every_setting_is_used():
    package = ROOT / "server" / "attendant_server"
    sources = [p for p in package.rglob("*.py") if p.name != "settings.py"]
    code = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    unused = [f.name for f in fields(Settings) if f"settings.{f.name}" not in code]
    assert not unused
