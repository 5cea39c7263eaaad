"""The rules for manifests of causal language models; `rules` has those for all kinds."""

from collections.abc import Iterator

from attendant.v1 import bundle_pb2

from attendant_manifest.part_rules import (
    graph_problems,
    length_penalty_problems,
    limit_problems,
    network_problems,
    token_problems,
)
from attendant_manifest.step_rules import steps_problems
from attendant_manifest.translation_rules import repetition_problems

_TRANSLATION_FIELDS = (
    *("target_tokenizer", "target_special_tokens", "source_languages", "target_languages"),
    *("controls", "glossaries", "alignment"),
)
_UNUSED_PARTS = ("source_embeddings", "shares_embeddings", "encoder")


def language_model_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    """Descriptions of all broken rules that only language models have."""
    network = manifest.architecture
    stated = {field.name for field, _ in manifest.ListFields()}
    for name in _TRANSLATION_FIELDS:
        if name in stated:
            yield f"{name} is for translation models"
    parts = {field.name for field, _ in network.ListFields()}
    for name in _UNUSED_PARTS:
        if name in parts:
            yield f"architecture.{name} is not for a language model"
    if "head" not in parts:
        yield "architecture.head is missing"
    for group in network.decoder.groups:
        if group.HasField("cross_attention") or not group.HasField("self_attention"):
            yield "architecture.decoder must have layers with self-attention alone"
    yield from network_problems(network, ("target",))
    vocab_size = network.target_embeddings.vocab_size
    yield from token_problems("special_tokens", manifest, ("pad_id", "eos_id"), vocab_size)
    yield from limit_problems(manifest, {"max_tokens": "target"})
    yield from _decoding_problems(manifest, vocab_size)
    yield from graph_problems(manifest, ("encoder", "scorer"))
    for precision in manifest.precisions:
        if precision.HasField("aligner"):
            yield f"the {precision.name} precision: aligner is for translation models"
        for problem in steps_problems(precision, has_sources=False):
            yield f"the {precision.name} precision: {problem}"


def _decoding_problems(manifest: bundle_pb2.Manifest, vocab_size: int) -> Iterator[str]:
    decoding = manifest.decoding
    if decoding.forced_token_ids:
        yield "decoding.forced_token_ids is for translation models"
    if max((decoding.start_token_id, *decoding.suppressed_token_ids)) >= vocab_size:
        yield "a token id in decoding is outside the vocabulary"
    yield from length_penalty_problems(manifest)
    yield from repetition_problems(manifest)
