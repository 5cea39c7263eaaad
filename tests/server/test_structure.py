import asyncio
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import uvloop
import yaml
from attendant_server.__main__ import serve
from attendant_server.setting_sources import settings_table
from attendant_server.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["torch", "onnx", "opentelemetry", "attendant_export"])
def test_importing_the_server_does_not_import(package: str):
    code = f"import sys, attendant_server.app; sys.exit({package!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "package", ["attendant_server.runtime.translation_model", "attendant_export.bundle"]
)
def test_onnx_runtime_is_told_not_to_report_its_use(package: str):
    code = f"import os, {package}; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "1"


def test_the_server_runs_on_the_event_loop_of_uvloop(monkeypatch: pytest.MonkeyPatch):
    async def run(settings: Settings) -> int:
        return 7 if isinstance(asyncio.get_running_loop(), uvloop.Loop) else 1

    monkeypatch.setattr("attendant_server.process.run", run)
    monkeypatch.setattr("attendant_server.observability.logs.set_up_logs", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["attendant-server"])
    assert serve() == 7


def test_a_server_without_onnx_runtime_names_the_extras_that_have_it(monkeypatch, capsys):
    monkeypatch.setattr("attendant_server.__main__.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["attendant-server"])
    assert serve() == 1
    assert "'attendant-server[cpu]', or 'attendant-server[gpu]'" in capsys.readouterr().err


def test_the_readme_has_the_table_of_settings():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{settings_table()}\n<!-- /settings -->\n" in readme


def source_code(*, without: str = "") -> str:
    sources = (ROOT / "server" / "attendant_server").rglob("*.py")
    return "\n".join(s.read_text(encoding="utf-8") for s in sources if s.name != without)


def test_every_setting_is_used():
    code = source_code(without="settings.py")
    assert not [f.name for f in fields(Settings) if f"settings.{f.name}" not in code]


def models_for_a_gpu() -> str:
    """The built-in models that a GPU can run, because they have fp16."""
    weights = (ROOT / "bundles").glob("*/*/weights.fp16.bin")
    return ",".join(sorted(path.parents[1].name for path in weights))


def test_the_container_for_a_gpu_serves_the_models_that_can_run_there():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert (
        compose["services"]["server-gpu"]["environment"]["ATTENDANT_MODELS"] == models_for_a_gpu()
    )


HUGE_PAGES = 'GLIBC_TUNABLES="${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}"'


@pytest.mark.parametrize(
    ("device", "start"),
    [
        ("cpu", f"exec env {HUGE_PAGES} .venv-serve/bin/attendant-server"),
        (
            "gpu",
            f'exec env {HUGE_PAGES} ATTENDANT_MODELS="${{ATTENDANT_MODELS-{models_for_a_gpu()}}}" '
            ".venv-serve-gpu/bin/attendant-server --device cuda",
        ),
    ],
)
def test_make_serve_asks_for_the_device_that_it_was_given(device: str, start: str):
    command = ["make", "--dry-run", "--always-make", "serve", f"DEVICE={device}"]
    # When make runs the tests, its flags must not reach this make.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    shown = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert " ".join(shown.replace("\\\n", " ").splitlines()[-1].split()) == start


@pytest.mark.parametrize("name", ["pickle", "marshal", "shelve", "joblib", "np.load", "torch"])
def test_the_server_never_unpickles(name: str):
    source = re.sub(r"np\.load\(\w+, allow_pickle=False\)", "", source_code())
    assert not re.search(rf"\b{re.escape(name)}\b", source)


@pytest.mark.parametrize("call", [r"\beval\(", r"\bexec\(", r"\bcompile\("])
def test_the_server_runs_no_code_that_it_was_given(call: str):
    assert not re.search(call, source_code().replace("re.compile(", ""))
