"""Random networks give equal results in PyTorch and fp32 graphs; unsupported ones are refused."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from attendant.v1.architecture_pb2 import (
    ACTIVATION_UNSPECIFIED,
    NORM_KIND_RMS,
    NORM_POSITION_UNSPECIFIED,
    POSITION_KIND_LEARNED,
    Architecture,
    Head,
    RelativePositions,
)
from attendant_export.bundle.manifest import BundleError
from attendant_export.bundle.parameters import fitting_parameters
from attendant_export.bundle.weights import read_weights
from attendant_export.graphs.parameters import graph_parameters, model_parameters
from attendant_export.graphs.writer import write_embedding_graphs, write_translation_graphs
from attendant_export.models.encoder import Encoder
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.shapes import bert, transformer
from attendant_export.runs.checkpoint import set_weights
from attendant_export.verify.decoder import SampleSentences
from attendant_export.verify.embedding import EmbeddingGraphs, EmbeddingVerifier
from attendant_export.verify.graph_sessions import TranslationGraphs
from attendant_export.verify.translation import TranslationVerifier
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from tests.support import architectures as some
from tests.support.graphs import MAX_LENGTH, manifest_of, unsettle, with_ssru

SOURCES = [[5, 9, 3, 2], [7, 7, 11, 4, 10, 8, 6, 2], [9, 2]]
SAMPLE = SampleSentences(SOURCES, [6, 5, 3])
TARGETS = torch.tensor([[1, 4, 8, 5, 6], [1, 3, 11, 9, 10]])
SEEDS = st.integers(0, 2**16)


def model_of(architecture: Architecture, seed: int):
    """A model with random parameters."""
    torch.manual_seed(seed)
    kind = EncoderDecoder if architecture.HasField("decoder") else Encoder
    return unsettle(kind(architecture))


@some.random_parts
@given(some.encoder_decoders(), SEEDS)
def test_graphs_translate_as_the_model_does(architecture, seed):
    model = model_of(architecture, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_translation_graphs(model, "fp32", folder, MAX_LENGTH)
        graphs = TranslationGraphs(folder, written, manifest_of(model))
        # Greedy and beam search by every step graph and the scorer, alone, batched and uncached.
        # Raises ParityError.
        TranslationVerifier(model, SAMPLE).verify("fp32", graphs)


@some.random_parts
@given(some.encoders(), SEEDS)
def test_graphs_embed_as_the_model_does(architecture, seed):
    model = model_of(architecture, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_embedding_graphs(model, "fp32", folder)
        # Hidden states, pooled vectors and mask candidates. Raises ParityError.
        graphs = EmbeddingGraphs(folder, written, manifest_of(model))
        EmbeddingVerifier(model, SOURCES).verify("fp32", graphs)


@some.random_parts
@given(some.encoder_decoders(), SEEDS)
def test_decoding_token_by_token_equals_decoding_all_at_once(architecture, seed):
    model = model_of(architecture, seed)
    with torch.inference_mode():
        _, _, memory, mask = model.start(torch.tensor([SOURCES[0], SOURCES[0]]))
        whole, _ = model.decode(TARGETS, memory, mask)
        past, steps = None, []
        for i in range(TARGETS.shape[1]):
            hidden, past = model.decode(TARGETS[:, i : i + 1], memory, mask, past)
            steps.append(hidden)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=2e-5, rtol=2e-5)


@some.random_parts
@given(st.one_of(some.encoders(), some.encoder_decoders()), SEEDS)
def test_a_model_is_restored_from_the_parameters_of_its_graphs(architecture, seed):
    model, restored = model_of(architecture, seed), model_of(architecture, seed + 1)
    parameters = model_parameters(graph_parameters(model, architecture, MAX_LENGTH), architecture)
    found = {name: torch.from_numpy(value) for name, value in parameters.items()}
    for name, value in restored.state_dict().items():
        if name.endswith("segment_embedding.weight"):
            found.setdefault(name, torch.zeros_like(value))
    set_weights(Path("graphs"), found, restored)
    source = torch.tensor([SOURCES[1]])
    given = (source, TARGETS[:1]) if architecture.HasField("decoder") else (source,)
    with torch.inference_mode():
        # Norms with a tiny epsilon amplify rounding.
        torch.testing.assert_close(restored(*given), model(*given), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("activation", some.ACTIVATIONS)
@pytest.mark.parametrize("is_t5", [False, True])
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_parts_that_we_do_not_train_follow_the_model_in_each_precision(
    precision, is_t5, activation, tmp_path
):
    architecture = encoder_decoder()
    architecture.shares_embeddings = False
    architecture.target_embeddings.vocab_size = 40
    architecture.source_embeddings.num_token_types = 2
    architecture.head.CopyFrom(Head(has_bias=True, scale=0.5, transform=activation))
    for stack in (architecture.encoder, architecture.decoder):
        group = stack.groups[0]
        group.feed_forward.activation, group.feed_forward.has_bias = activation, False
        group.self_attention.has_bias, group.self_attention.scale = False, 0.2
        if is_t5:
            group.feed_forward.is_gated, stack.norm_kind = True, NORM_KIND_RMS
            stack.relative_positions.CopyFrom(RelativePositions(num_buckets=8, max_distance=6))
    model = model_of(architecture, 1)
    written = write_translation_graphs(model, precision, tmp_path)
    graphs = TranslationGraphs(tmp_path, written, manifest_of(model))

    # Raises ParityError if a result depends on the batch.
    parity = TranslationVerifier(model, SAMPLE).verify(precision, graphs).parity

    assert parity.max_log_probability_difference < {"int8": 0.3, "fp16": 0.02}[precision]


def encoder_decoder() -> Architecture:
    return transformer(50, 16, 2, 32, 1, 1)


def changed(path: str, value) -> Architecture:
    """An encoder-decoder with one field changed; a path into a list changes all its entries."""
    architecture = encoder_decoder()
    *parents, field = path.split(".")
    part = architecture
    for parent in parents:
        part = getattr(part, parent)
        part = part[0] if parent == "groups" else part
    if isinstance(value, Message):
        getattr(part, field).CopyFrom(value)
    else:
        setattr(part, field, value)
    return architecture


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("d_model", 0, "Architecture.d_model: 0 is less than 1"),
        ("d_model", 15, "Positions.kind: POSITION_KIND_SINUSOIDAL_HALVED needs an even d_model"),
        ("encoder.norm_position", NORM_POSITION_UNSPECIFIED, "Stack.norm_position: NORM_POSITION_"),
        ("encoder.norm_epsilon", 0.0, "Stack.norm_epsilon: 0.0 is not positive"),
        ("decoder.norm_kind", 99, "Stack.norm_kind: 99 is not supported"),
        ("encoder.relative_positions.num_buckets", 6, "num_buckets: 6 is not a multiple of 4"),
        (
            "decoder.relative_positions",
            RelativePositions(num_buckets=8, max_distance=4, is_unidirectional=True),
            "RelativePositions.max_distance: 4 is not more than 4",
        ),
        (
            "decoder.relative_positions",
            RelativePositions(num_buckets=5, is_unidirectional=True),
            "RelativePositions.num_buckets: 5 is not a multiple of 2",
        ),
        (
            "encoder.relative_positions",
            RelativePositions(num_buckets=8, max_distance=4097),
            "RelativePositions.max_distance: 4097 is more than 4096",
        ),
        ("encoder.groups.num_layers", 0, "LayerGroup.num_layers: 0 is less than 1"),
        ("decoder.groups.self_attention.num_heads", 0, "Attention.num_heads: 0 is less than 1"),
        ("decoder.groups.self_attention.is_causal", False, "Attention.is_causal: False is not for"),
        ("decoder.groups.cross_attention.is_causal", True, "Attention.is_causal: True is not for"),
        ("encoder.groups.feed_forward.d_feed_forward", 0, "FeedForward.d_feed_forward: 0 is less"),
        (
            "encoder.groups.feed_forward.activation",
            ACTIVATION_UNSPECIFIED,
            "FeedForward.activation: ACTIVATION_UNSPECIFIED is not supported",
        ),
        ("encoder.groups.feed_forward.activation", 99, "FeedForward.activation: 99 is not"),
        ("source_embeddings.positions.kind", 99, "Positions.kind: 99 is not supported"),
        (
            "target_embeddings.positions.kind",
            POSITION_KIND_LEARNED,
            "Positions.num_positions: 0 is no more than the offset 0",
        ),
        (
            "source_embeddings.d_embedding",
            8,
            "Embeddings.d_embedding: 8 is not supported in an enc",
        ),
        ("decoder.groups.num_repeats", 2, "LayerGroup.num_repeats: 2 is not for a decoder"),
        (
            "encoder.groups.self_attention.rotary_positions.theta",
            -1.0,
            "theta: -1.0 is not positive",
        ),
        (
            "decoder.groups.cross_attention.rotary_positions.theta",
            2.0,
            "Attention.rotary_positions: is not",
        ),
        (
            "decoder.groups.self_attention.window",
            3,
            "Attention.window: 3 is not supported in a decoder",
        ),
        ("target_embeddings.vocab_size", 40, "Embeddings.vocab_size: 40 differs from the source's"),
        ("head.transform", 99, "Head.transform: 99 is not supported"),
    ],
)
def test_a_model_names_the_field_that_it_does_not_support(path, value, message):
    with pytest.raises(ValueError, match=message):
        EncoderDecoder(changed(path, value))


def test_local_attention_with_relative_positions_is_refused():
    architecture = bert(50, 16, 2, 32, 1)
    architecture.encoder.relative_positions.num_buckets = 4
    architecture.encoder.relative_positions.max_distance = 9
    architecture.encoder.groups[0].self_attention.window = 2
    with pytest.raises(ValueError, match=r"relative_positions: is not supported with Attention"):
        Encoder(architecture)


def test_layers_of_post_norm_lack_no_norm():
    architecture = bert(50, 16, 2, 32, 1)
    architecture.encoder.groups[0].lacks_mixer_norm = True
    with pytest.raises(ValueError, match=r"LayerGroup.lacks_mixer_norm: True is for pre-norm only"):
        Encoder(architecture)


def test_a_head_for_narrower_embeddings_needs_a_transform():
    architecture = bert(50, 16, 2, 32, 1)
    architecture.source_embeddings.d_embedding = 8
    Encoder(architecture)
    architecture.head.transform = ACTIVATION_UNSPECIFIED
    with pytest.raises(ValueError, match=r"d_embedding: 8 needs a head with a transform"):
        Encoder(architecture)


def test_layers_that_run_several_times_are_stored_once(tmp_path):
    sizes = []
    for num_repeats in (1, 3):
        architecture = bert(50, 16, 2, 32, 2)
        architecture.encoder.groups[0].num_repeats = num_repeats
        for precision in ("fp32", "int8"):
            folder = tmp_path / f"{precision}-{num_repeats}"
            folder.mkdir()
            written = write_embedding_graphs(model_of(architecture, 1), precision, folder)
            sizes.append((folder / written.weights[0]).stat().st_size)
            assert f"hidden_{2 * num_repeats}" in written.embedder.outputs
    assert sizes[:2] == sizes[2:]


@pytest.mark.parametrize("name", ["token_mixer", "channel_mixer"])
def test_a_layer_without_a_mixer_is_refused(name):
    architecture = encoder_decoder()
    group = architecture.encoder.groups[0]
    group.ClearField("self_attention" if name == "token_mixer" else "feed_forward")
    with pytest.raises(ValueError, match=f"LayerGroup.{name}: None is not supported"):
        EncoderDecoder(architecture)


def test_relative_positions_need_a_layer_with_self_attention():
    architecture = with_ssru(encoder_decoder())
    relative = RelativePositions(num_buckets=8, max_distance=20)
    architecture.decoder.relative_positions.CopyFrom(relative)
    with pytest.raises(ValueError, match=r"relative_positions: no layer has self-attention"):
        EncoderDecoder(architecture)


def test_parts_that_a_model_needs_are_named_if_they_are_missing():
    with pytest.raises(ValueError, match=r"Architecture.target_embeddings: missing"):
        EncoderDecoder(bert(50, 16, 2, 32, 1))
    for stack in ("encoder", "decoder"):
        architecture = encoder_decoder()
        del getattr(architecture, stack).groups[:]
        with pytest.raises(ValueError, match=r"Stack.groups: missing"):
            EncoderDecoder(architecture)
    with pytest.raises(ValueError, match=r"Architecture.decoder: is not for an encoder"):
        Encoder(encoder_decoder())


def test_graphs_name_the_width_of_heads_that_their_caches_cannot_have(tmp_path):
    model = EncoderDecoder(transformer(50, 24, 2, 32, 1, 1))
    with pytest.raises(ValueError, match=r"Attention.head_dim: 12 is not supported in a decoder"):
        write_translation_graphs(model, "fp32", tmp_path)


def test_graphs_for_longer_texts_than_a_model_has_positions_are_refused(tmp_path):
    model = Encoder(bert(50, 16, 2, 32, 1, max_positions=10))
    with pytest.raises(ValueError, match=r"num_positions: 10 .* too few for texts of 11"):
        write_embedding_graphs(model, "fp32", tmp_path, max_positions=11)


def test_an_encoder_without_a_head_has_an_embedder_only(tmp_path):
    architecture = bert(50, 16, 2, 32, 1)
    architecture.ClearField("head")
    written = write_embedding_graphs(Encoder(architecture), "fp32", tmp_path)
    assert written.HasField("embedder")
    assert not written.HasField("mlm_head")


def check_weights(folder, written, architecture):
    fitting_parameters("fp32", read_weights(folder, written), architecture)


def test_weights_are_checked_against_the_architecture(tmp_path):
    model = EncoderDecoder(encoder_decoder())
    written = write_translation_graphs(model, "fp32", tmp_path)
    check_weights(tmp_path, written, model.architecture)
    for path, value, problem in (
        ("encoder.groups.feed_forward.d_feed_forward", 8, r"feed_forward.0.bias is \(32,\)"),
        ("encoder.groups.num_layers", 2, "encoder.1.feed_forward.0.bias is missing"),
        ("encoder.has_final_norm", False, "encoder_norm.bias is .* architecture's is None"),
    ):
        with pytest.raises(BundleError, match=problem):
            check_weights(tmp_path, written, changed(path, value))


def test_a_head_with_a_scale_leaves_the_bias_unscaled():
    architecture = bert(50, 16, 2, 32, 1)
    architecture.head.scale = 0.5
    architecture.head.transform = ACTIVATION_UNSPECIFIED
    model = model_of(architecture, 1)
    hidden = torch.from_numpy(np.ones((1, 16), np.float32))
    expected = 0.5 * hidden @ model.embedding.weight.T + model.mask_head.bias
    torch.testing.assert_close(model.mask_logits(hidden), expected)


def test_a_missing_table_of_positions_with_an_offset_is_named(tmp_path):
    model = EncoderDecoder(encoder_decoder())
    written = write_translation_graphs(model, "fp32", tmp_path)
    architecture = changed("source_embeddings.positions.kind", POSITION_KIND_LEARNED)
    architecture.source_embeddings.positions.num_positions = 10
    architecture.source_embeddings.positions.offset = 2
    with pytest.raises(BundleError, match=r"position_embedding.weight is missing"):
        check_weights(tmp_path, written, architecture)
