"""Networks with the shape of decoders of text, which families describe alike.

Embedding models have such layers in an encoder, language models in a decoder.

Rotary positions, grouped heads, norms of queries and keys, RMS norms, gated feed-forward networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from attendant.v1.architecture_pb2 import (
    NORM_KIND_RMS,
    Architecture,
    Attention,
    Embeddings,
    FeedForward,
    HeadNorm,
    LayerGroup,
    RotaryPositions,
    Stack,
)
from attendant.v1.bundle_pb2 import EmbeddingDefaults
from attendant.v1.embedding_pb2 import POOLING_LAST, POOLING_MEAN

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.imported import ImportedEncoder, load_encoder
from attendant_export.importers.post_norm_encoder import FieldNames, read_activation
from attendant_export.importers.special_tokens import surrounding_tokens
from attendant_export.importers.weight_names import WeightTable

LAYER = "layers.{layer}"
WEIGHTS = {
    "embedding": "embed_tokens",
    "encoder.{layer}.self_attention_residual.norm": f"{LAYER}.input_layernorm",
    "encoder.{layer}.self_attention.query_norm": f"{LAYER}.self_attn.q_norm",
    "encoder.{layer}.self_attention.key_norm": f"{LAYER}.self_attn.k_norm",
    "encoder.{layer}.self_attention.output": f"{LAYER}.self_attn.o_proj",
    "encoder.{layer}.feed_forward.0": [f"{LAYER}.mlp.gate_proj", f"{LAYER}.mlp.up_proj"],
    "encoder.{layer}.feed_forward.2": f"{LAYER}.mlp.down_proj",
    "encoder_norm": "norm",
}
FUSED = "encoder.{layer}.self_attention.query_key_value"
QUERY, KEY, VALUE = (f"{LAYER}.self_attn.{each}_proj" for each in "qkv")


def read_attention(
    config: Config,
    theta: float,
    default_head_dim: int,
    has_head_norms: bool = True,
    default_key_value_heads: int | None = None,
) -> Attention:
    """Self-attention that is causal and has no window; raises CheckpointError."""
    num_heads = config.integer("num_attention_heads")
    num_key_value_heads = config.integer("num_key_value_heads", default_key_value_heads)
    if num_heads % num_key_value_heads:
        raise CheckpointError(
            f"{config.path}: num_attention_heads {num_heads} is not a multiple of "
            f"num_key_value_heads {num_key_value_heads}"
        )
    return Attention(
        num_heads=num_heads,
        head_dim=config.integer("head_dim", default=default_head_dim),
        has_bias=config.flag("attention_bias", default=False),
        is_causal=True,
        rotary_positions=RotaryPositions(theta=theta),
        num_key_value_heads=num_key_value_heads,
        query_key_norm=HeadNorm(epsilon=norm_epsilon(config)) if has_head_norms else None,
    )


def read_architecture(
    config: Config, types: Sequence[str], attentions: Mapping[str, Attention], fields: FieldNames
) -> Architecture:
    """The network with the attention of each type of layers, without a position of norms."""
    feed_forward = FeedForward(
        d_feed_forward=config.integer(fields.d_feed_forward),
        activation=read_activation(config, fields),
        is_gated=True,
    )
    groups = [
        LayerGroup(
            num_layers=len(list(run)), self_attention=attentions[each], feed_forward=feed_forward
        )
        for each, run in groupby(types)
    ]
    return Architecture(
        d_model=config.integer(fields.width),
        source_embeddings=Embeddings(vocab_size=config.integer("vocab_size")),
        encoder=Stack(
            groups=groups,
            norm_epsilon=norm_epsilon(config),
            norm_kind=NORM_KIND_RMS,
            has_final_norm=True,
        ),
    )


def norm_epsilon(config: Config) -> float:
    """The epsilon of all norms."""
    return config.number("rms_norm_eps", default=1e-6)


def _fused(part: Attention) -> list[str]:
    """The tensors of the fused projection of queries, keys and values."""
    # Tensors of one parameter have the same size, unless they are listed several times.
    return [*[QUERY] * (part.num_heads // part.num_key_value_heads), KEY, VALUE]


def decoder_weights(architecture: Architecture) -> dict[str, str | Sequence[str]]:
    """The names of weights of a language model, as in `WeightTable`, without further norms."""
    names: dict[str, str | Sequence[str]] = {
        ours.replace("encoder", "decoder"): theirs for ours, theirs in WEIGHTS.items()
    }
    names["target_embedding"] = names.pop("embedding")
    fused = _fused(architecture.decoder.groups[0].self_attention)
    return {**names, FUSED.replace("encoder", "decoder"): fused}


def load_decoder_shaped(
    family: str, architecture: Architecture, checkpoint: Checkpoint, norms: Mapping[str, str]
) -> ImportedEncoder:
    """The model of a checkpoint, with the names of further ``norms``; raises CheckpointError.

    A language model without settings of sentence-transformers pools as these do: the last token.
    """
    config = checkpoint.config
    fused = _fused(architecture.encoder.groups[0].self_attention)
    weights = WeightTable(
        names={**WEIGHTS, FUSED: fused, **norms},
        ignored=(r"lm_head\.weight",),
        prefixes=("", "model."),
    )
    longest = config.integer("max_position_embeddings")
    tokens = surrounding_tokens(checkpoint)
    encoder = load_encoder(family, architecture, checkpoint, weights, longest, tokens)
    classes = config.get("architectures") or [""]
    is_language_model = str(classes[0]).endswith("ForCausalLM")
    pooling = POOLING_LAST if is_language_model else POOLING_MEAN
    return replace(encoder, defaults=EmbeddingDefaults(pooling=pooling))
