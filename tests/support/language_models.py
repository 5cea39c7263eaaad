"""Tiny causal language models with random weights, and bundles of them."""

from pathlib import Path

import torch
from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU_TANH,
    NORM_POSITION_PRE,
    POSITION_KIND_LEARNED,
    Architecture,
    Attention,
    Embeddings,
    FeedForward,
    Head,
    LayerGroup,
    Positions,
    Stack,
)
from attendant.v1.bundle_pb2 import (
    MODEL_KIND_LANGUAGE_MODEL,
    DecodingDefaults,
    Limits,
    Manifest,
    PrecisionParity,
    SpecialTokens,
)
from attendant_export.bundle.manifest import write_manifest
from attendant_export.data.tokenizer import (
    BOS,
    EOS,
    PAD,
    TOKENIZER,
    special_token_id,
    train_language_model_tokenizer,
)
from attendant_export.graphs.writer import write_language_model_graphs
from attendant_export.models.causal_language_model import CausalLanguageModel
from attendant_export.models.shapes import language_model
from attendant_export.models.special_tokens import LanguageModelTokens
from attendant_export.verify.bounds import stated_bound
from attendant_manifest import MANIFEST_VERSION
from tokenizers import Tokenizer

from tests.support.bundles import MAX_TOKENS, sentence_pairs
from tests.support.graphs import unsettle

VOCAB_SIZE = 300


def tiny_tokenizer(vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """Byte-level BPE of the English sentences of `sentence_pairs`."""
    texts = [english for english, _ in sentence_pairs()]
    return train_language_model_tokenizer(texts, vocab_size)


def llama_like(vocab_size: int = VOCAB_SIZE) -> Architecture:
    """Rotary positions, grouped heads, RMS norms, gated SiLU."""
    return language_model(vocab_size, 64, 4, 2, d_feed_forward=96, num_layers=2)


def gpt2_like(vocab_size: int = VOCAB_SIZE, max_positions: int = MAX_TOKENS) -> Architecture:
    """Learned positions, biases, layer norms, GELU."""
    return Architecture(
        d_model=32,
        target_embeddings=Embeddings(
            vocab_size=vocab_size,
            positions=Positions(kind=POSITION_KIND_LEARNED, num_positions=max_positions),
        ),
        decoder=Stack(
            groups=[
                LayerGroup(
                    num_layers=2,
                    self_attention=Attention(
                        num_heads=4, head_dim=8, has_bias=True, is_causal=True
                    ),
                    feed_forward=FeedForward(
                        d_feed_forward=64, activation=ACTIVATION_GELU_TANH, has_bias=True
                    ),
                )
            ],
            norm_position=NORM_POSITION_PRE,
            norm_epsilon=1e-5,
            has_final_norm=True,
        ),
        head=Head(is_tied=True),
    )


def tiny_language_model(architecture: Architecture, seed: int = 7) -> CausalLanguageModel:
    """A model with random parameters."""
    torch.manual_seed(seed)
    return unsettle(CausalLanguageModel(architecture))


def language_model_manifest(model: CausalLanguageModel) -> Manifest:
    """The parts of a manifest that readers of the graphs of ``model`` need."""
    tokens = model.tokens
    return Manifest(
        manifest_version=MANIFEST_VERSION,
        kind=MODEL_KIND_LANGUAGE_MODEL,
        architecture=model.architecture,
        special_tokens=SpecialTokens(pad_id=tokens.pad_id, eos_id=tokens.eos_id),
        decoding=DecodingDefaults(start_token_id=tokens.bos_id),
        limits=Limits(max_tokens=MAX_TOKENS),
    )


def write_random_language_model(
    folder: Path,
    name: str = "tiny-lm",
    version: str = "1",
    architecture: Architecture | None = None,
    precisions: tuple[str, ...] = ("fp32",),
    has_start_token: bool = True,
) -> Path:
    """Write a bundle with random weights; returns its folder ``folder/<name>/<version>``.

    By default, the network is `llama_like`. The bundle has no reference outputs, and its parity
    states bounds alone, which were not measured.
    """
    target = folder / name / version
    target.mkdir(parents=True)
    tokenizer = tiny_tokenizer()
    pad_id, bos_id, eos_id = (special_token_id(tokenizer, token) for token in (PAD, BOS, EOS))
    model = tiny_language_model(architecture or llama_like(tokenizer.get_vocab_size()))
    model.tokens = LanguageModelTokens(pad_id, bos_id if has_start_token else None, eos_id)
    manifest = language_model_manifest(model)
    manifest.name, manifest.version = name, version
    manifest.description, manifest.license = "A tiny model for tests.", "CC0-1.0"
    manifest.source_tokenizer = TOKENIZER
    tokenizer.save(str(target / TOKENIZER))
    for precision in precisions:
        graphs = write_language_model_graphs(model, precision, target, MAX_TOKENS)
        manifest.precisions.add().CopyFrom(graphs)
        bound = stated_bound(precision, 0.0)
        manifest.parity.precisions.add().CopyFrom(
            PrecisionParity(precision=precision, log_probability_bound=bound)
        )
    write_manifest(target, manifest)
    return target
