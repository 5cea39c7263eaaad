"""T5 and mT5 checkpoints for translation, as ``transformers`` writes them.

The versions of T5 (Raffel et al., 2020) differ in the activation and the head: T5 v1.0 has a plain
feed-forward layer and a tied head whose scores are scaled; T5 v1.1, Flan-T5, mT5 and MADLAD-400
have a gated one and a head of their own.
"""

import re

import torch
from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU_TANH,
    NORM_KIND_RMS,
    NORM_POSITION_PRE,
    Architecture,
    Attention,
    Embeddings,
    FeedForward,
    Head,
    LayerGroup,
    RelativePositions,
    Stack,
)

from attendant_export.graphs.attention import check_decoder_heads
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config, Weights
from attendant_export.importers.generation import (
    Generation,
    check_special_tokens,
    read_generation,
)
from attendant_export.importers.imported import ImportedTranslator
from attendant_export.importers.post_norm_encoder import ACTIVATIONS
from attendant_export.importers.t5_tokenizer import read_t5_tokenizers
from attendant_export.importers.task_heads import check_translates
from attendant_export.importers.weight_names import WeightTable
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.special_tokens import TranslationTokens

FEED_FORWARDS = {
    **{name: (activation, False) for name, activation in ACTIVATIONS.items()},
    **{f"gated-{name}": (activation, True) for name, activation in ACTIVATIONS.items()},
    "gated-gelu": (ACTIVATION_GELU_TANH, True),  # an exception of the original
}
"""Activation, and whether it is gated, by ``feed_forward_proj``."""
HEAD = "lm_head.weight"
TABLES = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""Names of the embeddings, which are one table. A checkpoint may have any of them."""
ATTENTIONS = {
    "encoder": {"self_attention": "SelfAttention"},
    "decoder": {"self_attention": "SelfAttention", "cross_attention": "EncDecAttention"},
}


def read_t5(checkpoint: Checkpoint) -> ImportedTranslator:
    """The model of a checkpoint with its tokenizers; raises CheckpointError."""
    config, generation = checkpoint.config, read_generation(checkpoint)
    check_translates(config)
    table = embedding_table(checkpoint.weights)
    architecture = _architecture(config, checkpoint.weights, table)
    tokenizers = read_t5_tokenizers(checkpoint, architecture.source_embeddings.vocab_size)
    special = tokenizers.source_tokens
    for each in (config, generation.config):
        check_special_tokens(each, special.pad_id, special.eos_id)
    tokens = TranslationTokens(
        pad_id=special.pad_id,
        bos_id=generation.start_token_id,
        eos_id=special.eos_id,
    )
    _check_token_ids(config, tokens, generation)
    try:
        check_decoder_heads(architecture)
        with torch.device("meta"):  # no memory for sizes that the weights may not have
            model = EncoderDecoder(architecture, tokens).eval()
    except ValueError as error:
        raise CheckpointError(f"{config.path}: {error}") from error
    _weight_table(architecture, table).load(model, checkpoint.weights)
    return ImportedTranslator(
        family=config.get("model_type"),
        model=model,
        tokenizers=tokenizers,
        decoding=generation.decoding(),
        max_tokens=tokenizers.max_tokens,
    )


def _check_token_ids(config: Config, tokens: TranslationTokens, generation: Generation) -> None:
    size, suppressed = config.integer("vocab_size"), generation.suppressed_token_ids
    for token_id in (tokens.bos_id, *suppressed, *generation.forced_token_ids):
        if token_id >= size:
            raise CheckpointError(f"{config.path}: token id {token_id} is not in vocab_size {size}")
    if generation.renormalizes and suppressed:
        raise CheckpointError(
            f"{config.path}: renormalize_logits is True, which is not supported with bad_words_ids "
            "or suppress_tokens"
        )


def _architecture(config: Config, weights: Weights, table: str) -> Architecture:
    config.require(is_encoder_decoder=True, is_decoder=False)
    num_layers = config.num_layers("num_layers")
    architecture = Architecture(
        d_model=config.integer("d_model"),
        shares_embeddings=True,
        encoder=read_stack(config, num_layers),
        decoder=read_stack(config, config.num_layers("num_decoder_layers", default=num_layers)),
        head=_head(config, weights, table),
    )
    for side in (architecture.source_embeddings, architecture.target_embeddings):
        side.CopyFrom(Embeddings(vocab_size=config.integer("vocab_size")))
    layers = architecture.decoder.groups[0]
    layers.cross_attention.CopyFrom(layers.self_attention)
    layers.self_attention.is_causal = True
    architecture.decoder.relative_positions.is_unidirectional = True
    return architecture


def read_stack(config: Config, num_layers: int) -> Stack:
    """The layers of the encoder, or those of the decoder without cross-attention."""
    default = "gated-gelu" if config.get("model_type") == "mt5" else "relu"
    activation, is_gated = config.choice("feed_forward_proj", FEED_FORWARDS, default)
    config.require(is_gated_act=is_gated)
    if "dense_act_fn" in config:  # the original follows it if it is given
        same = {name: each for name, each in ACTIVATIONS.items() if each == activation}
        config.choice("dense_act_fn", same)
    layers = LayerGroup(
        num_layers=num_layers,
        self_attention=Attention(
            num_heads=config.integer("num_heads"), head_dim=config.integer("d_kv"), scale=1.0
        ),
        feed_forward=FeedForward(
            d_feed_forward=config.integer("d_ff"), activation=activation, is_gated=is_gated
        ),
    )
    return Stack(
        groups=[layers],
        norm_position=NORM_POSITION_PRE,
        norm_kind=NORM_KIND_RMS,
        norm_epsilon=config.number("layer_norm_epsilon", default=1e-6),
        has_final_norm=True,
        relative_positions=RelativePositions(
            num_buckets=config.integer("relative_attention_num_buckets", default=32),
            max_distance=config.integer("relative_attention_max_distance", default=128),
        ),
    )


def embedding_table(weights: Weights) -> str:
    """The name of the table of embeddings. Raises CheckpointError for different tables."""
    first, *others = [name for name in TABLES if name in weights.shapes] or TABLES[:1]
    for name in others:
        if not _are_equal(weights, first, name):
            raise CheckpointError(f"{name} differs from {first}, which is not supported")
    return first


def _are_equal(weights: Weights, *names: str) -> bool:
    shapes = [weights.shapes[name] for name in names]
    return shapes[0] == shapes[1] and torch.equal(*map(weights.read, names))


def _head(config: Config, weights: Weights, table: str) -> Head:
    """The head: tied unless the weights have another one, and scaled by T5 v1.0 only."""
    is_mt5 = config.get("model_type") == "mt5"
    ties = config.flag("tie_word_embeddings", default=not is_mt5)
    is_tied = HEAD not in weights.shapes or _are_equal(weights, HEAD, table)
    # `transformers` 5 stores untied models with tie_word_embeddings, but states the scale.
    scales = config.flag("scale_decoder_outputs", default=ties and not is_mt5)
    states_scale = is_mt5 or "scale_decoder_outputs" in config
    if (ties and not is_tied and not states_scale) or (is_mt5 and (scales or (ties and is_tied))):
        raise CheckpointError(
            f"{config.path}: tie_word_embeddings is {ties} and scale_decoder_outputs is {scales}, "
            f"which is not supported for {config.get('model_type')} with "
            f"{'a tied head' if is_tied else HEAD}"
        )
    return Head(is_tied=is_tied, scale=config.integer("d_model") ** -0.5 if scales else 0.0)


def _weight_table(architecture: Architecture, table: str) -> WeightTable:
    names: dict[str, str | list[str]] = {
        "embedding": table.removesuffix(".weight"),
        "head.projection": HEAD.removesuffix(".weight"),
    }
    for name in ATTENTIONS:
        part = getattr(architecture, name)
        names |= stack_names(name, part) | {f"{name}_relative_positions": relative_bias_name(name)}
    repeated = [name for name in TABLES if name != table]
    if architecture.head.is_tied:
        repeated.append(HEAD)
    # Old checkpoints have a bias that the original does not use.
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    return WeightTable(names=names, ignored=[re.escape(name) for name in (*repeated, unused)])


def stack_names(stack: str, part: Stack) -> dict[str, str | list[str]]:
    """The checkpoint's names of a stack's weights by ours, without its relative positions."""
    ours, theirs = f"{stack}.{{layer}}", f"{stack}.block.{{layer}}.layer"
    names: dict[str, str | list[str]] = {f"{stack}_norm": f"{stack}.final_layer_norm"}
    for i, (mixer, name) in enumerate(ATTENTIONS[stack].items()):
        projections = [f"{theirs}.{i}.{name}.{each}" for each in "qkv"]
        names[f"{ours}.{mixer}.query_key_value"] = projections
        names[f"{ours}.{mixer}.output"] = f"{theirs}.{i}.{name}.o"
        names[f"{ours}.{mixer}_residual.norm"] = f"{theirs}.{i}.layer_norm"
    last = f"{theirs}.{len(ATTENTIONS[stack])}"
    expand = [f"{last}.DenseReluDense.{each}" for each in ("wi_0", "wi_1")]
    is_gated = part.groups[0].feed_forward.is_gated
    names[f"{ours}.feed_forward.0"] = expand if is_gated else f"{last}.DenseReluDense.wi"
    names[f"{ours}.feed_forward.2"] = f"{last}.DenseReluDense.wo"
    names[f"{ours}.feed_forward_residual.norm"] = f"{last}.layer_norm"
    return names


def relative_bias_name(stack: str) -> str:
    """The checkpoint's name of the biases of relative positions, which the first layer has."""
    return f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
