"""The client installs with every supported protobuf version, and can then call a server."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def run(*command, cwd):
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("requirement", "prefix"), [("==6.31.1", "6.31.1"), ("<7", "6."), ("<8", "7.")]
)
def test_client_works_with_protobuf(address, tmp_path, requirement, prefix):
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    programs = tmp_path / "venv" / "bin"
    members = [ROOT / "protos", ROOT / "clients" / "python"]
    run(programs / "pip", "install", "--quiet", *members, f"protobuf{requirement}", cwd=tmp_path)

    show = "import attendant_client, google.protobuf as p; print(p.__version__)"
    version = run(programs / "python", "-W", "error", "-c", show, cwd=tmp_path)
    translated = run(programs / "attendant", "--target", address, "translate", "a", cwd=tmp_path)

    assert version.startswith(prefix)
    assert translated == "A"
