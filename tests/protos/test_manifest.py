"""Manifests are read in any version, and mean the same in each."""

import json
from pathlib import Path

import pytest
from attendant.v1 import bundle_pb2
from attendant.v1.architecture_pb2 import NORM_POSITION_UNSPECIFIED
from attendant_manifest import ManifestError, format_manifest, parse_manifest
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
def test_signatures_name_every_input_and_output_of_a_step(path: Path):
    for precision in parse_manifest(read(path)).precisions:
        for step in precision.steps:
            inputs = [value for _, value in step.inputs.ListFields() if isinstance(value, str)]
            inputs += [n for b in step.inputs.token_biases for n in (b.positions, b.values)]
            inputs += [state.input for state in step.states]
            outputs = [value for _, value in step.outputs.ListFields()]
            outputs += [name for state in step.states for name in state.outputs]
            assert sorted(inputs) == sorted(step.graph.inputs)
            assert sorted(outputs) == sorted(step.graph.outputs)


def test_facts_that_version_1_does_not_state_stay_unspecified():
    architecture = parse_manifest(read(WITH_ALL_STEPS)).architecture
    assert architecture.encoder.norm_position == NORM_POSITION_UNSPECIFIED
    assert num_layers(architecture.decoder) == 2


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
        (changed(translation_sizes={"d_model": "wide"}), "vocab_size is missing"),
        ("[" * 100_000, "is nested too deeply"),
    ],
)
def test_a_text_that_is_no_manifest_is_refused_with_the_reason(text: str, problem: str):
    with pytest.raises(ManifestError, match=problem):
        parse_manifest(text)
