"""The rules for parts of manifests of translation models; `rules` has the others."""

from collections.abc import Iterator

from attendant.v1 import bundle_pb2

from attendant_manifest.special_tokens import target_tokens

REPETITION_PENALTIES = 0.01, 100
"""The smallest and the largest repetition penalty."""


def alignment_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    """Problems of the heads that align words."""
    heads = [(head.layer, head.head) for head in manifest.alignment.heads]
    has_alignment = manifest.HasField("alignment")
    for precision in manifest.precisions:
        if precision.HasField("aligner") != has_alignment:
            yield f"the {precision.name} precision: aligner and alignment need each other"
    if not has_alignment:
        return
    if not heads or len(set(heads)) < len(heads):
        yield "alignment.heads must have one or more, and none twice"
    if not all(head < _num_heads(manifest, layer) for layer, head in heads):
        yield "alignment.heads has a head that the decoder lacks"


def _num_heads(manifest: bundle_pb2.Manifest, layer: int) -> int:
    """Number of cross-attention heads of a decoder layer, 0 if there is no such layer."""
    for group in manifest.architecture.decoder.groups:
        if layer < group.num_layers:
            return group.cross_attention.num_heads
        layer -= group.num_layers
    return 0


def repetition_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    """Problems of repetition penalties."""
    penalty = manifest.decoding.repetition_penalty
    if not penalty:  # NaN is true
        return
    low, high = REPETITION_PENALTIES
    if not low <= penalty <= high:
        yield f"decoding.repetition_penalty must be between {low} and {high}"
    for precision in manifest.precisions:
        if precision.shortlist_output:
            yield f"the {precision.name} precision: shortlists have no repetition penalty"
        elif not all(
            step.inputs.HasField("repetition_penalty")
            for step in precision.steps
            if not step.rows_per_sentence
        ):
            yield f"the {precision.name} precision: a step has no inputs for repetition penalties"


def language_problems(
    manifest: bundle_pb2.Manifest, source_size: int, target_size: int
) -> Iterator[str]:
    """Problems of languages, and of the tokens that choose them."""
    excluded = {*manifest.decoding.suppressed_token_ids, target_tokens(manifest).eos_id}
    for name in ("source_languages", "target_languages"):
        languages = getattr(manifest, name)
        if not languages or not all(language.tag for language in languages):
            yield f"{name} must have one or more languages, each with its tag"
        if len({language.tag.lower() for language in languages}) < len(languages):
            yield f"{name} has a language twice"
        for language in languages:
            if max((*language.source_prefix_ids, *language.source_suffix_ids), default=0) >= (
                source_size
            ):
                yield f"{name}: a token id of {language.tag} is outside the source vocabulary"
            if max(language.forced_target_ids, default=0) >= target_size:
                yield f"{name}: a token id of {language.tag} is outside the target vocabulary"
            if not excluded.isdisjoint(language.forced_target_ids):
                yield f"{name}: {language.tag} forces EOS or a suppressed token"
    if not excluded.isdisjoint(manifest.decoding.forced_token_ids):
        yield "decoding.forced_token_ids has EOS or a suppressed token"
