"""Random convolutional networks give equal results in PyTorch and graphs; bad ones are refused."""

from collections.abc import Iterator

import pytest
import torch
from attendant_export.graphs.writer import write_translation_graphs
from attendant_export.models.causal_language_model import CausalLanguageModel
from attendant_export.models.convolutional_shapes import (
    BYTENET,
    SLICENET,
    add_experts,
)
from attendant_export.models.encoder import Encoder
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.shapes import bert, language_model
from attendant_manifest.rules import PRECISIONS
from hypothesis import given

from tests.export.test_architectures import SEEDS, SOURCES, TARGETS, model_of
from tests.export.test_recurrent_networks import (
    BASE,
    SOURCE,
    decoded_token_by_token,
    parity_of,
    restored_from_graphs,
)
from tests.support import architectures as some
from tests.support.bundles import one_thread
from tests.support.convolutional_networks import convolutional_translators
from tests.support.graphs import tiny_convolutional, tiny_experts, with_convolutions


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """PyTorch computes on one thread: more are slower for tiny models."""
    with one_thread():
        yield


@some.fewer_random_parts
@given(convolutional_translators(), SEEDS)
def test_graphs_translate_as_the_model_does(architecture, seed):
    parity_of(architecture, seed, "fp32")


@some.random_parts
@given(convolutional_translators(), SEEDS)
def test_decoding_token_by_token_equals_decoding_all_at_once(architecture, seed):
    model = model_of(architecture, seed)
    with torch.inference_mode():
        whole, steps = model(SOURCE, TARGETS), decoded_token_by_token(model)
    torch.testing.assert_close(steps, whole, atol=2e-5, rtol=2e-5)


@some.random_parts
@given(convolutional_translators(), SEEDS)
def test_padding_changes_nothing(architecture, seed):
    model = model_of(architecture, seed)
    padded = torch.tensor([[*SOURCES[0], 0, 0, 0, 0], SOURCES[1]])
    with torch.inference_mode():
        alone, together = model(SOURCE[:1], TARGETS[:1]), model(padded, TARGETS)
    torch.testing.assert_close(together[:1], alone, atol=2e-5, rtol=2e-5)


@some.random_parts
@given(convolutional_translators(), SEEDS)
def test_a_model_is_restored_from_the_parameters_of_its_graphs(architecture, seed):
    model, restored = restored_from_graphs(architecture, seed)
    with torch.inference_mode():
        torch.testing.assert_close(
            restored(SOURCE, TARGETS), model(SOURCE, TARGETS), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("precision", ["int8", "fp16"])
@pytest.mark.parametrize("kind", [BYTENET, SLICENET])
def test_results_in_other_precisions_do_not_depend_on_the_batch(precision, kind):
    parity = parity_of(with_convolutions(BASE, kind), 1, precision)
    assert parity.max_log_probability_difference < {"int8": 0.3, "fp16": 0.02}[precision]


def test_a_bytenet_has_neither_aligner_nor_attention_graph(tmp_path):
    written = write_translation_graphs(tiny_convolutional(), "fp32", tmp_path)
    assert not written.HasField("aligner")
    assert not written.HasField("attention")
    assert list(written.encoder.outputs) == ["memory_0"]
    [memory, kernels] = written.steps[0].states
    assert list(memory.shape) == [2, 0, 32]
    # Of 16 channels, the last 2 x 1 tokens of the first layer and 2 x 2 of the second.
    assert (kernels.input, list(kernels.shape)) == ("kernels", [6 * 16])


def test_a_target_may_be_longer_than_the_outputs_of_the_encoder():
    model, long = tiny_convolutional(), torch.tensor([[1, *range(3, 23)]])
    with torch.inference_mode():
        memory = model.start(SOURCE[:1]).memory[0]
        found = model(SOURCE[:1], long)
    assert memory is not None
    assert memory[0].shape[2] == 2 * SOURCE.shape[1] < long.shape[1]
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("encoder.unfolding.length_factor", 1, "LayerGroup.unfolding: is not for an encoder"),
        ("decoder.convolution.is_causal", False, "is_causal: False is not for a decoder"),
        ("decoder.unfolding.length_factor", 9, "length_factor: 9 is not between 1 and 8"),
        ("source_embeddings.positions.kind", 1, "2 needs an encoder without positions"),
        ("decoder.ssru", None, "LayerGroup.convolution: is set beside a recurrence of the decoder"),
        ("decoder.cross_attention.num_heads", 2, "LayerGroup.unfolding: is set beside cross_att"),
        ("decoder.convolution.activation", 0, "activation: ACTIVATION_UNSPECIFIED is not"),
        ("decoder.mixture_of_experts.num_experts", 1, "num_experts: 1 is not between 2 and 256"),
    ],
)
def test_a_model_names_the_field_that_it_does_not_support(path, value, message):
    architecture = with_convolutions(BASE, BYTENET)
    where, *fields = path.split(".")
    part = getattr(architecture, where)
    part = part.groups[0] if where in ("encoder", "decoder") else part
    if value is None:
        part = architecture.decoder.groups[-1]
        part.ssru.SetInParent()
        part.feed_forward.CopyFrom(BASE.decoder.groups[0].feed_forward)
    else:
        for field in fields[:-1]:
            part = getattr(part, field)
        setattr(part, fields[-1], value)
    with pytest.raises(ValueError, match=message):
        EncoderDecoder(architecture)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kernel_size", 0, "kernel_size: 0 is not between 1 and 64"),
        ("dilation", 257, "dilation: 257 is above 256"),
        ("d_output", 8, "d_output: 8 differs from d_model 16"),
    ],
)
def test_a_model_names_the_kernel_that_it_does_not_support(field, value, message):
    architecture = with_convolutions(BASE, SLICENET)
    setattr(architecture.encoder.groups[0].convolution.steps[-1], field, value)
    with pytest.raises(ValueError, match=message):
        EncoderDecoder(architecture)


def test_a_decoder_without_kernels_has_no_state_and_is_refused():
    architecture = with_convolutions(BASE, SLICENET)
    for step in architecture.decoder.groups[0].convolution.steps:
        step.kernel_size = 1
    with pytest.raises(ValueError, match="a decoder needs a kernel_size above 1"):
        EncoderDecoder(architecture)


def test_a_decoder_whose_kernels_need_too_much_state_is_refused():
    architecture = with_convolutions(BASE, SLICENET)
    for step in architecture.decoder.groups[0].convolution.steps:
        step.kernel_size, step.dilation = 33, 128
    with pytest.raises(ValueError, match="keep 131,520 values of earlier tokens, but at most 65,5"):
        EncoderDecoder(architecture)


@pytest.mark.parametrize("name", ["convolution", "mixture_of_experts"])
def test_encoders_alone_and_language_models_have_neither(name):
    changed = with_convolutions(BASE, SLICENET)
    add_experts(changed, 3, 2, 8)
    part = getattr(changed.encoder.groups[-1], name)
    for architecture, kind in (
        (bert(50, 16, 2, 32, 1), Encoder),
        (language_model(50, 32, 2, 0, 16, 1), CausalLanguageModel),
    ):
        stack = architecture.encoder if kind is Encoder else architecture.decoder
        getattr(stack.groups[0], name).CopyFrom(part)
        with pytest.raises(ValueError, match=rf"LayerGroup.{name}: is not for a"):
            kind(architecture)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_experts_that_no_token_of_a_step_selects_change_nothing(precision):
    parity = parity_of(tiny_experts().architecture, 1, precision)
    bound = {"fp32": 1e-4, "int8": 0.3, "fp16": 0.02}[precision]
    assert parity.max_log_probability_difference < bound
