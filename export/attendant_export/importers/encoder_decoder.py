"""Encoder-decoder networks of the BART lineage, whose families share the names of their fields."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import torch
from attendant.v1 import architecture_pb2
from attendant.v1.architecture_pb2 import (
    NORM_POSITION_POST,
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

from attendant_export.graphs.attention import check_decoder_heads
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config, Weights
from attendant_export.importers.encoder_decoder_weights import (
    ENCODER_EMBEDDING,
    LOGITS_BIAS,
    check_positions,
    weight_table,
)
from attendant_export.importers.generation import Generation, check_special_tokens
from attendant_export.importers.imported import ImportedTranslator
from attendant_export.importers.post_norm_encoder import ACTIVATIONS
from attendant_export.importers.task_heads import check_translates
from attendant_export.importers.translation_tokenizers import TranslationTokenizers
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.special_tokens import TranslationTokens

NORM_EPSILON = 1e-5
"""That of PyTorch's layer norms; the configurations have no field for it."""
NEVER = -1e4
"""Bias of a token with probability 0, in the range of fp16."""


@dataclass(frozen=True, slots=True)
class Form:
    """What distinguishes a family's networks."""

    positions: Positions
    """The positions; the size of a learned table is in the configuration."""
    norms_first: bool
    """Pre-norm with a norm after the last layer, or post-norm without one."""
    norms_embeddings: bool
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values of fields that a configuration may leave out, where families differ."""


def read_architecture(config: Config, weights: Weights, form: Form) -> Architecture:
    """The network of a configuration; raises CheckpointError that names a bad field."""
    config.require(is_encoder_decoder=True, is_decoder=False)
    check_translates(config)
    width, vocab_size = config.integer("d_model"), config.integer("vocab_size")
    if width % 2:
        raise CheckpointError(f"{config.path}: d_model is {width}, want an even number")
    shares = config.flag("share_encoder_decoder_embeddings", default=True)
    is_tied = config.flag("tie_word_embeddings", default=True)
    # Without ties, `transformers` stores the embeddings apart from version 5 on.
    has_one_table = shares and (is_tied or ENCODER_EMBEDDING not in weights.shapes)
    target_size = vocab_size if shares else config.integer("decoder_vocab_size", vocab_size)
    source, target = (_embeddings(config, size, form) for size in (vocab_size, target_size))
    architecture = Architecture(
        d_model=width,
        source_embeddings=source,
        target_embeddings=target,
        shares_embeddings=has_one_table,
        encoder=_stack(config, "encoder", form),
        decoder=_stack(config, "decoder", form),
        head=Head(is_tied=is_tied, has_bias=LOGITS_BIAS in weights.shapes),
    )
    layers = architecture.decoder.groups[0]
    layers.cross_attention.CopyFrom(layers.self_attention)
    layers.self_attention.is_causal = True
    try:
        check_decoder_heads(architecture)
    except ValueError as error:
        raise CheckpointError(f"{config.path}: decoder_attention_heads: {error}") from error
    return architecture


def _embeddings(config: Config, vocab_size: int, form: Form) -> Embeddings:
    scales = config.flag("scale_embedding", form.defaults.get("scale_embedding", False))
    positions = Positions()
    positions.CopyFrom(form.positions)
    if positions.kind == POSITION_KIND_LEARNED:
        positions.num_positions = max_positions(config) + positions.offset
    return Embeddings(
        vocab_size=vocab_size,
        scale=sqrt(config.integer("d_model")) if scales else 0.0,
        positions=positions,
        has_norm=form.norms_embeddings,
    )


def max_positions(config: Config) -> int:
    """The longest text that a configuration states, in tokens."""
    return config.integer("max_position_embeddings", default=1024)


def _stack(config: Config, name: str, form: Form) -> Stack:
    width = config.integer("d_model")
    num_heads = config.integer(f"{name}_attention_heads", default=16)
    if width % num_heads:
        raise CheckpointError(
            f"{config.path}: d_model {width} is not a multiple of {name}_attention_heads "
            f"{num_heads}"
        )
    activation: architecture_pb2.Activation.ValueType = config.choice(
        "activation_function",
        ACTIVATIONS,
        default=form.defaults.get("activation_function", "gelu"),
    )
    layers = LayerGroup(
        num_layers=config.num_layers(f"{name}_layers", default=12),
        self_attention=Attention(num_heads=num_heads, head_dim=width // num_heads, has_bias=True),
        feed_forward=FeedForward(
            d_feed_forward=config.integer(f"{name}_ffn_dim", default=4096),
            activation=activation,
            has_bias=True,
        ),
    )
    return Stack(
        groups=[layers],
        norm_position=NORM_POSITION_PRE if form.norms_first else NORM_POSITION_POST,
        norm_epsilon=NORM_EPSILON,
        has_final_norm=form.norms_first,
    )


def load_translator(
    family: str,
    checkpoint: Checkpoint,
    architecture: Architecture,
    tokenizers: TranslationTokenizers,
    generation: Generation,
) -> ImportedTranslator:
    """The model of ``architecture`` with the checkpoint's weights; raises CheckpointError."""
    config = checkpoint.config
    tokens = TranslationTokens(
        pad_id=tokenizers.source_tokens.pad_id,
        bos_id=generation.start_token_id,
        eos_id=tokenizers.target_tokens.eos_id,
    )
    _check_token_ids(config, tokens, generation, architecture)
    with torch.device("meta"):  # no memory for sizes that the weights may not have
        model = EncoderDecoder(architecture, tokens).eval()
    weight_table(architecture, checkpoint.weights).load(model, checkpoint.weights)
    check_positions(architecture, checkpoint.weights)
    _finish(model, config, generation)
    return ImportedTranslator(
        family=family,
        model=model,
        tokenizers=tokenizers,
        decoding=generation.decoding(),
        max_tokens=min(max_positions(config), tokenizers.max_tokens),
    )


def _check_token_ids(
    config: Config, tokens: TranslationTokens, generation: Generation, architecture: Architecture
) -> None:
    for each in (config, generation.config):
        check_special_tokens(each, tokens.pad_id, tokens.eos_id)
    size = architecture.target_embeddings.vocab_size
    chosen = (*generation.suppressed_token_ids, *generation.forced_token_ids)
    for token_id in (tokens.pad_id, tokens.bos_id, tokens.eos_id, *chosen):
        if token_id >= size:
            raise CheckpointError(
                f"{config.path}: token id {token_id} is not in the {size} tokens of the target"
            )


def _finish(model: EncoderDecoder, config: Config, generation: Generation) -> None:
    """Renormalize the probabilities without suppressed tokens, if the search does so."""
    if not generation.renormalizes or not generation.suppressed_token_ids:
        return
    if model.head.bias is None:
        raise CheckpointError(
            f"{config.path}: renormalize_logits is True, which needs {LOGITS_BIAS} in the weights"
        )
    with torch.no_grad():
        model.head.bias[list(generation.suppressed_token_ids)] = NEVER
