"""Manifests of all versions can be read, and have the same meaning."""

import json
from pathlib import Path

import pytest
from attendant.v1 import bundle_pb2
from attendant.v1.architecture_pb2 import NORM_POSITION_UNSPECIFIED
from attendant_manifest import (
    ManifestError,
    format_manifest,
    parse_manifest,
    parse_stored_manifest,
)
from attendant_manifest.rules import problems
from attendant_manifest.sizes import embedding_sizes, num_layers, translation_sizes

ROOT = Path(__file__).parents[2]
VERSION_1 = [
    path
    for folder in ("tests/data", "tests/recorded/bundles")
    for path in sorted((ROOT / folder).rglob("manifest.json"))
]
WITH_ALL_STEPS = ROOT / "tests/recorded/bundles/tiny-en-de/1/manifest.json"


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def changed(**changes: object) -> str:
    return json.dumps(json.loads(read(WITH_ALL_STEPS)) | changes)


def with_sizes(**changes: object) -> str:
    sizes = json.loads(read(WITH_ALL_STEPS))["translation_sizes"]
    return changed(translation_sizes=sizes | changes)


@pytest.mark.parametrize("path", VERSION_1, ids=lambda p: "/".join(p.parts[-4:-1]))
def test_a_manifest_of_version_1_is_one_of_version_2_from_then_on(path: Path):
    assert json.loads(read(path))["manifest_version"] == 1
    manifest = parse_manifest(read(path))
    assert manifest.manifest_version == 2
    assert parse_manifest(format_manifest(manifest)) == manifest


@pytest.mark.parametrize("path", VERSION_1, ids=lambda p: "/".join(p.parts[-4:-1]))
def test_the_sizes_of_version_1_are_kept_in_the_description_of_the_network(path: Path):
    content, manifest = json.loads(read(path)), parse_manifest(read(path))
    is_translation = manifest.kind == bundle_pb2.MODEL_KIND_TRANSLATION
    stated = "translation_sizes" if is_translation else "embedding_sizes"
    read_back = (translation_sizes if is_translation else embedding_sizes)(manifest.architecture)
    assert {f.name: value for f, value in read_back.ListFields()} == content[stated]


def test_the_signatures_of_the_steps_of_version_1_are_those_of_its_rules():
    manifest = parse_manifest(read(WITH_ALL_STEPS))
    steps = {step.name: step for step in manifest.precisions[0].steps}
    assert {n: (s.num_tokens, s.rows_per_sentence) for n, s in steps.items()} == {
        "decoder_step": (1, 0),
        "greedy_step": (1, 1),
        "greedy_steps": (2, 1),
        "shortlist_decoder_step": (1, 0),
        "shortlist_greedy_steps": (2, 1),
    }
    assert manifest.precisions[0].shortlist_output == "shortlist"
    for name, step in steps.items():
        assert bool(step.inputs.shortlist) == name.startswith("shortlist_")
        assert bool(step.inputs.num_candidates) == (step.num_tokens == 1)


@pytest.mark.parametrize("path", VERSION_1, ids=lambda p: "/".join(p.parts[-4:-1]))
def test_a_manifest_of_version_1_keeps_the_rules_of_version_2(path: Path):
    assert list(problems(parse_manifest(read(path)))) == []


def test_the_states_of_version_1_are_those_of_its_graphs():
    precision = parse_manifest(read(WITH_ALL_STEPS)).precisions[0]
    steps = {step.name: step for step in precision.steps}
    rows = [f"{kind}_{layer}" for layer in (0, 1) for kind in ("key", "value")]
    for name, step in steps.items():
        owned = {bundle_pb2.STATE_OWNER_ROW: "past", bundle_pb2.STATE_OWNER_SOURCE: "cross"}
        for owner, prefix in owned.items():
            states = [state for state in step.states if state.owner == owner]
            assert [state.input for state in states] == [f"{prefix}_{each}" for each in rows]
        for state in step.states:
            is_row = state.owner == bundle_pb2.STATE_OWNER_ROW
            is_written = is_row or "greedy" in name
            suffixes = ["", "_1"][: step.num_tokens] if is_written else []
            written = f"present_{state.input.removeprefix('past_')}"
            assert list(state.outputs) == [f"{written}{suffix}" for suffix in suffixes]
            assert state.encoder_output == ("" if is_row else state.input)
            assert state.reads_padding is not is_written


def test_facts_that_version_1_does_not_state_stay_unspecified():
    architecture = parse_manifest(read(WITH_ALL_STEPS)).architecture
    assert architecture.encoder.norm_position == NORM_POSITION_UNSPECIFIED
    assert num_layers(architecture.decoder) == 2


def with_version(spelling: str, manifest: str) -> str:
    """The manifest with another spelling of its version, which may include the field's name."""
    field = spelling if ":" in spelling else f'"manifest_version": {spelling}'
    content = json.loads(manifest)
    del content["manifest_version"]
    return "{" + field + ", " + json.dumps(content).removeprefix("{")


@pytest.mark.parametrize("spelling", ["1", "1.0", "1e0", "10e-1", '"1"', '"\\u0031"'])
def test_every_spelling_of_version_1_is_upgraded(spelling: str):
    text = read(WITH_ALL_STEPS)
    assert parse_stored_manifest(with_version(spelling, text)) == (parse_manifest(text), 1)


@pytest.mark.parametrize("spelling", ["2", "2.0", "0.2e1", '"2"', '"manifestVersion": 2.0'])
def test_every_spelling_of_version_2_is_that_version(spelling: str):
    manifest = parse_manifest(read(WITH_ALL_STEPS))
    text = with_version(spelling, format_manifest(manifest))
    assert parse_stored_manifest(text) == (manifest, 2)


@pytest.mark.parametrize(
    "spelling",
    ["1.5", '"two"', '""', "true", "[1]", "{}", "-1", "4294967296", "1e400", "NaN", '"\\ud800"'],
)
def test_a_version_that_is_no_integer_is_refused(spelling: str):
    with pytest.raises(ManifestError, match="manifest_version must be a 32-bit integer, not "):
        parse_manifest(with_version(spelling, read(WITH_ALL_STEPS)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting value"),
        ("[]", "is not a JSON object"),
        ('{"name": "a", "name": "b"}', "name is given twice"),
        ('{"surprise": 1}', "surprise"),
        ('{"manifest_version": 1}', "embedding_sizes is missing"),
        (changed(surprise=1), "surprise"),
        (changed(special_tokens={}), "bos_id is missing"),
        (changed(precisions=3), "a field has a value of another type"),
        (changed(translation_sizes={"d_model": 32}), "vocab_size is missing"),
        (with_sizes(d_model="wide"), "d_model must be a number from 1 to 16777216"),
        (with_sizes(d_model=True), "d_model must be a number from 1 to 16777216"),
        (with_sizes(num_heads=-1), "num_heads must be a number from 1 to 16777216"),
        (with_sizes(num_decoder_layers=10**12), "num_decoder_layers must be a number"),
        ('{"manifest_version": %s}' % ("9" * 5000), "integer string conversion"),
        (changed(special_tokens="ab"), "a field has a value of another type|dictionary update"),
        (changed(manifest_version=True), "manifest_version"),
        (changed(manifestVersion=1), "version 1 has no field manifestVersion"),
        (changed(files=[{"\ud800": 1}]), "has text that is not valid Unicode"),
        ("[" * 100_000, "is nested too deeply"),
    ],
)
def test_a_text_that_is_no_manifest_is_refused_with_the_reason(text: str, problem: str):
    with pytest.raises(ManifestError, match=problem):
        parse_manifest(text)
