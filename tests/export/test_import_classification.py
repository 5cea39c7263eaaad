"""Models for classification are imported with their heads and follow the original."""

import logging
import random

import pytest
from attendant.v1.embedding_pb2 import (
    SCORE_FUNCTION_IDENTITY,
    SCORE_FUNCTION_SIGMOID,
    SCORE_FUNCTION_SOFTMAX,
)
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.checkpoint import CheckpointError, Config
from attendant_export.importers.classification import read_classification
from tokenizers import Tokenizer, processors

from tests.support.checkpoints import FAMILIES, change_json, write_json
from tests.support.classifiers import write_classifier
from tests.support.drawn_seeds import seeds
from tests.support.imports import import_
from tests.support.rebuilds import rebuilt_alike

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quiet_threads")


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("family", FAMILIES)
def test_a_drawn_classifier_follows_the_original(family, seed, tmp_path):
    num_labels = random.Random(seed).choice((1, 2, 5))
    source = write_classifier(tmp_path / "source", family, num_labels, seed)

    bundle = import_(source, tmp_path / "bundles")

    parity = read_manifest(bundle).parity.original
    assert (parity.num_texts >= 12, parity.num_different_token_ids) == (True, 0)
    assert parity.min_cosine >= 0.99999
    (scores,) = parity.label_scores
    assert scores.num_texts > 1.5 * parity.num_texts  # single texts and pairs
    assert scores.max_difference < 1e-4


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The checkpoint of a classifier that reads pairs, and its bundle of two precisions."""
    folder = tmp_path_factory.mktemp("classifier")
    source = write_classifier(folder / "source", "bert", id2label={0: "no", 1: "yes"})
    return source, import_(source, folder / "bundles", "--precisions", "fp32,int8")


def test_a_bundle_states_labels_and_the_agreement_of_all_precisions(classifier):
    manifest = read_manifest(classifier[1])
    assert list(manifest.classification.labels) == ["no", "yes"]
    assert manifest.classification.score_function == SCORE_FUNCTION_SOFTMAX
    fp32, int8 = (each.max_label_score_difference for each in manifest.parity.precisions)
    assert fp32 < 1e-4 < int8
    assert [each.precision for each in manifest.parity.original.label_scores] == ["fp32", "int8"]


def test_a_bundle_is_verified_by_its_scores(classifier, capsys):
    source, bundle = classifier
    main(["verify", str(bundle), "--against", str(source)])
    main(["inspect", str(bundle)])
    lines = capsys.readouterr().out
    assert "scores of labels of" in lines
    assert "the best label is the same for" in lines
    assert "labels      no, yes; scores are those of softmax" in lines


def test_the_graphs_of_a_classifier_can_be_rebuilt_from_its_weights(classifier, tmp_path):
    manifest = rebuilt_alike(classifier[1], tmp_path)
    assert manifest.parity.precisions[0].max_label_score_difference < 1e-4


def test_the_head_of_a_classifier_can_be_left_out(classifier, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    bundle = import_(classifier[0], tmp_path / "bundles", "--without-head")
    manifest = read_manifest(bundle)
    assert not manifest.HasField("classification")
    assert "first_lengths" not in manifest.precisions[0].embedder.inputs


SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"
ONE, THREE = {"id2label": {"0": "yes"}}, {"id2label": {"0": "a", "1": "b", "2": "c"}}


@pytest.mark.parametrize(
    ("fields", "function"),
    [
        (THREE, SCORE_FUNCTION_SOFTMAX),
        (THREE | {"problem_type": "single_label_classification"}, SCORE_FUNCTION_SOFTMAX),
        (THREE | {"problem_type": "multi_label_classification"}, SCORE_FUNCTION_SIGMOID),
        (ONE, SCORE_FUNCTION_SIGMOID),
        (ONE | {"problem_type": "single_label_classification"}, SCORE_FUNCTION_SIGMOID),
        (ONE | {"problem_type": "regression"}, SCORE_FUNCTION_IDENTITY),
        (ONE | {"sbert_ce_default_activation_function": IDENTITY}, SCORE_FUNCTION_IDENTITY),
        (ONE | {"sentence_transformers": {"activation_fn": IDENTITY}}, SCORE_FUNCTION_IDENTITY),
        (THREE | {"sentence_transformers": {"activation_fn": SIGMOID}}, SCORE_FUNCTION_SIGMOID),
    ],
)
def test_the_score_function_is_that_of_the_configuration(fields, function, tmp_path):
    found = read_classification(Config(tmp_path, fields))
    assert found.score_function == function
    assert list(found.labels) == list(fields["id2label"].values())


def test_labels_without_names_are_numbered(tmp_path):
    assert read_classification(Config(tmp_path, {})).labels == ["LABEL_0", "LABEL_1"]
    assert len(read_classification(Config(tmp_path, {"num_labels": 4})).labels) == 4


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "id2label does not name the labels 0, 1 and so on"),
        ({"num_labels": 2_000_000_000}, "num_labels is 2000000000, want at most 1048576"),
        ({"id2label": ["a"]}, "id2label does not name the labels 0, 1 and so on"),
        ({"id2label": {"0": "a", "1": "a"}}, "id2label has a name twice"),
        (THREE | {"problem_type": "ranking"}, "problem_type is 'ranking', which is not supported"),
        (
            ONE | {"sentence_transformers": {"activation_fn": "os.system"}},
            "sentence_transformers.activation_fn is 'os.system', which is not supported",
        ),
    ],
)
def test_labels_and_functions_that_are_not_supported_are_named(fields, problem, tmp_path):
    with pytest.raises(CheckpointError, match=problem):
        read_classification(Config(tmp_path, fields))


def test_another_number_of_labels_than_that_of_the_weights_is_named(tmp_path, refusal):
    source = write_classifier(tmp_path / "source", "distilbert", num_labels=3)
    change_json(source / "config.json", id2label={"0": "no", "1": "yes"})
    assert "classifier.weight is (3, " in refusal(source)


@pytest.mark.parametrize(
    ("fields", "has_types"),
    [
        ({"model_input_names": ["input_ids", "attention_mask"]}, False),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, False),
        (
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            },
            True,
        ),
    ],
)
def test_pairs_have_types_of_tokens_if_the_original_gives_them_any(fields, has_types, tmp_path):
    source = write_classifier(tmp_path / "source", "bert")
    change_json(source / "tokenizer_config.json", **fields)
    original = transformers.AutoTokenizer.from_pretrained(source)("a", "b")
    assert ("token_type_ids" in original) == has_types
    manifest = read_manifest(import_(source, tmp_path / "bundles"))
    assert manifest.architecture.source_embeddings.num_token_types == 1 + has_types
    assert ("first_lengths" in manifest.precisions[0].embedder.inputs) == has_types
    (scores,) = manifest.parity.original.label_scores
    assert scores.max_difference < 1e-4


def test_a_single_text_with_tokens_of_another_type_is_refused(tmp_path, refusal):
    source = write_classifier(tmp_path / "source", "bert")
    processor = processors.TemplateProcessing(
        single="[CLS]:1 $A:1 [SEP]:1",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.post_processor = processor
    tokenizer.save(str(source / "tokenizer.json"))
    assert "a single text has tokens of another type than 0" in refusal(source)


def write_cross_encoder(folder, activation=IDENTITY, **settings):
    """A cross-encoder as sentence-transformers 6 writes it."""
    write_classifier(folder, "bert", num_labels=1)
    kind = "sentence_transformers.base.modules.transformer.Transformer"
    write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": kind}])
    output = {"text": {"method": "forward", "method_output_name": "logits"}}
    encoder = {"transformer_task": "sequence-classification", "modality_config": output}
    encoder |= {"module_output_name": "scores"} | settings
    write_json(folder / "sentence_bert_config.json", encoder)
    package = {"activation_fn": activation, "model_type": "CrossEncoder", "prompts": {}}
    write_json(folder / "config_sentence_transformers.json", package)
    return folder


def test_a_cross_encoder_has_the_function_and_the_limit_of_its_folder(tmp_path):
    source = write_cross_encoder(tmp_path / "source", max_seq_length=40)
    manifest = read_manifest(import_(source, tmp_path / "bundles"))
    assert manifest.classification.score_function == SCORE_FUNCTION_IDENTITY
    assert manifest.limits.max_tokens == 40
    assert manifest.parity.original.label_scores[0].max_difference < 1e-4


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("modules.json", [{"type": "Pooling", "path": "1"}], "the modules Pooling are not support"),
        ("modules.json", {"a": 1}, "is no list of modules"),
        (
            "config_sentence_transformers.json",
            {"activation_fn": "f"},
            "activation_fn is 'f', which",
        ),
        ("config_sentence_transformers.json", {"prompts": {"query": "q: "}}, "prompts of a cross"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case is True"),
        ("sentence_bert_config.json", {"modality_config": {"a": 1}}, "modality_config is"),
    ],
)
def test_settings_of_a_cross_encoder_that_are_not_supported_are_named(
    file, content, problem, tmp_path, refusal
):
    source = write_cross_encoder(tmp_path / "source")
    write_json(source / file, content)
    assert problem in refusal(source)
