"""Converts the manifest of a bundle to the application's description of a model."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attendant.v1 import bundle_pb2
from attendant.v1.architecture_pb2 import Architecture
from attendant_manifest.sizes import (
    embedding_sizes,
    language_model_sizes,
    num_layers,
    sparse_dimension,
    text_dimension,
    token_dimension,
    translation_sizes,
)
from attendant_manifest.special_tokens import target_tokens
from attendant_manifest.text_normalization import normalizes_texts
from google.protobuf import json_format
from google.protobuf.message import Message

from attendant_server.application.descriptions import (
    Control,
    ControlValue,
    Language,
    LateInteraction,
    ModelDescription,
    ModelKind,
    Pooling,
    ScoreFunction,
)
from attendant_server.bundles import Bundle

PUBLISHED = ("limits", "license", "credits", "provenance", "quality", "parity")
"""Fields of the manifest that callers can read, in addition to the sizes."""
SIZES: Mapping[ModelKind, tuple[str, Callable[[Architecture], Message]]] = {
    ModelKind.TRANSLATION: ("translation_sizes", translation_sizes),
    ModelKind.EMBEDDING: ("embedding_sizes", embedding_sizes),
    ModelKind.LANGUAGE_MODEL: ("language_model_sizes", language_model_sizes),
}
"""The field with the sizes of the models of each kind, and their function."""


def describe_model(bundle: Bundle) -> ModelDescription:
    """The description of a bundle's model."""
    manifest, special_tokens = bundle.manifest, bundle.manifest.special_tokens
    architecture, decoding = manifest.architecture, manifest.decoding
    kind = ModelKind(manifest.kind)
    return ModelDescription(
        name=manifest.name,
        version=manifest.version,
        kind=kind,
        precision=bundle.precision,
        available_precisions=tuple(precision.name for precision in manifest.precisions),
        description=manifest.description,
        source_languages=_languages(manifest.source_languages),
        target_languages=_languages(manifest.target_languages),
        controls=tuple(map(_control, manifest.controls)),
        languages=tuple(manifest.languages),
        max_source_tokens=manifest.limits.max_source_tokens,
        max_target_tokens=manifest.limits.max_target_tokens,
        max_tokens=manifest.limits.max_tokens,
        default_beam_size=decoding.beam_size or 1,
        default_length_penalty=(
            decoding.length_penalty if decoding.HasField("length_penalty") else 1.0
        ),
        early_stopping=decoding.early_stopping,
        no_repeat_ngram_size=decoding.no_repeat_ngram_size,
        repetition_penalty=decoding.repetition_penalty or 1.0,
        takes_repetition_penalties=all(
            step.inputs.HasField("repetition_penalty")
            for step in bundle.graphs.steps
            if not step.rows_per_sentence  # sentences with a penalty run in no other step
        ),
        default_min_output_tokens=decoding.min_output_tokens,
        suppressed_token_ids=tuple(decoding.suppressed_token_ids),
        forced_token_ids=tuple(decoding.forced_token_ids),
        d_model=architecture.d_model,
        text_dimension=text_dimension(architecture),
        token_dimension=token_dimension(architecture),
        sparse_dimension=sparse_dimension(architecture),
        default_max_active_dims=manifest.embedding.max_active_dims,
        late_interaction=_late_interaction(manifest),
        num_layers=num_layers(architecture.encoder),
        vocab_size=architecture.source_embeddings.vocab_size,
        mask_id=special_tokens.mask_id if special_tokens.HasField("mask_id") else None,
        has_mask_head=bundle.has_graph("mlm_head"),
        labels=tuple(manifest.classification.labels),
        score_function=ScoreFunction(manifest.classification.score_function or 1),
        default_pooling=_default_pooling(manifest),
        default_normalize=manifest.embedding.normalize,
        additional_poolings=tuple(map(Pooling, architecture.text_vectors.additional_poolings)),
        trained_dimensions=tuple(manifest.embedding.trained_dimensions),
        default_dimensions=manifest.embedding.default_dimensions,
        prompts=dict(manifest.embedding.prompts),
        default_prompt=manifest.embedding.default_prompt,
        excludes_prompt=architecture.text_vectors.excludes_prompt,
        can_align=manifest.HasField("alignment"),
        has_attention=bundle.has_graph("attention"),
        glossaries=tuple(manifest.glossaries),
        start_token_id=decoding.start_token_id if decoding.HasField("start_token_id") else None,
        eos_id=target_tokens(manifest).eos_id,
        repetition_guard=(
            kind is ModelKind.TRANSLATION and not manifest.provenance.HasField("imported_from")
        ),
        normalizes_texts=normalizes_texts(manifest),
        published=_published(manifest),
    )


def _languages(languages: Iterable[bundle_pb2.Language]) -> tuple[Language, ...]:
    return tuple(
        Language(
            language.tag,
            tuple(language.source_prefix_ids),
            tuple(language.source_suffix_ids),
            tuple(language.forced_target_ids),
        )
        for language in languages
    )


def _control(control: bundle_pb2.Control) -> Control:
    values = {
        value.name: ControlValue(
            value.name,
            tuple(value.source_prefix_ids),
            tuple(value.source_suffix_ids),
            tuple(value.forced_target_ids),
        )
        for value in control.values
    }
    return Control(control.name, control.description, values, control.default_value)


def _late_interaction(manifest: bundle_pb2.Manifest) -> LateInteraction | None:
    if not manifest.HasField("late_interaction"):
        return None
    part = manifest.late_interaction
    return LateInteraction(
        max_query_tokens=part.max_query_tokens,
        expands_queries=part.expands_queries,
        has_unattended_tokens=manifest.architecture.token_vectors.has_unattended_tokens,
        skipped_token_ids=frozenset(part.skipped_token_ids),
    )


def _default_pooling(manifest: bundle_pb2.Manifest) -> Pooling:
    is_embedding = manifest.kind == bundle_pb2.MODEL_KIND_EMBEDDING
    return Pooling(manifest.embedding.pooling) if is_embedding else Pooling.MEAN


def _published(manifest: bundle_pb2.Manifest) -> dict[str, Any]:
    name, sizes_of = SIZES[ModelKind(manifest.kind)]
    published = {name: _json_value(getattr(manifest, name)) for name in PUBLISHED}
    return published | {name: _json_value(sizes_of(manifest.architecture))}


def _json_value(value: Any) -> Any:
    if isinstance(value, Message):
        return json_format.MessageToDict(value, preserving_proto_field_name=True)
    if isinstance(value, str):
        return value
    return [_json_value(item) for item in value]
