"""Random recurrent networks give equal results in PyTorch and in graphs; bad ones are refused."""

import tempfile
from pathlib import Path

import pytest
import torch
from attendant.v1.architecture_pb2 import (
    ALIGNMENT_FUNCTION_DOT,
    RECURRENT_CELL_GRU,
    AlignmentAttention,
    AlignmentWindow,
    Attention,
    Recurrent,
    Ssru,
)
from attendant_export.graphs.parameters import graph_parameters, model_parameters
from attendant_export.graphs.writer import write_translation_graphs
from attendant_export.models.encoder import Encoder
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.shapes import bert, transformer
from attendant_export.runs.checkpoint import set_weights
from attendant_export.verify.graph_sessions import TranslationGraphs
from attendant_export.verify.translation import TranslationVerifier
from hypothesis import given

from tests.export.test_architectures import SAMPLE, SEEDS, SOURCES, TARGETS, model_of
from tests.support import architectures as some
from tests.support.graphs import MAX_LENGTH, manifest_of, with_recurrences
from tests.support.recurrent_networks import recurrent_translators

SOURCE = torch.tensor([SOURCES[0], SOURCES[0]])
BASE = transformer(50, 16, 2, 32, 1, 2)


def parity_of(architecture, seed: int, precision: str):
    """The comparison of all graphs with the model. Raises ParityError if fp32 differs from it."""
    model = model_of(architecture, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_translation_graphs(model, precision, folder, MAX_LENGTH)
        graphs = TranslationGraphs(folder, written, manifest_of(model))
        return TranslationVerifier(model, SAMPLE).verify(precision, graphs).parity


def decoded_token_by_token(model: EncoderDecoder) -> torch.Tensor:
    """Hidden states of the targets, each token decoded from the states after the one before."""
    _, past, memory, mask = model.start(SOURCE)
    steps = []
    for i in range(TARGETS.shape[1]):
        hidden, past = model.decode(TARGETS[:, i : i + 1], memory, mask, past)
        steps.append(hidden)
    return torch.cat(steps, dim=1)


def restored_from_graphs(architecture, seed: int) -> tuple[EncoderDecoder, EncoderDecoder]:
    """A model, and another one with the parameters of its graphs."""
    model, restored = model_of(architecture, seed), model_of(architecture, seed + 1)
    parameters = model_parameters(graph_parameters(model, architecture, MAX_LENGTH), architecture)
    found = {name: torch.from_numpy(value) for name, value in parameters.items()}
    for name, value in restored.state_dict().items():
        if name.endswith("segment_embedding.weight"):
            found.setdefault(name, torch.zeros_like(value))
    set_weights(Path("graphs"), found, restored)
    return model, restored


@some.fewer_random_parts
@given(recurrent_translators(), SEEDS)
def test_graphs_translate_as_the_model_does(architecture, seed):
    parity_of(architecture, seed, "fp32")


@pytest.mark.parametrize("precision", ["int8", "fp16"])
@pytest.mark.parametrize(("cell", "alignment"), [("lstm", "general"), ("gru", "additive")])
def test_results_in_other_precisions_do_not_depend_on_the_batch(precision, cell, alignment):
    architecture = with_recurrences(BASE, cell, alignment)
    window = AlignmentWindow(half_width=2, is_predictive=True)
    architecture.decoder.groups[-1].alignment_attention.window.CopyFrom(window)
    parity = parity_of(architecture, 1, precision)
    assert parity.max_log_probability_difference < {"int8": 0.3, "fp16": 0.02}[precision]


@some.random_parts
@given(recurrent_translators(), SEEDS)
def test_decoding_token_by_token_equals_decoding_all_at_once(architecture, seed):
    model = model_of(architecture, seed)
    with torch.inference_mode():
        whole, steps = model(SOURCE, TARGETS), decoded_token_by_token(model)
    torch.testing.assert_close(steps, whole, atol=2e-5, rtol=2e-5)


@some.random_parts
@given(recurrent_translators(), SEEDS)
def test_padding_changes_nothing(architecture, seed):
    model = model_of(architecture, seed)
    padded = torch.tensor([[*SOURCES[0], 0, 0, 0, 0], SOURCES[1]])
    with torch.inference_mode():
        alone, together = model(SOURCE[:1], TARGETS[:1]), model(padded, TARGETS)
    torch.testing.assert_close(together[:1], alone, atol=2e-5, rtol=2e-5)


@some.random_parts
@given(recurrent_translators(), SEEDS)
def test_a_model_is_restored_from_the_parameters_of_its_graphs(architecture, seed):
    model, restored = restored_from_graphs(architecture, seed)
    with torch.inference_mode():
        torch.testing.assert_close(
            restored(SOURCE, TARGETS), model(SOURCE, TARGETS), atol=1e-4, rtol=1e-4
        )


def test_a_decoder_without_attention_has_neither_aligner_nor_attention_graph(tmp_path):
    model = model_of(with_recurrences(BASE, "gru"), 1)
    written = write_translation_graphs(model, "fp32", tmp_path)
    assert not written.HasField("aligner")
    assert not written.HasField("attention")
    assert list(written.encoder.outputs) == ["vector_0", "vector_1"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("encoder.recurrent.cell", 9, "Recurrent.cell: 9 is not supported"),
        (
            "encoder.recurrent.starts_from_source",
            True,
            "Recurrent.starts_from_source: True is not for an encoder",
        ),
        (
            "decoder.recurrent.is_bidirectional",
            True,
            "Recurrent.is_bidirectional: True is not for a decoder",
        ),
        (
            "decoder.recurrent.starts_from_source",
            False,
            "Recurrent.starts_from_source: differs between recurrences",
        ),
        ("decoder.ssru", Ssru(), "Recurrent.starts_from_source: differs between recurrences"),
        (
            "decoder.alignment_attention.function",
            0,
            "AlignmentAttention.function: ALIGNMENT_FUNCTION_UNSPECIFIED is not supported",
        ),
        (
            "decoder.alignment_attention.window.half_width",
            5000,
            "AlignmentWindow.half_width: 5000 is not between 1 and 4096",
        ),
        (
            "decoder.cross_attention",
            Attention(num_heads=1, head_dim=16),
            "LayerGroup.alignment_attention: is set beside cross_attention",
        ),
        (
            "encoder.alignment_attention",
            AlignmentAttention(function=ALIGNMENT_FUNCTION_DOT),
            "LayerGroup.alignment_attention: is not for an encoder",
        ),
    ],
)
def test_a_model_names_the_field_that_it_does_not_support(path, value, message):
    architecture = with_recurrences(BASE, "lstm", "general")
    stack, *parents, field = path.split(".")
    part = getattr(architecture, stack).groups[-1]
    for parent in parents:
        part = getattr(part, parent)
    if isinstance(value, int):
        setattr(part, field, value)
    else:
        getattr(part, field).CopyFrom(value)
        if isinstance(value, Ssru):
            part.feed_forward.CopyFrom(BASE.decoder.groups[0].feed_forward)
    with pytest.raises(ValueError, match=message):
        EncoderDecoder(architecture)


def test_a_decoder_that_knows_nothing_of_the_source_is_refused():
    architecture = with_recurrences(BASE, "lstm")
    for group in architecture.decoder.groups:
        group.recurrent.starts_from_source = False
    with pytest.raises(ValueError, match=r"Architecture.decoder: nothing reads the source"):
        EncoderDecoder(architecture)


def test_two_directions_need_an_even_width():
    architecture = with_recurrences(BASE, "gru", "dot")
    architecture.d_model = 15
    with pytest.raises(ValueError, match=r"is_bidirectional: True needs an even d_model, not 15"):
        EncoderDecoder(architecture)


def test_encoders_alone_are_not_recurrent():
    architecture = bert(50, 16, 2, 32, 1)
    recurrent = Recurrent(cell=RECURRENT_CELL_GRU)
    architecture.encoder.groups[0].recurrent.CopyFrom(recurrent)
    with pytest.raises(ValueError, match=r"LayerGroup.recurrent: is not for an encoder without"):
        Encoder(architecture)
