"""The network of a Marian model: its configuration as an Architecture, and its weight names."""

from collections.abc import Mapping
from math import sqrt
from typing import Any

from attendant.v1.architecture_pb2 import (
    ACTIVATION_RELU,
    ACTIVATION_SILU,
    NORM_POSITION_POST,
    NORM_POSITION_PRE,
    POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR,
    Architecture,
    Attention,
    Embeddings,
    FeedForward,
    Head,
    LayerGroup,
    NormPosition,
    Positions,
    Ssru,
    Stack,
)

from attendant_export.graphs.attention import check_decoder_heads
from attendant_export.importers.checkpoint import CheckpointError, Config
from attendant_export.importers.weight_names import WeightTable
from attendant_export.models.stack import each_layer

NORM_EPSILON = 1e-9
"""That of Marian's layer norm; the configuration has no field for it."""
ACTIVATIONS = {"relu": ACTIVATION_RELU, "swish": ACTIVATION_SILU}
"""Marian's "gelu" is x times the logistic function of 1.702 x, which is not supported."""
QUANTIZATION_SUFFIX = "_QuantMultA"
"""Of the names of the factors with which the inputs of a matrix become integers."""
LOGITS = "decoder_ff_logit_out"
LOGITS_BIAS = f"{LOGITS}_b"
SHARED_TABLE, SOURCE_TABLE, TARGET_TABLE = "Wemb", "encoder_Wemb", "decoder_Wemb"

UNUSED = frozenset(
    (
        # of recurrent models, of BERT and of other decoders
        *("bert-train-type-embeddings", "bert-type-vocab-size", "dim-rnn", "enc-cell", "enc-type"),
        *("enc-cell-depth", "dec-cell-base-depth", "dec-cell-high-depth", "skip"),
        *("transformer-aan-activation", "transformer-aan-depth", "transformer-aan-nogate"),
        *("transformer-dim-aan", "char-stride", "char-highway", "char-convs"),
        # of training
        *("transformer-guided-alignment-layer", "transformer-depth-scaling", "max-length"),
        *("version", "model-mmap"),
    )
)
"""Fields that change no output of a Transformer."""
READ = frozenset(
    (
        *("type", "dim-emb", "dim-vocabs", "enc-depth", "dec-depth", "dec-cell"),
        *("transformer-heads", "transformer-dim-ffn", "transformer-ffn-activation"),
        *("transformer-ffn-depth", "transformer-decoder-dim-ffn", "transformer-decoder-ffn-depth"),
        *("transformer-decoder-autoreg", "transformer-preprocess", "transformer-postprocess"),
        *("transformer-postprocess-emb", "transformer-postprocess-top", "factors-combine"),
        *("tied-embeddings", "tied-embeddings-all", "tied-embeddings-src"),
    )
)


def read_network(config: Config) -> Architecture:
    """The network that a configuration describes; raises CheckpointError for an unsupported one."""
    config.require(**{"type": "transformer", "factors-combine": "sum"})
    for name in config.names:
        if name not in UNUSED | READ and config.get(name):
            raise CheckpointError(
                f"{config.path}: {name} is {config.get(name)!r}, which is not supported"
            )
    width = config.integer("dim-emb")
    source_size, target_size = _vocabulary_sizes(config)
    shares, is_tied = _ties(config)
    return Architecture(
        d_model=width,
        source_embeddings=_embeddings(source_size, width),
        target_embeddings=_embeddings(target_size, width),
        shares_embeddings=shares,
        encoder=_stack(config, width, "encoder"),
        decoder=_stack(config, width, "decoder"),
        head=Head(is_tied=is_tied, has_bias=True),
    )


def _vocabulary_sizes(config: Config) -> tuple[int, int]:
    sizes = config.get("dim-vocabs")
    if not isinstance(sizes, list) or [type(each) for each in sizes] != [int, int]:
        raise CheckpointError(f"{config.path}: dim-vocabs is {sizes!r}, want two numbers")
    for name in ("tied-embeddings-all", "tied-embeddings-src"):
        if config.flag(name, default=False) and sizes[0] != sizes[1]:
            raise CheckpointError(
                f"{config.path}: dim-vocabs is {sizes!r}, want equal numbers with {name}"
            )
    return sizes[0], sizes[1]


def _ties(config: Config) -> tuple[bool, bool]:
    """Whether source and target share embeddings, and whether the head is those of the target."""
    all_, source, target = (
        config.flag(f"tied-embeddings{suffix}", default=False) for suffix in ("-all", "-src", "")
    )
    return all_ or source, all_ or target


def _embeddings(vocab_size: int, width: int) -> Embeddings:
    positions = Positions(kind=POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR)
    return Embeddings(vocab_size=vocab_size, scale=sqrt(width), positions=positions)


def _stack(config: Config, width: int, name: str) -> Stack:
    position = _norm_position(config)
    layers = LayerGroup(
        num_layers=config.integer("enc-depth" if name == "encoder" else "dec-depth"),
        feed_forward=_feed_forward(config, name),
    )
    if name == "encoder":
        layers.self_attention.CopyFrom(_attention(config, width))
    else:
        layers.cross_attention.CopyFrom(_attention(config, width))
        _set_decoder_mixer(config, width, layers)
    return Stack(
        groups=[layers],
        norm_position=position,
        norm_epsilon=NORM_EPSILON,
        has_final_norm=_has_final_norm(config),
    )


def _attention(config: Config, width: int) -> Attention:
    heads = config.integer("transformer-heads")
    if width % heads or width % 2:
        raise CheckpointError(
            f"{config.path}: dim-emb {width} is not an even multiple of transformer-heads {heads}"
        )
    return Attention(num_heads=heads, head_dim=width // heads, has_bias=True)


def _set_decoder_mixer(config: Config, width: int, layers: LayerGroup) -> None:
    kind = config.choice(
        "transformer-decoder-autoreg",
        {"self-attention": "self-attention", "rnn": "rnn"},
        default="self-attention",
    )
    if kind == "rnn":
        config.choice("dec-cell", {"ssru": "ssru"}, default="gru")
        _operations(config, "transformer-preprocess", "", "")
        layers.ssru.CopyFrom(Ssru())
    else:
        attention = _attention(config, width)
        attention.is_causal = True
        layers.self_attention.CopyFrom(attention)


def _feed_forward(config: Config, name: str) -> FeedForward:
    width = config.integer("transformer-dim-ffn")
    config.choice("transformer-ffn-depth", {2: 2}, default=2)
    if name == "decoder":
        config.choice("transformer-decoder-ffn-depth", {0: 0, 2: 2}, default=0)
        width = config.integer("transformer-decoder-dim-ffn", default=0, minimum=0) or width
    activation = config.choice("transformer-ffn-activation", ACTIVATIONS)
    return FeedForward(d_feed_forward=width, activation=activation, has_bias=True)


def _operations(config: Config, name: str, default: str, *supported: str) -> str:
    """The operations of a field without dropout ("d"), which translation does not apply."""
    value = config.get(name, default)
    operations = value.replace("d", "") if isinstance(value, str) else value
    if operations not in supported:
        listed = ", ".join(map(repr, supported))
        raise CheckpointError(
            f"{config.path}: {name} is {value!r}, which is not supported; supported, without "
            f"dropout (d): {listed}"
        )
    return str(operations)


def _norm_position(config: Config) -> NormPosition.ValueType:
    """Where the norms are: "an" adds and normalizes after a sublayer, "n" normalizes before it."""
    _operations(config, "transformer-postprocess-emb", "d", "")
    before = _operations(config, "transformer-preprocess", "", "", "n")
    _operations(config, "transformer-postprocess", "dan", "a" if before else "an")
    return NORM_POSITION_PRE if before else NORM_POSITION_POST


def _has_final_norm(config: Config) -> bool:
    return bool(_operations(config, "transformer-postprocess-top", "", "", "n"))


def check_heads(config: Config, architecture: Architecture) -> None:
    """Raise CheckpointError for a width of heads that decoders do not support."""
    try:
        check_decoder_heads(architecture)
    except ValueError as error:
        raise CheckpointError(f"{config.path}: transformer-heads: {error}") from error


def weight_table(architecture: Architecture, shapes: Mapping[str, Any]) -> WeightTable:
    """The names of the tensors of a network. ``shapes`` are those of the file."""
    names: dict[str, str | list[str]] = {"head.bias": LOGITS_BIAS}
    names["embedding.weight"] = source_table(architecture)
    if not architecture.shares_embeddings:
        names["target_embedding.weight"] = TARGET_TABLE
    if not architecture.head.is_tied:
        names["head.projection.weight"] = projection(shapes)
    for stack, part in (("encoder", architecture.encoder), ("decoder", architecture.decoder)):
        suffix = "_pre" if part.norm_position == NORM_POSITION_PRE else ""
        for layer, group in enumerate(each_layer(part)):
            names |= _layer_names(f"{stack}.{layer}", f"{stack}_l{layer + 1}", group, suffix)
        if part.has_final_norm:
            names |= _norm_names(f"{stack}_norm", f"{stack}_top", "")
    return WeightTable(names={}, whole_names=names, ignored=[f".*{QUANTIZATION_SUFFIX}"])


def source_table(architecture: Architecture) -> str:
    """The name of the table of the sources' embeddings."""
    return SHARED_TABLE if architecture.shares_embeddings else SOURCE_TABLE


def projection(shapes: Mapping[str, Any]) -> str:
    """The name of the head's matrix, which older versions store transposed."""
    return f"{LOGITS}_W" if f"{LOGITS}_W" in shapes else f"{LOGITS}_Wt"


def _layer_names(
    ours: str, theirs: str, group: LayerGroup, suffix: str
) -> dict[str, str | list[str]]:
    names: dict[str, str | list[str]] = {}
    if group.HasField("ssru"):
        names[f"{ours}.ssru.candidate.weight"] = f"{theirs}_rnn_W"
        names[f"{ours}.ssru.forget.weight"] = f"{theirs}_rnn_Wf"
        names[f"{ours}.ssru.forget.bias"] = f"{theirs}_rnn_bf"
        names |= _norm_names(f"{ours}.ssru_residual.norm", f"{theirs}_rnn_ffn", suffix)
    else:
        names |= _attention_names(f"{ours}.self_attention", f"{theirs}_self", suffix)
    if group.HasField("cross_attention"):
        names |= _attention_names(f"{ours}.cross_attention", f"{theirs}_context", suffix)
    for i, number in enumerate((0, 2), 1):
        names[f"{ours}.feed_forward.{number}.weight"] = f"{theirs}_ffn_W{i}"
        names[f"{ours}.feed_forward.{number}.bias"] = f"{theirs}_ffn_b{i}"
    return names | _norm_names(f"{ours}.feed_forward_residual.norm", f"{theirs}_ffn_ffn", suffix)


def _attention_names(ours: str, theirs: str, suffix: str) -> dict[str, str | list[str]]:
    return {
        f"{ours}.query_key_value.weight": [f"{theirs}_W{each}" for each in "qkv"],
        f"{ours}.query_key_value.bias": [f"{theirs}_b{each}" for each in "qkv"],
        f"{ours}.output.weight": f"{theirs}_Wo",
        f"{ours}.output.bias": f"{theirs}_bo",
        **_norm_names(f"{ours}_residual.norm", f"{theirs}_Wo", suffix),
    }


def _norm_names(ours: str, theirs: str, suffix: str) -> dict[str, str | list[str]]:
    return {
        f"{ours}.weight": f"{theirs}_ln_scale{suffix}",
        f"{ours}.bias": f"{theirs}_ln_bias{suffix}",
    }
