"""The rules for the content of manifests; `parse_manifest` checks the form.

Nothing in a manifest is trusted before it is checked: names, paths, sizes, signatures. The exporter
does not write a manifest that breaks a rule, and the server does not load one.
"""

import re
from collections.abc import Iterator

from attendant.v1 import bundle_pb2, embedding_pb2

from attendant_manifest import MANIFEST_VERSION
from attendant_manifest.attention import attention_problems
from attendant_manifest.language_model_rules import language_model_problems
from attendant_manifest.part_rules import (
    graph_problems,
    length_penalty_problems,
    limit_problems,
    network_problems,
    token_problems,
)
from attendant_manifest.sizes import num_layers, text_dimension
from attendant_manifest.step_rules import steps_problems
from attendant_manifest.translation_rules import (
    alignment_problems,
    control_problems,
    glossary_path,
    glossary_problems,
    language_problems,
    repetition_problems,
)

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"
REPLACED_SUFFIX = ".replaced"
"""End of the hidden folder that holds a bundle while another takes its place: ``.1.replaced``."""
MAX_DIMENSION = 2**20
"""Largest dimension of the vectors of texts."""
PRECISIONS = ("fp32", "int8", "fp16")
MAX_LOG_PROBABILITY_BOUNDS = {"fp32": 1e-4, "fp16": 0.1, "int8": 0.5}
"""Largest bound by precision. A larger difference between batches is not a rounding error."""
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,99}")
PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
"""A part of a path between slashes. So a path never begins with a slash and has no ``..``."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TRANSLATION_TOKENS = ("pad_id", "eos_id", "unk_id")
_EMBEDDING_TOKENS = ("pad_id",)
_POOLED_OUTPUTS = ("mean_pooled", "cls_pooled", "max_pooled")
_ADDITIONAL_OUTPUTS = {
    embedding_pb2.POOLING_LAST: "last_pooled",
    embedding_pb2.POOLING_WEIGHTED_MEAN: "weighted_mean_pooled",
    embedding_pb2.POOLING_MEAN_SQRT_LENGTH: "mean_sqrt_length_pooled",
}


def problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    """Descriptions of all broken rules. Later checks rely on earlier checks."""
    if manifest.manifest_version != MANIFEST_VERSION:
        yield f"manifest_version {manifest.manifest_version} is not {MANIFEST_VERSION}"
    yield from _name_problems(manifest)
    yield from _file_problems(manifest)
    if manifest.kind == bundle_pb2.MODEL_KIND_TRANSLATION:
        yield from _translation_problems(manifest)
    elif manifest.kind == bundle_pb2.MODEL_KIND_EMBEDDING:
        yield from _embedding_problems(manifest)
    elif manifest.kind == bundle_pb2.MODEL_KIND_LANGUAGE_MODEL:
        yield from language_model_problems(manifest)
    else:
        yield "kind is missing"
    yield from attention_problems(manifest)
    yield from _reference_problems(manifest)
    yield from _parity_problems(manifest)


def _name_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    if not NAME.fullmatch(manifest.name):
        yield "name has other characters than lower-case letters, digits and hyphens"
    if not VERSION.fullmatch(manifest.version):
        yield "version has other characters than letters, digits, dots and hyphens"


def _file_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    seen: set[str] = set()
    for file in manifest.files:
        if not all(PATH_PART.fullmatch(part) for part in file.path.split("/")):
            yield f"files: the path {file.path!r} is not a plain path inside the bundle"
        if file.path in seen or file.path in (MANIFEST_NAME, SIGNATURE_NAME):
            yield f"files: {file.path} is listed twice, or is the manifest itself or its signature"
        if not _SHA256.fullmatch(file.sha256):
            yield f"files: sha256 of {file.path} is not 64 lower-case hexadecimal digits"
        seen.add(file.path)
    names = [precision.name for precision in manifest.precisions]
    if not names or len(set(names)) != len(names) or not set(names) <= set(PRECISIONS):
        yield f"precisions must have one or more of {', '.join(PRECISIONS)}, each once"


def _translation_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    architecture, decoding = manifest.architecture, manifest.decoding
    yield from network_problems(architecture, ("source", "target"))
    source_size = architecture.source_embeddings.vocab_size
    target_size = architecture.target_embeddings.vocab_size
    yield from token_problems("special_tokens", manifest, _TRANSLATION_TOKENS, source_size)
    has_own = manifest.HasField("target_special_tokens")
    part = "target_special_tokens" if has_own else "special_tokens"
    yield from token_problems(part, manifest, ("pad_id", "eos_id"), target_size)
    if not decoding.HasField("start_token_id"):
        yield "decoding.start_token_id is missing"
    token_ids = [
        decoding.start_token_id,
        *decoding.suppressed_token_ids,
        *decoding.forced_token_ids,
    ]
    if max(token_ids) >= target_size:
        yield "a token id in decoding is outside the vocabulary"
    yield from length_penalty_problems(manifest)
    yield from repetition_problems(manifest)
    yield from limit_problems(
        manifest, {"max_source_tokens": "source", "max_target_tokens": "target"}
    )
    yield from language_problems(manifest, source_size, target_size)
    yield from control_problems(manifest, source_size, target_size)
    if not manifest.target_tokenizer:
        yield "target_tokenizer is missing"
    yield from graph_problems(manifest, ("encoder", "scorer"))
    yield from alignment_problems(manifest)
    yield from glossary_problems(manifest)
    for precision in manifest.precisions:
        for problem in steps_problems(precision, has_sources=True):
            yield f"the {precision.name} precision: {problem}"


def _embedding_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    yield from network_problems(manifest.architecture, ("source",))
    vocab_size = manifest.architecture.source_embeddings.vocab_size
    yield from token_problems("special_tokens", manifest, _EMBEDDING_TOKENS, vocab_size)
    yield from limit_problems(manifest, {"max_tokens": "source"})
    if manifest.controls:
        yield "controls are for translation models"
    if manifest.glossaries:
        yield "glossaries are for translation models"
    defaults = manifest.embedding
    if defaults.pooling == embedding_pb2.POOLING_UNSPECIFIED:
        yield "embedding.pooling is missing"
    elif defaults.pooling not in embedding_pb2.Pooling.values():
        yield f"embedding.pooling has no value {defaults.pooling}"
    if defaults.default_prompt and defaults.default_prompt not in defaults.prompts:
        yield "embedding.default_prompt is not among embedding.prompts"
    yield from _dimension_problems(manifest)
    yield from _text_vector_problems(manifest)
    yield from _classification_problems(manifest)
    yield from _sparse_problems(manifest)
    yield from _late_interaction_problems(manifest)
    yield from graph_problems(manifest, ("embedder",))
    layers = range(num_layers(manifest.architecture.encoder) + 1)
    additional = manifest.architecture.text_vectors.additional_poolings
    outputs = {
        *(*_POOLED_OUTPUTS, *(_ADDITIONAL_OUTPUTS.get(pooling, "") for pooling in additional)),
        *(f"hidden_{layer}" for layer in layers),
        *(["label_scores"] if manifest.HasField("classification") else []),
        *(["token_vectors"] if manifest.architecture.HasField("token_vectors") else []),
    }
    for precision in manifest.precisions:
        if different := sorted(outputs ^ set(precision.embedder.outputs)):
            yield (
                f"the {precision.name} precision: the embedder's outputs differ from the expected "
                f"ones: {different[0]}"
            )
    with_head = [p for p in manifest.precisions if p.HasField("mlm_head")]
    if with_head and not manifest.special_tokens.HasField("mask_id"):
        yield "special_tokens.mask_id is missing, but there is an mlm_head"


def _dimension_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    found, most = manifest.embedding.trained_dimensions, text_dimension(manifest.architecture)
    if list(found) != sorted(set(found)) or any(not 1 <= each <= most for each in found):
        yield f"embedding.trained_dimensions must be ascending numbers from 1 to {most}"
    default = manifest.embedding.default_dimensions
    if default and default not in found:
        yield "embedding.default_dimensions is not one of embedding.trained_dimensions"


def _text_vector_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    part, defaults = manifest.architecture.text_vectors, manifest.embedding
    additional = part.additional_poolings
    if not set(additional) <= set(_ADDITIONAL_OUTPUTS) or len(set(additional)) < len(additional):
        yield "architecture.text_vectors.additional_poolings has an unknown or a repeated value"
    if defaults.pooling in _ADDITIONAL_OUTPUTS and defaults.pooling not in additional:
        yield "embedding.pooling is not among architecture.text_vectors.additional_poolings"
    if part.excluded_token_id >= manifest.architecture.source_embeddings.vocab_size:
        yield "architecture.text_vectors.excluded_token_id is outside the vocabulary"
    tokens = manifest.architecture.token_vectors
    if manifest.architecture.HasField("token_vectors") and not tokens.dense_layers:
        yield "architecture.token_vectors.dense_layers must have one or more"
    for name, layers in (("text", part.dense_layers), ("token", tokens.dense_layers)):
        if not all(1 <= dense.d_output <= MAX_DIMENSION for dense in layers):
            yield f"architecture.{name}_vectors: d_output must be between 1 and {MAX_DIMENSION}"
    if defaults.num_prompt_tokens:
        if not part.excludes_prompt or not defaults.default_prompt:
            yield "embedding.num_prompt_tokens is set without excludes_prompt and a default prompt"
        if defaults.num_prompt_tokens >= manifest.limits.max_tokens:
            yield "embedding.num_prompt_tokens must be less than limits.max_tokens"
    elif part.excludes_prompt and defaults.prompts.get(defaults.default_prompt):
        yield "embedding.num_prompt_tokens is missing for excludes_prompt and a default prompt"


def _classification_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    head, labels = manifest.architecture.classification_head, manifest.classification.labels
    if manifest.architecture.HasField("classification_head") != manifest.HasField("classification"):
        yield "classification and architecture.classification_head need each other"
    elif manifest.HasField("classification"):
        if not 1 <= head.num_labels <= MAX_DIMENSION or len(labels) != head.num_labels:
            yield "classification.labels must have one label for each score of the head"
        if not all(labels) or len(set(labels)) < len(labels):
            yield "classification.labels has an empty name or a name twice"
        function = manifest.classification.score_function
        if not function or function not in embedding_pb2.ScoreFunction.values():
            yield f"classification.score_function has no value {function}"


def _late_interaction_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    part, network = manifest.late_interaction, manifest.architecture
    has_unattended = network.token_vectors.has_unattended_tokens
    for precision in manifest.precisions:
        if has_unattended != ("attended_lengths" in precision.embedder.inputs):
            yield (
                f"the {precision.name} precision: the input attended_lengths of the embedder and "
                "architecture.token_vectors.has_unattended_tokens need each other"
            )
    if not manifest.HasField("late_interaction"):
        return
    if not network.HasField("token_vectors"):
        yield "late_interaction is set without architecture.token_vectors"
    if not 1 <= part.max_query_tokens <= manifest.limits.max_tokens:
        yield "late_interaction.max_query_tokens must be between 1 and limits.max_tokens"
    if part.expands_queries and not manifest.special_tokens.HasField("mask_id"):
        yield "special_tokens.mask_id is missing, but late_interaction.expands_queries is set"
    if max(part.skipped_token_ids, default=0) >= network.source_embeddings.vocab_size:
        yield "late_interaction.skipped_token_ids has an id outside the vocabulary"


def _sparse_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    network = manifest.architecture
    if not network.HasField("sparse_vectors"):
        if manifest.embedding.max_active_dims:
            yield "embedding.max_active_dims is set without architecture.sparse_vectors"
    elif not network.HasField("head"):
        yield "architecture.head is missing, but there are sparse_vectors"
    else:
        yield from graph_problems(manifest, ("sparse_head",))


def _reference_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    listed = {file.path for file in manifest.files}
    for path in _referred_paths(manifest):
        if path not in listed:
            yield f"{path!r} is used but not among files"


def _parity_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    for parity in manifest.parity.precisions:
        most = MAX_LOG_PROBABILITY_BOUNDS.get(parity.precision)
        if most is None:
            yield f"parity.precisions has an unknown precision {parity.precision!r}"
        elif not 0 <= parity.log_probability_bound <= most:  # also NaN
            yield (
                f"parity.precisions: log_probability_bound of {parity.precision} must be between 0 "
                f"and {most}"
            )


def _referred_paths(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    yield manifest.source_tokenizer
    if manifest.target_tokenizer:
        yield manifest.target_tokenizer
    if manifest.reference_outputs:
        yield manifest.reference_outputs
    yield from map(glossary_path, manifest.glossaries)
    for precision in manifest.precisions:
        yield from precision.weights
        yield from (step.graph.path for step in precision.steps)
        for _, value in precision.ListFields():
            if isinstance(value, bundle_pb2.Graph):
                yield value.path
