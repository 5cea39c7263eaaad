"""The pages of the documentation site: their links, their navigation and their reference."""

import re
import tomllib
from pathlib import Path

import attendant_client
import pytest

from deploy.documentation.__main__ import main
from deploy.documentation.links import collect
from deploy.documentation.reference import REFERENCE, reference_pages

ROOT = Path(__file__).parents[2]
STARTS = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def test_every_link_of_the_documentation_leads_somewhere():
    assert collect(ROOT)[1] == []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    for name in STARTS:
        (tmp_path / name).touch()
    return tmp_path


def test_a_link_that_leads_nowhere_is_named(repository: Path):
    (repository / "README.md").write_text(
        "# One two\n[a](docs/a.md#first-part) [b](docs/a.md#third) [c](none.py) [d](#one-two)\n"
        "`[e](none.md)` [f](#none) [g](https://example.com/none)\n```\n# none\n[h](none.md)\n```\n",
        encoding="utf-8",
    )
    (repository / "docs" / "a.md").write_text("## First `part`\n", encoding="utf-8")
    assert collect(repository)[1] == [
        "README.md: docs/a.md#third does not exist",
        "README.md: none.py does not exist",
        "README.md: README.md#none does not exist",
    ]


def test_linked_folders_and_sources_become_pages(repository: Path):
    (repository / "code").mkdir()
    (repository / "code" / "a.py").write_text("x = 1\n", encoding="utf-8")
    (repository / "README.md").write_text("[code](code)", encoding="utf-8")
    pages = {page.place: page.text for page in collect(repository)[0]}
    assert pages["index.md"] == "[code](code/index.md)"
    assert pages["code/index.md"] == "# code\n\n- [a.py](a.py.md)\n"
    assert "~~~~python\nx = 1\n" in (pages["code/a.py.md"] or "")


def test_the_site_lists_every_page_of_the_documentation(tmp_path: Path):
    assert main(tmp_path / "site") == 0
    text = (tmp_path / "site" / "zensical.toml").read_text(encoding="utf-8")
    navigation = str(tomllib.loads(text)["project"]["nav"])
    docs = [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")]
    for place in [*docs, *STARTS, "index.md", *REFERENCE]:
        assert f"'{place}'" in navigation
        assert (tmp_path / "site" / "pages" / place).is_file()


def test_the_reference_has_every_public_name_of_the_client():
    source = Path(attendant_client.__file__).read_text(encoding="utf-8")
    shown = re.findall(
        r"^::: attendant_client\.(\w+)$", "\n".join(reference_pages(source).values()), re.M
    )
    assert sorted(shown) == sorted(set(attendant_client.__all__) - {"__version__"})
