"""Verification of existing bundles: files, paths and reference outputs."""

import json
from pathlib import Path

import pytest
from attendant_export.bundle.manifest import BundleError
from attendant_export.bundle.parameters import read_parameters
from attendant_export.bundle.verify import verify_bundle
from attendant_export.verify.graph_sessions import ParityError

from tests.support.altered import replace_file

PRECISIONS = ["fp32", "int8", "fp16"]


def copy(bundle: Path, folder: Path) -> Path:
    target = folder / bundle.parent.name / bundle.name
    target.mkdir(parents=True)
    for file in bundle.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize(
    ("bundle", "checked"),
    [
        (
            "translation_bundle",
            [
                f"{precision} {checked}"
                for precision in PRECISIONS
                for checked in (
                    "greedy: 16 of 16 reference texts get the same tokens, 0 differ in ties; ",
                    "beam4: 16 of 16 reference texts get the same tokens, 0 differ in ties; ",
                    "with shortlists: batch mates change nothing",
                )
            ],
        ),
        (
            "embedding_bundle",
            [
                f"{precision}: 8 components and the norms of 16 mean-pooled vectors within "
                for precision in PRECISIONS
            ],
        ),
    ],
)
def test_verifying_an_exported_bundle_says_what_was_checked(bundle, checked, request):
    folder = request.getfixturevalue(bundle)

    files, *lines = verify_bundle(folder)

    assert files.startswith(f"{folder.parent.name}/1: the {len(list(folder.iterdir())) - 1} files")
    assert len(lines) == len(checked)
    assert all(line.startswith(start) for line, start in zip(lines, checked, strict=True))


def test_a_changed_file_is_reported_by_name(embedding_bundle, tmp_path):
    folder = copy(embedding_bundle, tmp_path)
    (folder / "weights.int8.bin").write_bytes(b"other weights")
    (folder / "tokenizer.json").unlink()

    with pytest.raises(BundleError) as error:
        verify_bundle(folder)
    assert "weights.int8.bin has another SHA-256" in str(error.value)
    assert "tokenizer.json is missing" in str(error.value)


def list_outside(manifest, path):
    manifest["files"][0]["path"] = path


def use_outside(manifest, path):
    manifest["source_tokenizer"] = path


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda m: list_outside(m, "../../outside"), "'../../outside' is not a plain path"),
        (lambda m: list_outside(m, "/outside"), "'/outside' is not a plain path"),
        (lambda m: list_outside(m, "./tokenizer.json"), "'./tokenizer.json' is not a plain path"),
        (lambda m: use_outside(m, "../tokenizer.json"), "'../tokenizer.json' is used but not"),
        (lambda m: m.update(reference_outputs="other.json"), "'other.json' is used but not"),
        (lambda m: m["precisions"][0].update(weights=["w.bin"]), "'w.bin' is used but not"),
        (lambda m: m["precisions"][0]["embedder"].update(path="e.onnx"), "'e.onnx' is used but"),
        (lambda m: m.update(files=[]), "'tokenizer.json' is used but not"),
        (lambda m: m.update(precisions=[]), "precisions must have one or more of"),
    ],
)
@pytest.mark.parametrize("read", [verify_bundle, read_parameters])
def test_paths_that_are_not_plain_or_not_listed_are_refused(
    read, change, problem, embedding_bundle, tmp_path
):
    folder = copy(embedding_bundle, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(BundleError) as error:
        read(folder)
    assert problem in str(error.value)


def test_a_file_that_the_manifest_does_not_list_is_reported(embedding_bundle, tmp_path):
    folder = copy(embedding_bundle, tmp_path)
    (folder / "more.bin").write_bytes(b"weights that a graph may name")

    with pytest.raises(BundleError, match=r"more\.bin is not in the manifest"):
        verify_bundle(folder)


def test_a_bundle_without_reference_outputs_is_not_verified(embedding_bundle, tmp_path):
    folder = copy(embedding_bundle, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["reference_outputs"]
    (folder / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(BundleError, match="no reference outputs"):
        verify_bundle(folder)


def change_reference(bundle: Path, tmp_path: Path, change) -> Path:
    """A copy of ``bundle`` with its reference outputs changed by ``change``."""
    folder = copy(bundle, tmp_path)
    name = "reference_outputs.json"
    reference = json.loads((folder / name).read_text(encoding="utf-8"))
    change(reference["outputs"]["fp32"])
    replace_file(folder, name, json.dumps(reference).encode())
    return folder


def another_token(outputs):
    outputs["greedy"][0]["token_ids"][0] += 1


def another_log_probability(outputs, value=0.001):
    outputs["beam4"][3]["log_probabilities"][-1] -= value


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (another_token, "fp32 greedy: 1 of 16 reference texts get different tokens"),
        (another_log_probability, "fp32 beam4: log-probabilities differ .* by 0.001 in the search"),
        (lambda outputs: another_log_probability(outputs, float("nan")), "by nan in the search"),
    ],
)
def test_other_outputs_of_a_translation_bundle_are_reported(
    change, problem, translation_bundle, tmp_path
):
    folder = change_reference(translation_bundle, tmp_path, change)

    with pytest.raises(ParityError, match=problem):
        verify_bundle(folder)


def another_component(outputs):
    outputs["mean_pooled"][2][5] += 0.1


def another_length(outputs):
    outputs["norms"][2] *= 1.01


def no_number(outputs):
    outputs["norms"][2] = float("nan")


def another_candidate(outputs):
    ids = outputs["masked"][4]["candidate_ids"]
    ids[-1] = next(i for i in range(100) if i not in ids)


def a_candidate_left_out(outputs):
    for values in outputs["masked"][4].values():
        del values[0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (another_component, "fp32: reference vectors differ"),
        (another_length, "fp32: reference vectors differ by 0.99%"),
        (no_number, "fp32: reference vectors differ by nan%"),
        (another_candidate, "fp32: log-probabilities of reference masks differ"),
        (a_candidate_left_out, "fp32: log-probabilities of reference masks differ"),
    ],
)
def test_other_outputs_of_an_embedding_bundle_are_reported(
    change, problem, embedding_bundle, tmp_path
):
    folder = change_reference(embedding_bundle, tmp_path, change)

    with pytest.raises(ParityError, match=problem):
        verify_bundle(folder)
