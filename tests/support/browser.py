"""Debian's Chromium for tests, driven by playwright, with axe-core for faults of accessibility."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

AXE = Path(__file__).parents[2] / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
TIMEOUT_MILLISECONDS = 20_000


@contextmanager
def running_browser() -> Iterator[Any]:
    """A headless Chromium of playwright; skips the test if something of it is missing."""
    chromium = shutil.which("chromium")
    missing = [] if chromium else ["chromium"]
    missing += [] if AXE.is_file() else ["axe-core in build/axe"]
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing.append("playwright")
    if missing:
        pytest.skip(f"NOT CHECKED: the page in a browser, which needs {', '.join(missing)}")
    with sync_playwright() as playwright:
        # As root, as in a container, Chromium runs without its sandbox only.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """A page of a new window; what the browser complains of fails the test."""
    context = browser.new_context(**options)
    context.set_default_timeout(TIMEOUT_MILLISECONDS)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url, wait_until="networkidle")  # with the models
    yield page
    context.close()
    assert [each for each in complaints if "status of 4" not in each] == []


def faults_of(page: Any, *rules: str) -> list[str]:
    """What axe-core finds in a page, by all of its rules or these."""
    options = json.dumps({"runOnly": rules} if rules else {})
    found = page.evaluate(f"{AXE.read_text(encoding='utf-8')}; axe.run({options})")
    assert found["passes"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found["violations"]]
