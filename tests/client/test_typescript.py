"""The TypeScript client, built, packed, and tested against a real server."""

import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from attendant_server import __version__
from attendant_server.security.api_keys import new_api_key
from attendant_server.settings import Settings

from tests.support.serving import LoopThread, running_server

pytestmark = pytest.mark.typescript

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "typescript"
MODULES = CLIENT / "node_modules"
RECORDED = ROOT / "tests" / "recorded"
FOLDERS = ("bundles", "classifiers", "splade", "language_models")


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=CLIENT, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def tools():
    if not (MODULES / ".installed").exists():
        pytest.skip("NOT CHECKED: the TypeScript client, since its packages are not installed")


def test_it_works_with_a_real_server(tmp_path: Path):
    for folder in FOLDERS:
        for bundle in (RECORDED / folder).iterdir():
            (tmp_path / bundle.name).symlink_to(bundle)
    key, entry = new_api_key("typescript")
    keys = tmp_path / ".keys.toml"
    keys.write_text(entry)
    keys.chmod(0o600)
    settings = Settings(
        bundles=tmp_path,
        default_models=("tiny-bert",),
        host="127.0.0.1",
        port=0,
        http_host="127.0.0.1",
        http_port=0,
        metrics_port=-1,
        lame_duck_seconds=0.0,
        num_threads=1,
        max_texts=4,
        api_keys=str(keys),
    )
    loop = LoopThread()
    try:
        with running_server(loop, settings) as running:
            url = f"http://127.0.0.1:{running.server.http_port}"
            print(run("npm", "test", "--silent", ATTENDANT_URL=url, ATTENDANT_TOKEN=key))
    finally:
        loop.close()


def test_the_package_has_what_its_users_need(tmp_path: Path):
    [packed] = json.loads(run("npm", "pack", "--json", "--pack-destination", str(tmp_path)))
    with tarfile.open(tmp_path / packed["filename"]) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    assert {"LICENSE", "README.md", "package.json", "dist/index.js", "dist/index.d.ts"} <= names
    assert not [name for name in names if name.startswith(("src", "test", "node_modules"))]
    code = """
        import { Client } from "attendant-client";
        const { models } = Client.prototype;
        if (typeof models !== "function") throw new Error("there is no client");
    """
    (tmp_path / "node_modules").mkdir()
    with tarfile.open(tmp_path / packed["filename"]) as archive:
        archive.extractall(tmp_path / "node_modules", filter="data")
    (tmp_path / "node_modules" / "package").rename(tmp_path / "node_modules" / "attendant-client")
    for scope in ("@bufbuild", "@connectrpc"):
        (tmp_path / "node_modules" / scope).symlink_to(MODULES / scope)
    command = ["node", "--preserve-symlinks", "--input-type=module", "-e", code]
    subprocess.run(command, cwd=tmp_path, check=True)


def test_its_version_is_that_of_the_server():
    package = json.loads((CLIENT / "package.json").read_text())
    assert package["version"] == __version__


def test_its_dependencies_have_allowed_licences():
    [line] = re.findall(r"^LICENSES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    allowed = line.split(";")
    packages = [*MODULES.glob("*/package.json"), *MODULES.glob("@*/*/package.json")]
    licences = {
        path.parent.name: json.loads(path.read_text()).get("license", "") for path in packages
    }
    assert len(licences) >= 3
    bad = {n: found for n, found in licences.items() if not any(each in found for each in allowed)}
    assert not bad
