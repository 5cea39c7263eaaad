"""The rules for parts of manifests that several kinds of models have; `rules` has the others."""

from collections.abc import Iterator, Mapping, Sequence

from attendant.v1 import bundle_pb2
from attendant.v1.architecture_pb2 import POSITION_KIND_LEARNED, Architecture

from attendant_manifest.sizes import num_layers

MAX_TOKENS = 65_536
"""Largest token limit that a manifest may state; the server allocates memory for this many."""
MAX_VOCAB_SIZE = 2**24
MAX_LAYERS = 10_000
MAX_LENGTH_PENALTY = 10
"""As for requests."""


def network_problems(architecture: Architecture, sides: Sequence[str]) -> Iterator[str]:
    """Problems of the parts that a reader uses: vocabulary sizes and layers.

    ``sides`` are "source" for the encoder's parts and "target" for the decoder's.
    """
    stacks = {"source": "encoder", "target": "decoder"}
    for side in sides:
        embeddings, stack = f"{side}_embeddings", stacks[side]
        for name in (embeddings, stack):
            if not architecture.HasField(name):  # type: ignore[arg-type]
                yield f"architecture.{name} is missing"
        if not 1 <= getattr(architecture, embeddings).vocab_size <= MAX_VOCAB_SIZE:
            yield f"architecture.{embeddings}.vocab_size must be between 1 and {MAX_VOCAB_SIZE}"
        layers = getattr(architecture, stack)
        least = 1 if "target" in sides else 0  # Static embeddings have no layers.
        has_empty = any(group.num_layers < 1 for group in layers.groups)
        if has_empty or not least <= num_layers(layers) <= MAX_LAYERS:
            yield f"architecture.{stack} must have {least} to {MAX_LAYERS} layers"


def limit_problems(manifest: bundle_pb2.Manifest, sides: Mapping[str, str]) -> Iterator[str]:
    """Problems of the limits of tokens; ``sides`` has the embeddings of each required limit."""
    for name, side in sides.items():
        positions = getattr(manifest.architecture, f"{side}_embeddings").positions
        most = MAX_TOKENS
        # Manifests of version 1 do not state the number.
        if positions.kind == POSITION_KIND_LEARNED and positions.num_positions:
            most = min(most, positions.num_positions - positions.offset)
        if not 1 <= getattr(manifest.limits, name) <= most:
            yield f"limits.{name} must be between 1 and {most}"


def token_problems(
    part: str, manifest: bundle_pb2.Manifest, required: Sequence[str], vocab_size: int
) -> Iterator[str]:
    """Problems of the special tokens ``part`` of a manifest."""
    special_tokens: bundle_pb2.SpecialTokens = getattr(manifest, part)
    for name in required:
        if not special_tokens.HasField(name):  # type: ignore[arg-type]
            yield f"{part}.{name} is missing"
    for field, token_id in special_tokens.ListFields():
        if token_id >= vocab_size:
            yield f"{part}.{field.name} is outside the vocabulary"


def graph_problems(manifest: bundle_pb2.Manifest, required: Sequence[str]) -> Iterator[str]:
    """Problems of the graphs that each precision must have."""
    for precision in manifest.precisions:
        for graph in required:
            if not precision.HasField(graph):  # type: ignore[arg-type]
                yield f"the {precision.name} precision has no graph {graph}"


def length_penalty_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    """Problems of the default length penalty."""
    if not 0 <= manifest.decoding.length_penalty <= MAX_LENGTH_PENALTY:  # also NaN
        yield f"decoding.length_penalty must be between 0 and {MAX_LENGTH_PENALTY}"
