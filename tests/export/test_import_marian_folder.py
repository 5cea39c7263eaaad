"""Models in Marian's own formats become translation bundles through the real command."""

import shutil
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from attendant.v1.architecture_pb2 import (
    ACTIVATION_RELU,
    ACTIVATION_SILU,
    NORM_POSITION_POST,
    NORM_POSITION_PRE,
    POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR,
)
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.bundle.weights import read_weights
from attendant_export.graphs.writer import write_graphs_of, write_translation_graphs
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.marian_file import read_marian_file
from attendant_export.verify.marian_reading import MarianReading
from attendant_export.verify.reference_search import greedy, score

from tests.support.bundles import one_thread
from tests.support.imports import import_, read_translator
from tests.support.marian_files import (
    FIELDS,
    PRE_NORM,
    random_tensors,
    vocabulary,
    write_binary,
    write_marian_folder,
    write_options,
)

pytestmark = pytest.mark.usefixtures("very_few_texts", "quiet_threads")

SIZE = len(vocabulary("source"))
START = SIZE
WIDE = (SIZE // 64 + 1) * 64
"""Tokens of a bundle."""
SOURCES = [[5, 17, 40, 0], [9, 0], [30, 31, 32, 33, 34, 35, 36, 0]]
SELF_ATTENTION = {"transformer_decoder_autoreg": "self-attention"}
SHAPES = {
    "tiny": {"dim-emb": 256, "transformer-dim-ffn": 1536, "dec-depth": 2},
    "base": {"dim-emb": 512, "transformer-dim-ffn": 2048, "dec-depth": 2},
    "base-memory": {"dim-emb": 384, "transformer-dim-ffn": 1536, "dec-depth": 4},
}
"""The students of Bergamot and Firefox."""


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A student with a shortlist, and its bundle of fp32 and int8."""
    folder = tmp_path_factory.mktemp("imported")
    source = write_marian_folder(folder / "enfr-student")
    options = ("--license", "MPL-2.0", "--precisions", "fp32,int8", "--max-tokens", "16")
    with one_thread():
        return source, import_(source, folder / "bundles", *options)


@pytest.fixture
def manifest(imported):
    return read_manifest(imported[1])


def reading_of(folder, name="model.enfr.intgemm.alphas.bin"):
    file = read_marian_file(folder / name)
    return MarianReading({each: file.array(each) for each in file.shapes}, file.config)


def assert_follows_the_reading(folder, name="model.enfr.intgemm.alphas.bin"):
    """The PyTorch model translates and scores as the plain reading of the file does."""
    model, reading = read_translator(folder).model, reading_of(folder, name)
    for source in SOURCES:
        memory = reading.encode(source)
        (found,) = greedy(model, [source], 12)
        expected = reading.score(memory, found.token_ids)
        assert list(found.log_probabilities) == pytest.approx(expected, abs=1e-5)
        target = np.random.default_rng(2).integers(0, SIZE // 2, 9).tolist()
        assert score(model, [source], [target])[0] == pytest.approx(
            reading.score(memory, target), abs=1e-5
        )
        for i in range(len(found.token_ids)):
            last = reading.next_log_probabilities(memory, [found.token_ids[:i]])[0]
            assert int(last.argmax()) == found.token_ids[i]


def test_a_student_becomes_a_bundle_that_verifies(imported, manifest, capsys):
    source, bundle = imported
    languages = manifest.source_languages, manifest.target_languages
    assert [[each.tag for each in side] for side in languages] == [["en"], ["fr"]]
    origin = manifest.provenance.imported_from
    assert (origin.source, origin.family) == ("enfr-student", "marian-nmt")
    assert {file.path for file in origin.files} == {path.name for path in source.iterdir()}
    main(["verify", str(bundle)])
    assert "int8 beam4: " in capsys.readouterr().out


def test_the_network_is_that_of_the_configuration(manifest):
    network = manifest.architecture
    for side in (network.source_embeddings, network.target_embeddings):
        assert side.vocab_size == WIDE
        assert side.scale == pytest.approx(32**0.5)
        assert side.positions.kind == POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR
    for stack in (network.encoder, network.decoder):
        (group,) = stack.groups
        assert (stack.norm_position, stack.norm_epsilon) == (NORM_POSITION_POST, 1e-9)
        assert (group.num_layers, group.feed_forward.d_feed_forward) == (2, 48)
        assert group.feed_forward.activation == ACTIVATION_RELU
    assert network.decoder.groups[0].WhichOneof("token_mixer") == "ssru"
    assert network.decoder.groups[0].cross_attention.num_heads == 4
    assert network.shares_embeddings
    assert network.head.is_tied
    assert network.head.has_bias


def test_decoding_starts_with_a_token_whose_embedding_is_zero(imported, manifest):
    special, decoding = manifest.special_tokens, manifest.decoding
    assert (special.pad_id, special.eos_id, special.unk_id) == (START, 0, 1)
    assert (decoding.start_token_id, list(decoding.suppressed_token_ids)) == (START, [1])
    model = read_translator(imported[0]).model
    assert not model.embedding.weight[START:].any()
    probabilities = model.logits(torch.randn(5, 32)).softmax(-1)
    assert probabilities[:, START:].max() == 0


def test_int8_products_use_the_scales_of_the_file(imported):
    source, bundle = imported
    scales = read_translator(source).input_scales
    assert list(scales.values()) == pytest.approx([1 / 12.5] * len(scales))
    step = onnx.load(bundle / "greedy_steps.int8.onnx", load_external_data=False).graph
    fixed = [each.name for each in step.initializer if each.name.endswith(".input_scale")]
    assert len(fixed) == 2 * 5 + 1  # gates, query, output, two of the network; the vocabulary
    products = [node for node in step.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 2 * len(fixed)


def test_stored_weights_give_the_same_graphs_with_the_scales_of_the_file(
    imported, manifest, tmp_path
):
    bundle = imported[1]
    (graphs,) = (each for each in manifest.precisions if each.name == "int8")
    weights = read_weights(bundle, graphs)
    write_graphs_of(weights, manifest.architecture, "int8", tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (bundle / path.name).read_bytes(), path.name


def test_the_factor_of_the_output_layer_may_have_its_name_in_shortlists(imported, tmp_path):
    source, name = imported[0], "model.enfr.intgemm.alphas.bin"
    shutil.copytree(source, tmp_path / "student")
    file = read_marian_file(source / name)
    matrices = {k: file.array(k) for k in file.shapes if not k.endswith("_QuantMultA")}
    write_binary(tmp_path / "student" / name, file.config, matrices, output_name="none")
    found = read_translator(tmp_path / "student").input_scales
    assert found == read_translator(source).input_scales


def test_scales_of_an_unknown_layer_are_refused(imported, tmp_path):
    model = read_translator(imported[0]).model
    with pytest.raises(ValueError, match=r"the graphs have no linear layer encoder\.7\.output"):
        write_translation_graphs(model, "int8", tmp_path, 16, input_scales={"encoder.7.output": 1})


def test_a_factor_of_inputs_that_is_no_positive_number_is_refused(imported, tmp_path):
    source, name = imported[0], "model.enfr.intgemm.alphas.bin"
    shutil.copytree(source, tmp_path / "student")
    content = (tmp_path / "student" / name).read_bytes()
    good, bad = (np.float32(x).tobytes() for x in (12.5, -1))
    (tmp_path / "student" / name).write_bytes(content.replace(good, bad, 1))
    with pytest.raises(CheckpointError, match=r"_QuantMultA is \[-1.0\], want a positive number"):
        read_translator(tmp_path / "student")


def test_the_bundle_is_compared_with_the_plain_reading(imported, manifest, capsys):
    source, bundle = imported
    original = manifest.parity.original
    assert original.implementation.startswith("NumPy")
    fp32, int8 = original.translations
    assert (fp32.precision, int8.precision) == ("fp32", "int8")
    assert fp32.max_encoder_difference <= 1e-5
    assert fp32.max_log_probability_difference <= 1e-4
    assert {entry.search for entry in fp32.tokens} == {"greedy", "beam4"}
    for entry in fp32.tokens:
        assert entry.num_identical + entry.num_ties == entry.num_sentences == original.num_texts
    main(["verify", str(bundle), "--against", str(source)])
    assert "fp32 beam4 ragged: 0 of" in capsys.readouterr().out


def test_a_bundle_does_not_verify_against_another_model(imported, tmp_path, capsys):
    _, bundle = imported
    source = write_marian_folder(tmp_path / "source")
    config = {**FIELDS, "dim-vocabs": [SIZE, SIZE]}
    (model,) = source.glob("model.*")
    tensors = random_tensors(read_marian_file(model).shapes)
    tensors["encoder_l1_self_Wq"] *= -1
    names = [name for name in tensors if not name.endswith("QuantMultA")]
    write_binary(model, config, {name: tensors[name] for name in names})
    with pytest.raises(SystemExit, match="1"):
        main(["verify", str(bundle), "--against", str(source)])
    assert "fp32 does not follow NumPy" in capsys.readouterr().err


def test_shortlists_are_those_of_the_folder(imported):
    shortlists = read_translator(imported[0]).shortlists
    assert shortlists is not None
    assert shortlists.frequent.tolist() == list(range(50))
    assert set(shortlists.translations[START]) == {0}
    assert 60 in shortlists.translations[60]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        SELF_ATTENTION,
        {"transformer_ffn_activation": "swish", "transformer_decoder_dim_ffn": 0},
        {**SELF_ATTENTION, **PRE_NORM},
        {**SELF_ATTENTION, "transformer_postprocess_top": "n"},
        {"tied_embeddings_all": False, "tied_embeddings_src": True},
        {"tied_embeddings_all": False, "tied_embeddings": True},
        {"tied_embeddings_all": False},
    ],
    ids=lambda fields: " ".join(f"{k}={v}" for k, v in fields.items()) or "student",
)
@pytest.mark.parametrize("quantizes", [True, False])
def test_models_follow_the_plain_reading(fields, quantizes, tmp_path):
    folder = write_marian_folder(tmp_path / "source", quantizes, has_shortlist=False, **fields)
    name = "model.enfr.intgemm.alphas.bin" if quantizes else "model.enfr.npz"
    assert_follows_the_reading(folder, name)


@pytest.mark.parametrize("shape", SHAPES)
def test_students_of_all_sizes_are_read(shape, tmp_path):
    fields: dict[str, Any] = {"enc-depth": 6, "transformer-heads": 8, **SHAPES[shape]}
    folder = write_marian_folder(tmp_path / "source", has_shortlist=False, **fields)
    assert_follows_the_reading(folder)


def test_the_options_of_a_network_are_described(tmp_path):
    fields: dict[str, Any] = {**SELF_ATTENTION, **PRE_NORM, "transformer_ffn_activation": "swish"}
    network = read_translator(write_marian_folder(tmp_path / "source", **fields)).model.architecture
    assert network.decoder.groups[0].self_attention.is_causal
    for stack in (network.encoder, network.decoder):
        assert (stack.norm_position, stack.has_final_norm) == (NORM_POSITION_PRE, True)
        assert stack.groups[0].feed_forward.activation == ACTIVATION_SILU


def test_separate_vocabularies_have_their_own_special_tokens(tmp_path):
    source = write_marian_folder(
        tmp_path / "source", has_separate_vocabularies=True, tied_embeddings_all=False,
        tied_embeddings=True,
    )  # fmt: skip
    bundle = import_(source, tmp_path / "bundles", "--license", "x", "--max-tokens", "12")
    manifest, target_size = read_manifest(bundle), len(vocabulary("target"))
    assert target_size != SIZE
    assert manifest.special_tokens.pad_id == SIZE
    assert manifest.target_special_tokens.pad_id == target_size
    assert manifest.decoding.start_token_id == target_size
    assert not manifest.architecture.shares_embeddings
    shortlists = read_translator(source).shortlists
    assert shortlists is not None
    assert shortlists.translations.shape[0] == WIDE
    main(["verify", str(bundle), "--against", str(source)])


def test_options_beside_the_model_are_read(tmp_path):
    source = write_options(write_marian_folder(tmp_path / "source"))
    decoding = read_translator(source).decoding
    assert (decoding.beam_size, decoding.HasField("length_penalty")) == (0, False)
    write_options(source, beam_size=4, normalize=0.6, allow_unk=True, shortlist=[])
    imported = read_translator(source)
    assert (imported.decoding.beam_size, imported.decoding.length_penalty) == (4, 0.6)
    assert not imported.decoding.suppressed_token_ids
    assert imported.shortlists is None


def test_languages_come_from_the_information_of_the_model(tmp_path):
    source = write_marian_folder(tmp_path / "source")
    (source / "model_info.json").write_text('{"shortName": "pt-en-tiny"}')
    tokenizers = read_translator(source).tokenizers
    assert [each.tag for each in tokenizers.source_languages] == ["pt"]
    assert [each.tag for each in tokenizers.target_languages] == ["en"]
