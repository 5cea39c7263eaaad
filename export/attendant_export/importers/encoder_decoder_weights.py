"""Names of the weights that families of the BART lineage share."""

import torch
from attendant.v1.architecture_pb2 import POSITION_KIND_LEARNED, Architecture

from attendant_export.importers.checkpoint import CheckpointError, Weights
from attendant_export.importers.weight_names import WeightTable
from attendant_export.models.embeddings import sinusoids

LOGITS_BIAS = "final_logits_bias"
PREFIX = "model."
ENCODER_EMBEDDING = f"{PREFIX}encoder.embed_tokens.weight"
STACKS = ("encoder", "decoder")
POSITION_TOLERANCE = 1e-3
"""Rounding of a table of positions in fp16."""


def weight_table(architecture: Architecture, weights: Weights) -> WeightTable:
    """The table of a network's weights. A checkpoint without a head may lack the prefix."""
    has_prefix = any(name.startswith(PREFIX) for name in weights.shapes)
    prefix = PREFIX if has_prefix else ""
    names: dict[str, str | list[str]] = {"head.projection": "lm_head"}
    if architecture.shares_embeddings:
        names["embedding"] = f"{prefix}shared"
    else:
        names["embedding"] = f"{prefix}encoder.embed_tokens"
        names["target_embedding"] = f"{prefix}decoder.embed_tokens"
    for stack, target in zip(STACKS, ("", "target_"), strict=True):
        names[f"{target}position_embedding"] = f"{prefix}{stack}.embed_positions"
        names[f"{target}embedding_norm"] = f"{prefix}{stack}.layernorm_embedding"
        names[f"{stack}_norm"] = f"{prefix}{stack}.layer_norm"
        names |= _layer_names(f"{stack}.{{layer}}", f"{prefix}{stack}.layers.{{layer}}")
    return WeightTable(
        names=names,
        whole_names={"head.bias": LOGITS_BIAS},
        ignored=_ignored(architecture, prefix.replace(".", r"\.")),
        repeated=_repeated(architecture, prefix),
    )


def _layer_names(ours: str, theirs: str) -> dict[str, str | list[str]]:
    names: dict[str, str | list[str]] = {}
    for part, name in (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")):
        names[f"{ours}.{part}.query_key_value"] = [f"{theirs}.{name}.{each}_proj" for each in "qkv"]
        names[f"{ours}.{part}.output"] = f"{theirs}.{name}.out_proj"
        names[f"{ours}.{part}_residual.norm"] = f"{theirs}.{name}_layer_norm"
    names[f"{ours}.feed_forward.0"] = f"{theirs}.fc1"
    names[f"{ours}.feed_forward.2"] = f"{theirs}.fc2"
    names[f"{ours}.feed_forward_residual.norm"] = f"{theirs}.final_layer_norm"
    return names


def _ignored(architecture: Architecture, prefix: str) -> list[str]:
    """Patterns of tensors that the model does not need."""
    ignored = [rf"{prefix}(encoder|decoder)\.version"]
    if architecture.source_embeddings.positions.kind != POSITION_KIND_LEARNED:
        ignored.append(rf"{prefix}(encoder|decoder)\.embed_positions\.weights?")
    if not architecture.shares_embeddings:
        ignored.append(rf"{prefix}shared\.weight")
    return ignored


def _repeated(architecture: Architecture, prefix: str) -> dict[str, str]:
    """The tables that tied tensors repeat."""
    source, target = "embedding.weight", "target_embedding.weight"
    if architecture.shares_embeddings:
        target = source
    repeated = {}
    if architecture.shares_embeddings:
        repeated = {f"{prefix}{stack}.embed_tokens.weight": source for stack in STACKS}
    return repeated | ({"lm_head.weight": target} if architecture.head.is_tied else {})


def check_positions(architecture: Architecture, weights: Weights) -> None:
    """Raise CheckpointError if stored positions are not the computed ones."""
    positions = architecture.source_embeddings.positions
    if positions.kind == POSITION_KIND_LEARNED:
        return
    width = architecture.d_model
    for name in weights.shapes:
        if ".embed_positions.weight" not in name:
            continue
        table = weights.read(name)
        if table.shape[1:] != (width,):
            raise CheckpointError(f"{name} is {tuple(table.shape)}, not (positions, {width})")
        used = table[positions.offset :]
        computed = sinusoids(positions, len(used), width)
        if not torch.allclose(used, computed, rtol=0, atol=POSITION_TOLERANCE):
            raise CheckpointError(f"{name} has other values than sinusoids, which is not supported")
