"""The encoders of the bench give the same results in every engine."""

from pathlib import Path

import numpy as np
import pytest
import torch
from attendant_export.models.encoder import Encoder
from attendant_export.models.shapes import bert
from attendant_export.runs.models import load_model
from attendant_manifest.sizes import num_layers
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from bench.models.encoders import (
    SIZES,
    hugging_face_weights,
    train_tokenizer,
    write_hugging_face,
)
from bench.models.runs import Weights, random_weights, write_run

TEXTS = ["The dog is barking at the cat.", "A cat.", "Dogs and cats bark and run at night."]
NUM_LAYERS, VOCAB_SIZE = 2, 60
TINY = bert(
    VOCAB_SIZE,
    d_model=16,
    num_heads=4,
    d_feed_forward=32,
    num_layers=NUM_LAYERS,
    max_positions=24,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 20, VOCAB_SIZE)


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Weights without zeros and ones, so that swapped biases and norms are detected."""
    rng = np.random.default_rng(0)
    return {
        name: (array + rng.normal(0, 0.1, array.shape)).astype(np.float32)
        for name, array in random_weights(TINY).items()
    }


def our_vectors(run_dir: Path) -> np.ndarray:
    model, tokenizer = load_model(run_dir)
    assert isinstance(model, Encoder)
    with torch.inference_mode():
        vectors = [model.pooled(torch.tensor([tokenizer.encode(t).ids]))[0] for t in TEXTS]
    return torch.nn.functional.normalize(torch.stack(vectors)).numpy()


def test_a_run_folder_is_a_finished_training(
    tmp_path: Path, weights: Weights, tokenizer: Tokenizer
):
    write_run(tmp_path, TINY, weights, tokenizer)
    model, loaded_tokenizer = load_model(tmp_path)
    assert model.architecture == TINY
    assert loaded_tokenizer.encode(TEXTS[0]).tokens[0] == "[CLS]"
    assert isinstance(model, Encoder)
    assert np.array_equal(model.embedding.weight.detach().numpy(), weights["embedding.weight"])


def test_a_hugging_face_model_gives_the_hidden_states_of_ours(
    tmp_path: Path, weights: Weights, tokenizer: Tokenizer
):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    write_run(tmp_path / "run", TINY, weights, tokenizer)
    write_hugging_face(tmp_path / "hf", TINY, weights, tokenizer)
    theirs = transformers.BertModel.from_pretrained(tmp_path / "hf").eval()
    ours, _ = load_model(tmp_path / "run")
    token_ids = torch.tensor([tokenizer.encode(TEXTS[0]).ids])
    with torch.inference_mode():
        found = theirs(token_ids).last_hidden_state
        torch.testing.assert_close(found, ours(token_ids), atol=1e-5, rtol=0)


def test_sentence_transformers_gives_our_normalized_means(
    tmp_path: Path, weights: Weights, tokenizer: Tokenizer
):
    library = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    write_run(tmp_path / "run", TINY, weights, tokenizer)
    write_hugging_face(tmp_path / "hf", TINY, weights, tokenizer)
    model = library.SentenceTransformer(str(tmp_path / "hf"), device="cpu")
    vectors = model.encode(TEXTS, show_progress_bar=False)
    assert np.abs(vectors - our_vectors(tmp_path / "run")).max() < 1e-5


def test_no_weight_but_the_mask_head_is_lost(
    tmp_path: Path, weights: Weights, tokenizer: Tokenizer
):
    write_hugging_face(tmp_path, TINY, weights, tokenizer)
    written = load_file(tmp_path / "model.safetensors")
    num_values = sum(a.size for name, a in written.items() if not name.startswith("pooler."))
    kept = (a.size for name, a in weights.items() if not name.startswith("mask_head."))
    assert num_values == sum(kept)


def test_query_key_and_value_are_the_thirds_of_the_fused_projection(weights: Weights):
    renamed = hugging_face_weights(weights, NUM_LAYERS)
    parts = [renamed[f"encoder.layer.1.attention.self.{n}.bias"] for n in ("query", "key", "value")]
    assert np.array_equal(
        np.concatenate(parts), weights["encoder.1.self_attention.query_key_value.bias"]
    )


def test_random_weights_are_the_same_for_the_same_seed():
    first, again, other = (random_weights(TINY, seed)["embedding.weight"] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("name", "millions"), [("minilm", 22.7), ("bert-base", 109.5)])
def test_sizes_are_those_of_the_models_they_are_named_after(name: str, millions: float):
    sizes = SIZES[name]
    weights = {
        key: np.broadcast_to(np.float32(0), array.shape)
        for key, array in random_weights(sizes).items()
    }
    renamed = hugging_face_weights(weights, num_layers(sizes.encoder))
    num_values = sum(array.size for array in renamed.values())
    assert num_values / 1e6 == pytest.approx(millions, abs=0.1)
