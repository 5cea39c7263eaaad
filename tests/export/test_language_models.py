"""Causal language models give equal results in PyTorch and in graphs."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from attendant.v1.architecture_pb2 import Architecture
from attendant_export.graphs import parts
from attendant_export.graphs.parameters import graph_parameters, model_parameters
from attendant_export.graphs.writer import write_language_model_graphs
from attendant_export.models.causal_language_model import CausalLanguageModel
from attendant_export.models.shapes import transformer
from attendant_export.verify.decoder import DecoderVerifier, SampleSentences
from attendant_export.verify.graph_sessions import ParityError
from attendant_export.verify.language_model_graphs import LanguageModelGraphs
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from tests.support import architectures as some
from tests.support.graphs import MAX_LENGTH, open_session, run
from tests.support.language_models import (
    VOCAB_SIZE,
    gpt2_like,
    language_model_manifest,
    llama_like,
    tiny_language_model,
)

PROMPTS = [[1, 9, 3, 4], [7], [1, 11, 4, 10, 8, 6, 2, 5, 3], [1, 5]]
SAMPLE = SampleSentences(PROMPTS, [6, 5, 7, 3])
SEEDS = st.integers(0, 2**16)


def graphs_of(model: CausalLanguageModel, precision: str, folder: Path) -> LanguageModelGraphs:
    written = write_language_model_graphs(model, precision, folder, MAX_LENGTH)
    return LanguageModelGraphs(folder, written, language_model_manifest(model))


@some.random_parts
@given(some.language_models(), SEEDS)
def test_graphs_continue_prompts_as_the_model_does(architecture, seed):
    model = tiny_language_model(architecture, seed)
    with tempfile.TemporaryDirectory() as name:
        graphs = graphs_of(model, "fp32", Path(name))
        # Greedy and beam search by every step graph and the scorer, alone, batched and uncached.
        # Raises ParityError.
        DecoderVerifier(model, SAMPLE).verify("fp32", graphs)


@pytest.mark.parametrize("make", [llama_like, gpt2_like])
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_other_precisions_follow_the_model_whatever_the_batch(precision, make, tmp_path):
    model = tiny_language_model(make())
    graphs = graphs_of(model, precision, tmp_path)

    parity = DecoderVerifier(model, SAMPLE).verify(precision, graphs).parity

    assert parity.max_log_probability_difference < {"int8": 0.3, "fp16": 0.02}[precision]


def test_graphs_of_other_weights_do_not_follow_the_model(tmp_path):
    graphs = graphs_of(tiny_language_model(llama_like(), seed=2), "fp32", tmp_path)
    with pytest.raises(ParityError, match="fp32 graphs do not follow the model"):
        DecoderVerifier(tiny_language_model(llama_like()), SAMPLE).verify("fp32", graphs)


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_prompts_may_be_empty(precision, tmp_path):
    model = tiny_language_model(llama_like())
    written = write_language_model_graphs(model, precision, tmp_path, MAX_LENGTH)
    prefill = open_session(tmp_path, written.encoder)
    alone = run(prefill, source=np.array([[1, 9, 3]]), source_lengths=np.array([3]))

    beside = run(prefill, source=np.array([[0, 0, 0], [1, 9, 3]]), source_lengths=np.array([0, 3]))
    padding = run(prefill, source=np.array([[0, 0]]), source_lengths=np.array([0]))
    nothing = run(prefill, source=np.zeros((2, 0), np.int64), source_lengths=np.zeros(2, np.int64))

    for name, states in alone.items():
        np.testing.assert_allclose(beside[name][1], states[0], atol=1e-2)
        assert padding[name].shape == (1, 2, 2, 16)
        assert nothing[name].shape == (2, 2, 0, 16)


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_scores_of_texts_do_not_depend_on_the_number_of_parts(precision, tmp_path, monkeypatch):
    model = tiny_language_model(llama_like())
    texts = np.random.default_rng(3).integers(3, VOCAB_SIZE, (3, 14))
    found = {}
    for rows in (1, 4, 13, 100):  # 39 rows: in parts of one, of equal sizes or not, and whole
        monkeypatch.setattr(parts, "MAX_SCORES", rows * VOCAB_SIZE)
        folder = tmp_path / str(rows)
        folder.mkdir()
        written = write_language_model_graphs(model, precision, folder, MAX_LENGTH)
        scorer = open_session(folder, written.scorer)
        results = run(scorer, target_in=texts[:, :-1], target_out=texts[:, 1:])
        found[rows] = results["log_probabilities"]
        assert found[rows].shape == (3, 13)
    for values in found.values():
        np.testing.assert_allclose(values, found[100], atol=1e-2 if precision == "fp16" else 1e-5)


@some.random_parts
@given(some.language_models(), SEEDS)
def test_a_language_model_is_restored_from_the_parameters_of_its_graphs(architecture, seed):
    model = tiny_language_model(architecture, seed)
    parameters = model_parameters(graph_parameters(model, architecture, MAX_LENGTH), architecture)
    restored = tiny_language_model(architecture, seed + 1)
    found = {name: torch.from_numpy(value) for name, value in parameters.items()}
    for name, value in restored.state_dict().items():
        if name.endswith("segment_embedding.weight"):
            found.setdefault(name, torch.zeros_like(value))
    restored.load_state_dict(found)
    token_ids = torch.tensor([PROMPTS[2]])
    with torch.inference_mode():
        torch.testing.assert_close(restored(token_ids), model(token_ids), atol=1e-4, rtol=1e-4)


def test_a_run_may_end_beyond_the_last_position(tmp_path):
    """The last run of two tokens at the limit writes a token that no one reads."""
    for number, architecture in enumerate((llama_like(), gpt2_like(max_positions=MAX_LENGTH))):
        folder = tmp_path / str(number)
        folder.mkdir()
        model = tiny_language_model(architecture)
        prompt = list(range(3, 3 + MAX_LENGTH - 5))
        sample = SampleSentences([prompt], [5])
        DecoderVerifier(model, sample).verify("fp32", graphs_of(model, "fp32", folder))


def changed(path: str, value) -> Architecture:
    """`llama_like` with one field changed; a path into a list changes its first entry."""
    architecture = llama_like()
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
        ("shares_embeddings", True, "Architecture.shares_embeddings: is not for a language model"),
        ("encoder", transformer(50, 16, 2, 32, 1, 1).encoder, "Architecture.encoder: is not for"),
        ("target_embeddings.d_embedding", 8, "Embeddings.d_embedding: 8 is not supported in a lan"),
        ("decoder.groups.num_repeats", 2, "LayerGroup.num_repeats: 2 is not for a decoder"),
        ("decoder.groups.self_attention.window", 3, "Attention.window: 3 is not supported"),
        ("decoder.groups.self_attention.is_causal", False, "Attention.is_causal: False is not for"),
        (
            "decoder.groups.cross_attention",
            transformer(50, 16, 2, 32, 1, 1).decoder.groups[0].cross_attention,
            "LayerGroup.cross_attention: is not for a language model",
        ),
    ],
)
def test_parts_that_no_language_model_has_are_refused(path, value, message):
    with pytest.raises(ValueError, match=message):
        CausalLanguageModel(changed(path, value))


@pytest.mark.parametrize("name", ["target_embeddings", "decoder", "head"])
def test_a_part_that_a_language_model_needs_is_named(name):
    architecture = llama_like()
    architecture.ClearField(name)
    with pytest.raises(ValueError, match=f"Architecture.{name}: missing, and a language model"):
        CausalLanguageModel(architecture)


def test_heads_that_the_kernel_does_not_rotate_are_refused(tmp_path):
    architecture = changed("decoder.groups.self_attention.head_dim", 24)
    model = tiny_language_model(architecture)
    with pytest.raises(ValueError, match="head_dim: 24 is not supported in a decoder with rotary"):
        write_language_model_graphs(model, "fp32", tmp_path)
