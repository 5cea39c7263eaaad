"""The outputs of attention graphs, and the rules for these graphs in manifests."""

from collections.abc import Iterator

from attendant.v1.architecture_pb2 import Architecture, LayerGroup, Stack
from attendant.v1.bundle_pb2 import MODEL_KIND_TRANSLATION, Manifest

from attendant_manifest.sizes import num_source_heads

ENCODER, DECODER, CROSS = "encoder_attention", "decoder_attention", "cross_attention"
"""Beginnings of the names of outputs; the number of the layer, in running order, follows."""


def attention_outputs(architecture: Architecture) -> dict[str, list[str]]:
    """The output of each layer for each kind of attention; "" for a layer that lacks it."""
    groups = _groups(architecture.encoder)
    kinds = {
        ENCODER: [
            "" if group.HasField("recurrent") or group.HasField("convolution") else f"{ENCODER}_{i}"
            for i, group in enumerate(groups)
        ]
    }
    if architecture.HasField("decoder"):
        groups = _groups(architecture.decoder)
        kinds[DECODER] = [
            f"{DECODER}_{i}" if group.HasField("self_attention") else ""
            for i, group in enumerate(groups)
        ]
        kinds[CROSS] = [
            f"{CROSS}_{i}" if num_source_heads(group) else "" for i, group in enumerate(groups)
        ]
    return kinds


def _groups(stack: Stack) -> list[LayerGroup]:
    """The group of each layer that runs, in order."""
    return [
        group for group in stack.groups for _ in range(group.num_layers * (group.num_repeats or 1))
    ]


def attention_problems(manifest: Manifest) -> Iterator[str]:
    """Problems of the inputs and outputs of attention graphs."""
    kinds = attention_outputs(manifest.architecture)
    expected = {name for names in kinds.values() for name in names if name}
    for precision in manifest.precisions:
        if not precision.HasField("attention"):
            continue
        inputs = {"source", "target_in"}
        if manifest.kind != MODEL_KIND_TRANSLATION:
            inputs = {"token_ids", *({"first_lengths"} & set(precision.embedder.inputs))}
        found = set(precision.attention.inputs), set(precision.attention.outputs)
        if found != (inputs, expected) or not expected:
            yield (
                f"the {precision.name} precision: attention has other inputs or outputs than the "
                "layers of the architecture have"
            )
