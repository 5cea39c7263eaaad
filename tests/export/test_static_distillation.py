"""Static embeddings from a bundle. tests/e2e/test_distilled_static.py serves them."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from attendant_export.__main__ import main
from attendant_export.bundle import token_teacher
from attendant_export.bundle.manifest import read_manifest
from attendant_export.bundle.parameters import read_parameters
from attendant_export.bundle.token_teacher import TokenTeacher
from attendant_export.data.static_vectors import (
    count_tokens,
    counted_frequencies,
    principal_components,
    sif_weights,
    zipf_frequencies,
)
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.support.checkpoints import write_json, write_sentence_transformer
from tests.support.classifiers import write_classifier
from tests.support.colbert_checkpoints import write_colbert
from tests.support.imports import import_, read_encoder
from tests.support.splade_checkpoints import write_splade
from tests.support.static_checkpoints import random_table, write_model2vec

pytestmark = pytest.mark.usefixtures("quiet_threads")

RECORDED = Path(__file__).parents[2] / "tests/recorded/bundles"
WORDS = ["[UNK]", "[unused0]", "No", ".", "the", "The", "a", "is", "of", "and"]
DIMENSION = 6


@pytest.fixture
def no_original(monkeypatch):
    """Imports are not compared with the original implementations, which take seconds to load."""
    monkeypatch.setattr("attendant_export.bundle.importing.is_original_installed", lambda _: False)


def words() -> Tokenizer:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[PAD]"])
    return tokenizer


def distill(teacher: Path, bundles: Path, *options: str) -> Path:
    command = ["distill-static", "--teacher", str(teacher), "--name", "static"]
    main([*command, "--bundles-dir", str(bundles), "--precisions", "fp32", *options])
    return bundles / "static" / "1"


def distances(vectors: np.ndarray) -> np.ndarray:
    """Between all pairs of vectors, which a rotation and a move of all vectors do not change."""
    return np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)


def test_weights_are_those_of_smooth_inverse_frequency():
    weights = sif_weights(np.array([0.0, 0.001, 0.003]), 0.001)
    np.testing.assert_allclose(weights, [1, 0.5, 0.25], rtol=1e-6)


def test_zipf_frequencies_are_in_proportion_to_one_by_rank():
    np.testing.assert_allclose(zipf_frequencies(3), np.array([6, 3, 2]) / 11)


def test_tokens_are_counted_in_files_folders_and_both_sides_of_pairs(tmp_path):
    tokenizer = words()
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("the a\nthe\n")
    (tmp_path / "two.tsv").write_text("of the\tthe is\n[PAD]\t[PAD]\n")  # no special tokens
    counts = count_tokens([tmp_path / "texts", tmp_path / "two.tsv"], tokenizer, 20)
    assert {WORDS[i]: counts[i] for i in np.flatnonzero(counts)} == {
        "the": 4,
        "a": 1,
        "of": 1,
        "is": 1,
        "[UNK]": 2,
    }
    assert len(counts) == 20
    np.testing.assert_allclose(counted_frequencies(np.array([0, 3])), [0.2, 0.8])


def test_components_are_ordered_by_variance_and_centred_as_tokens_occur():
    generator = np.random.default_rng(1)
    vectors = (generator.standard_normal((50, 4)) * [1, 5, 2, 3] + 7).astype(np.float32)
    frequencies = generator.dirichlet(np.ones(50))

    found = principal_components(vectors, frequencies, 4)

    np.testing.assert_allclose(frequencies @ found, 0, atol=1e-4)
    covariance = (frequencies[:, None] * found).T @ found
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3)
    assert (np.diff(np.diag(covariance)) < 0).all()
    np.testing.assert_allclose(distances(found), distances(vectors), rtol=1e-3, atol=1e-4)
    first = principal_components(vectors, frequencies, 2)
    np.testing.assert_array_equal(first, found[:, :2])


def test_rows_are_those_of_the_teacher_without_tokens_that_no_text_has(tmp_path, no_original):
    table = random_table(len(WORDS) + 1, DIMENSION)
    source = write_model2vec(tmp_path / "source", words(), {"embeddings": table})
    teacher = import_(source, tmp_path / "bundles")

    bundle = distill(teacher, tmp_path / "bundles")

    rows = read_parameters(bundle)["embedding.weight"].numpy()
    weights = sif_weights(zipf_frequencies(len(WORDS) - 2), 1e-4)
    assert rows.shape == (len(WORDS) + 1, DIMENSION)
    assert not rows[[0, 1, -1]].any()
    unweighted = rows[2:-1] / weights[:, None]
    np.testing.assert_allclose(distances(unweighted), distances(table[2:-1].numpy()), rtol=1e-3)
    architecture = read_manifest(bundle).architecture
    assert architecture.text_vectors.excluded_token_id == 0


def test_a_teacher_embeds_tokens_with_its_special_tokens_and_without_its_prompt(
    tmp_path, no_original, monkeypatch
):
    monkeypatch.setattr(token_teacher, "BATCH_SIZE", 2)
    config = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    source = write_sentence_transformer(
        tmp_path / "source", config | {"include_prompt": False}, dense=[{"out_features": 5}]
    )
    prompts = {"prompts": {"query": "1 2 3"}, "default_prompt_name": "query"}
    write_json(source / "config_sentence_transformers.json", prompts)

    teacher = TokenTeacher(import_(source, tmp_path / "bundles"))
    found = teacher.embed([7, 8, 9])

    model = read_encoder(source).model
    surrounded = [[model.tokens.cls_id, each, model.tokens.sep_id] for each in (7, 8, 9)]
    with torch.inference_mode():
        expected = model.pooled(torch.tensor(surrounded), "cls").numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (teacher.dimension, found.shape) == (5, (3, 5))


@pytest.mark.parametrize(
    ("write", "purpose"),
    [
        (partial(write_classifier, family="bert"), "its scores of labels"),
        (write_colbert, "its vectors of tokens"),
        (write_splade, "its sparse vectors"),
    ],
)
def test_a_model_trained_for_another_output_than_vectors_of_texts_cannot_teach(
    write, purpose, tmp_path, no_original
):
    teacher = import_(write(tmp_path / "source"), tmp_path / "bundles")

    with pytest.raises(ValueError, match=f"vectors of texts were never trained, only {purpose}"):
        TokenTeacher(teacher)


def test_a_bundle_states_its_teacher_with_licence_data_and_credits(tmp_path):
    (tmp_path / "text.txt").write_text("The dog sees the man.\n")
    (tmp_path / "test.tsv").write_text("The dog\tDer Hund\nThe king\tDer König\n\u200b\tDer\n")
    options = ["--data-dir", str(tmp_path), "--text", "text.txt", "--test", "test.tsv"]

    bundle = distill(RECORDED / "tiny-bert/1", tmp_path, *options, "--dimensions=8")

    teacher, manifest = read_manifest(RECORDED / "tiny-bert/1"), read_manifest(bundle)
    assert (manifest.license, manifest.languages) == (teacher.license, teacher.languages)
    assert manifest.text_normalization == teacher.text_normalization
    assert list(manifest.credits) == [*teacher.credits, "The embedding model tiny-bert/1."]
    data = [source.name for source in manifest.provenance.data]
    assert data == [*(d.name for d in teacher.provenance.data), "vectors of tiny-bert/1"]
    recipe = manifest.provenance.recipe
    assert f"the teacher tiny-bert/1, licence {teacher.license}, for the token alone" in recipe
    assert "the first 8 of 32 principal components" in recipe
    assert "with the coefficient 0.001. Frequencies are counted in text.txt." in recipe
    assert [figure.metric for figure in manifest.quality] == ["retrieval accuracy"]
    assert manifest.limits.max_tokens == 512
    assert not manifest.special_tokens.HasField("cls_id")
    main(["verify", str(bundle)])
    assert "- The embedding model tiny-bert/1." in (bundle / "MODEL_CARD.md").read_text()


def set_license(bundle: Path, license_: str) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"license": license_}))


@pytest.mark.parametrize(
    ("change", "options", "message", "code"),
    [
        (None, ["--dimensions=33"], "--dimensions 33: the vectors of tiny-bert/1 have 32 val", 2),
        (None, ["--dimensions=0"], "--dimensions: 0 is not an integer of at least 1", 2),
        (None, ["--sif-coefficient=0"], "--sif-coefficient: 0 is not a number above 0", 2),
        (None, ["--sif-coefficient=1e-300"], "the vectors of all tokens are 0", 2),
        (None, ["--max-tokens=0"], "max_tokens must be between 1 and 65536", 2),
        (None, ["--precisions=fp8"], "precisions must be some of", 2),
        (None, ["--text=none.txt"], "none.txt: no such file or folder", 2),
        (None, ["--text="], "a data file has an empty name", 2),
        (None, ["--text=blank.txt"], "blank.txt: no text", 2),
        (None, ["--text=latin.txt"], "latin.txt:1: not UTF-8", 2),
        (None, ["--test=blank.txt"], "blank.txt", 2),
        ("", [], "states no licence, so nothing may be derived from it", 2),
        ("CC-BY-NC-ND-4.0", [], "its licence, CC-BY-NC-ND-4.0, allows no derived works", 2),
        ("cc-by-nd-4.0", [], "its licence, cc-by-nd-4.0, allows no derived works", 2),
        ("Attribution-NoDerivatives", [], "allows no derived works", 2),
        ("damage", [], "tokenizer.json has another SHA-256 or size than the manifest says", 1),
        ("translator", [], "tiny-en-de/1: is no embedding model", 2),
    ],
)
def test_what_cannot_be_distilled_is_refused_and_leaves_no_files(
    change, options, message, code, tmp_path, capsys
):
    (tmp_path / "blank.txt").write_text(" \n\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    name = "tiny-en-de" if change == "translator" else "tiny-bert"
    teacher = Path(shutil.copytree(RECORDED / name / "1", tmp_path / name / "1"))
    if change == "damage":
        (teacher / "tokenizer.json").write_text("{}")
    elif change != "translator" and change is not None:
        set_license(teacher, change)

    with pytest.raises(SystemExit) as ended:
        distill(teacher, tmp_path / "new", "--data-dir", str(tmp_path), *options)

    assert ended.value.code == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists() or not any((tmp_path / "new").iterdir())
