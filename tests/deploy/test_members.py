"""The projects of the distributions: what they say about versions and licences."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECTS = sorted(ROOT.glob("*/pyproject.toml")) + sorted(ROOT.glob("clients/*/pyproject.toml"))


def read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def version_of(path: Path) -> str:
    source = path.parent / read(path)["tool"]["hatch"]["version"]["path"]
    found = re.search(r'^__version__ = "(.+)"$', source.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def requirements(path: Path) -> list[Requirement]:
    project = read(path)["project"]
    extras = project.get("optional-dependencies", {}).values()
    return [Requirement(line) for lines in [project["dependencies"], *extras] for line in lines]


def test_all_distributions_have_the_version_of_the_image():
    assert len(PROJECTS) == 4
    (version,) = {version_of(path) for path in PROJECTS}
    assert f"image: attendant:{version}\n" in (ROOT / "docker-compose.yml").read_text()


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_a_distribution_needs_exactly_its_own_version_of_the_others(path: Path):
    for needed in requirements(path):
        if needed.name.startswith("attendant-"):
            assert str(needed.specifier) == f"=={version_of(path)}"
        else:
            assert needed.specifier, f"{needed.name} has no bound"


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_a_distribution_has_the_licence_of_the_repository(path: Path):
    assert (path.parent / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert "LICENSE" in read(path)["project"]["license-files"]
