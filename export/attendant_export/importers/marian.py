"""MarianMT checkpoints, such as OPUS-MT, as ``transformers`` writes them."""

from math import sqrt

import torch
from attendant.v1.architecture_pb2 import (
    NORM_POSITION_POST,
    POSITION_KIND_SINUSOIDAL_HALVED,
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
from attendant_export.importers.generation import Generation, read_generation
from attendant_export.importers.imported import ImportedTranslator
from attendant_export.importers.marian_tokenizer import read_marian_tokenizers
from attendant_export.importers.post_norm_encoder import ACTIVATIONS
from attendant_export.importers.weight_names import WeightTable
from attendant_export.models.embeddings import sinusoids
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.special_tokens import TranslationTokens

NORM_EPSILON = 1e-5
"""That of PyTorch's layer norms; the configuration has no field for it."""
LOGITS_BIAS = "final_logits_bias"
ENCODER_EMBEDDING = "model.encoder.embed_tokens.weight"
POSITIONS = "model.{}.embed_positions.weight"
POSITION_TOLERANCE = 1e-3
"""Rounding of a table of positions in fp16."""
NEVER = -1e4
"""Bias of a token with probability 0, in the range of fp16."""


def read_marian(checkpoint: Checkpoint) -> ImportedTranslator:
    """The model of a MarianMT checkpoint with its tokenizers; raises CheckpointError."""
    config, generation = checkpoint.config, read_generation(checkpoint)
    architecture = _architecture(config, checkpoint.weights)
    tokenizers = read_marian_tokenizers(checkpoint, architecture)
    tokens = TranslationTokens(
        pad_id=tokenizers.source_tokens.pad_id,
        bos_id=config.integer("decoder_start_token_id", minimum=0),
        eos_id=tokenizers.target_tokens.eos_id,
    )
    _check_token_ids(config, tokens, generation, architecture)
    with torch.device("meta"):  # no memory for sizes that the weights may not have
        model = EncoderDecoder(architecture, tokens).eval()
    _weight_table(architecture).load(model, checkpoint.weights)
    for stack in ("encoder", "decoder"):
        _check_positions(POSITIONS.format(stack), architecture, checkpoint.weights)
    _finish(model, config, generation)
    return ImportedTranslator(
        family="marian",
        model=model,
        tokenizers=tokenizers,
        decoding=generation.decoding(tokens.bos_id),
        max_tokens=min(
            config.integer("max_position_embeddings", default=1024),
            tokenizers.max_tokens,
        ),
    )


def _architecture(config: Config, weights: Weights) -> Architecture:
    config.require(
        is_encoder_decoder=True,
        is_decoder=False,
        # Fields of earlier versions, for variants that no checkpoint has.
        normalize_before=False,
        normalize_embedding=False,
        add_final_layer_norm=False,
        add_bias_logits=False,
        static_position_embeddings=True,
    )
    width, vocab_size = config.integer("d_model"), config.integer("vocab_size")
    if width % 2:
        raise CheckpointError(f"{config.path}: d_model is {width}, want an even number")
    shares = _flag(config, "share_encoder_decoder_embeddings")
    is_tied = _flag(config, "tie_word_embeddings")
    # Without ties, `transformers` stores the embeddings apart from version 5 on.
    has_one_table = shares and (is_tied or ENCODER_EMBEDDING not in weights.shapes)
    target_size = vocab_size if shares else config.integer("decoder_vocab_size", vocab_size)
    scale = sqrt(width) if _flag(config, "scale_embedding", default=False) else 0.0
    architecture = Architecture(
        d_model=width,
        source_embeddings=_embeddings(vocab_size, scale),
        target_embeddings=_embeddings(target_size, scale),
        shares_embeddings=has_one_table,
        encoder=_stack(config, "encoder", width),
        decoder=_stack(config, "decoder", width),
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


def _flag(config: Config, name: str, default: bool = True) -> bool:
    return config.choice(name, {True: True, False: False}, default)  # type: ignore[no-any-return]


def _embeddings(vocab_size: int, scale: float) -> Embeddings:
    positions = Positions(kind=POSITION_KIND_SINUSOIDAL_HALVED)
    return Embeddings(vocab_size=vocab_size, scale=scale, positions=positions)


def _stack(config: Config, name: str, width: int) -> Stack:
    num_heads = config.integer(f"{name}_attention_heads", default=16)
    if width % num_heads:
        raise CheckpointError(
            f"{config.path}: d_model {width} is not a multiple of {name}_attention_heads "
            f"{num_heads}"
        )
    layers = LayerGroup(
        num_layers=config.integer(f"{name}_layers", default=12),
        self_attention=Attention(num_heads=num_heads, head_dim=width // num_heads, has_bias=True),
        feed_forward=FeedForward(
            d_feed_forward=config.integer(f"{name}_ffn_dim", default=4096),
            activation=config.choice("activation_function", ACTIVATIONS, default="gelu"),
            has_bias=True,
        ),
    )
    return Stack(groups=[layers], norm_position=NORM_POSITION_POST, norm_epsilon=NORM_EPSILON)


def _weight_table(architecture: Architecture) -> WeightTable:
    names: dict[str, str | list[str]] = {"head.projection": "lm_head"}
    if architecture.shares_embeddings:
        names["embedding"] = "model.shared"
    else:
        names["embedding"] = "model.encoder.embed_tokens"
        names["target_embedding"] = "model.decoder.embed_tokens"
    parts = {"self_attention": "self_attn", "cross_attention": "encoder_attn"}
    for stack in ("encoder", "decoder"):
        ours, theirs = f"{stack}.{{layer}}", f"model.{stack}.layers.{{layer}}"
        for part, name in parts.items():
            projections = [f"{theirs}.{name}.{each}_proj" for each in "qkv"]
            names[f"{ours}.{part}.query_key_value"] = projections
            names[f"{ours}.{part}.output"] = f"{theirs}.{name}.out_proj"
            names[f"{ours}.{part}_residual.norm"] = f"{theirs}.{name}_layer_norm"
        names[f"{ours}.feed_forward.0"] = f"{theirs}.fc1"
        names[f"{ours}.feed_forward.2"] = f"{theirs}.fc2"
        names[f"{ours}.feed_forward_residual.norm"] = f"{theirs}.final_layer_norm"
    return WeightTable(
        names=names, whole_names={"head.bias": LOGITS_BIAS}, ignored=_ignored(architecture)
    )


def _ignored(architecture: Architecture) -> list[str]:
    """Patterns of tensors that repeat others: tied ones, and computed positions."""
    ignored = [r"model\.(encoder|decoder)\.embed_positions\.weight"]
    if architecture.head.is_tied:
        ignored.append(r"lm_head\.weight")
    if architecture.shares_embeddings:
        ignored.append(r"model\.(encoder|decoder)\.embed_tokens\.weight")
    else:
        ignored.append(r"model\.shared\.weight")
    return ignored


def _check_positions(name: str, architecture: Architecture, weights: Weights) -> None:
    """Raise CheckpointError if stored positions are not the computed ones."""
    if name not in weights.shapes:
        return
    table, width = weights.read(name), architecture.d_model
    if table.shape[1:] != (width,):
        raise CheckpointError(f"{name} is {tuple(table.shape)}, not (positions, {width})")
    computed = sinusoids(architecture.source_embeddings.positions, len(table), width)
    if not torch.allclose(table, computed, rtol=0, atol=POSITION_TOLERANCE):
        raise CheckpointError(f"{name} has other values than sinusoids, which is not supported")


def _check_token_ids(
    config: Config, tokens: TranslationTokens, generation: Generation, architecture: Architecture
) -> None:
    config.require(pad_token_id=tokens.pad_id, eos_token_id=tokens.eos_id)
    size = architecture.target_embeddings.vocab_size
    for token_id in (tokens.pad_id, tokens.bos_id, tokens.eos_id, *generation.suppressed_token_ids):
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
