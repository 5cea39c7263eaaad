"""Properties of the contract files and of the code generated from them."""

import re
import tomllib
from pathlib import Path

import pytest
from attendant.v1 import (
    architecture_pb2,
    attention_pb2,
    bundle_pb2,
    embedding_pb2,
    language_model_pb2,
    language_pb2,
    model_control_pb2,
    model_pb2,
    text_pb2,
    translation_pb2,
)
from google.rpc import status_pb2

PROTOS = Path(__file__).parents[2] / "protos"
FILES = sorted((PROTOS / "attendant" / "v1").glob("*.proto"))
MODULES = (
    architecture_pb2,
    attention_pb2,
    bundle_pb2,
    embedding_pb2,
    language_pb2,
    language_model_pb2,
    model_pb2,
    model_control_pb2,
    text_pb2,
    translation_pb2,
)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_file_names_its_packages_for_go_and_java(module):
    options = module.DESCRIPTOR.GetOptions()
    assert options.go_package == "attendant/v1;attendantv1"
    assert options.java_package == "attendant.v1"
    assert options.java_multiple_files


def test_every_file_has_generated_code():
    assert [module.DESCRIPTOR.name for module in MODULES] == [
        path.relative_to(PROTOS).as_posix() for path in FILES
    ]


def test_every_import_lies_in_the_repository_or_comes_with_every_compiler():
    sources = [path.read_text(encoding="utf-8") for path in PROTOS.rglob("*.proto")]
    imports = {name for source in sources for name in re.findall(r'^import "(.+)";', source, re.M)}
    roots = (PROTOS, PROTOS / "vendored")
    missing = {name for name in imports if not any((root / name).exists() for root in roots)}
    assert missing == {"google/protobuf/any.proto", "google/protobuf/duration.proto"}


def test_python_has_one_module_for_status_that_of_googleapis_common_protos():
    assert PROTOS not in Path(status_pb2.__file__).parents
    assert not list((PROTOS / "generated").glob("google"))
    project = tomllib.loads((PROTOS / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [
        "generated/attendant",
        "generated/attendant_vendored",
        "python/attendant_command_line",
        "python/attendant_glossaries",
        "python/attendant_manifest",
    ]
    pool = translation_pb2.DESCRIPTOR.pool
    assert pool.FindMessageTypeByName("google.rpc.Status") is status_pb2.Status.DESCRIPTOR


def test_the_copy_of_status_defines_what_the_installed_module_does():
    source = (PROTOS / "google" / "rpc" / "status.proto").read_text(encoding="utf-8")
    assert source.startswith("// Copyright")
    assert "Apache License, Version 2.0" in source
    fields = re.findall(r"^  .*?(\w+) = (\d+);", source, re.MULTILINE)
    installed = status_pb2.Status.DESCRIPTOR.fields
    assert fields == [(field.name, str(field.number)) for field in installed]


def test_files_of_other_projects_have_their_licences_and_generated_code():
    folders = list((PROTOS / "vendored" / "attendant_vendored").iterdir())
    assert folders
    for folder in folders:
        assert "copyright" in (folder / "LICENSE").read_text(encoding="utf-8").lower()
        for path in folder.glob("*.proto"):
            generated = PROTOS / "generated" / "attendant_vendored" / folder.name
            assert (generated / f"{path.stem}_pb2.py").exists()
    project = tomllib.loads((PROTOS / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["license-files"] == [
        "LICENSE",
        "vendored/attendant_vendored/*/LICENSE",
    ]
    assert project["project"]["license"] == "Apache-2.0 AND BSD-3-Clause"
