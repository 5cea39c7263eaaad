"""The rules that a manifest must keep, beyond the form that `parse_manifest` checks.

Nothing in a manifest is believed before it was checked: names, paths, sizes, signatures.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from attendant.v1 import bundle_pb2, embedding_pb2
from attendant_manifest import MANIFEST_VERSION

MANIFEST_NAME = "manifest.json"
MAX_TOKENS = 65_536
"""Largest limit of tokens that a manifest may give; memory is taken for that many."""
MAX_DIMENSION = 65_536
"""Largest size of a dimension of a state."""
MAX_STEP_TOKENS = 16
"""Most tokens that one run of a step may decode."""
PRECISIONS = ("fp32", "int8", "fp16")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,99}")

_PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TRANSLATION_TOKENS = ("pad_id", "eos_id", "unk_id")
_EMBEDDING_TOKENS = ("pad_id", "cls_id", "sep_id", "unk_id")
_STEP_INPUTS = ("tokens", "lengths", "total_length", "source_lengths")
_STEP_OUTPUTS = ("candidate_ids", "candidate_log_probabilities")


def problems(manifest: bundle_pb2.Manifest, directory: Path) -> Iterator[str]:
    """Broken rules, in an order in which later checks may trust earlier ones."""
    if manifest.manifest_version != MANIFEST_VERSION:
        yield f"manifest_version {manifest.manifest_version} is not {MANIFEST_VERSION}"
    yield from _name_problems(manifest, directory)
    yield from _file_problems(manifest)
    if manifest.kind == bundle_pb2.MODEL_KIND_TRANSLATION:
        yield from _translation_problems(manifest)
    elif manifest.kind == bundle_pb2.MODEL_KIND_EMBEDDING:
        yield from _embedding_problems(manifest)
    else:
        yield "kind is missing"
    yield from _reference_problems(manifest)
    yield from _unsupported_fields(manifest)


def _unsupported_fields(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    """Fields that change outputs and that this server does not apply: ignoring them is wrong."""
    defaults = ("beam_size", "length_penalty", "max_output_ratio")
    for part, names in (
        (manifest.decoding, ("forced_token_ids", *defaults)),
        (manifest.embedding, ("prompts", "default_prompt")),
        (manifest.text_normalization, ("unicode_form", "removes_invisible")),
    ):
        present = {field.name for field, _ in part.ListFields()}
        for name in names:
            if name in present:
                yield f"{name} is set, which this version of the server does not apply"


def _name_problems(manifest: bundle_pb2.Manifest, directory: Path) -> Iterator[str]:
    if not NAME.fullmatch(manifest.name):
        yield "name has other characters than lower-case letters, digits and hyphens"
    if not VERSION.fullmatch(manifest.version):
        yield "version has other characters than letters, digits, dots and hyphens"
    if (manifest.name, manifest.version) != (directory.parent.name, directory.name):
        folder = f"{directory.parent.name}/{directory.name}"
        yield f"name and version must be those of the folder, {folder}"


def _file_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    seen: set[str] = set()
    for file in manifest.files:
        if not all(_PATH_PART.fullmatch(part) for part in file.path.split("/")):
            yield f"files: the path {file.path!r} is not a plain path inside the bundle"
        if file.path in seen or file.path == MANIFEST_NAME:
            yield f"files: {file.path} is listed twice or is the manifest itself"
        if not _SHA256.fullmatch(file.sha256):
            yield f"files: sha256 of {file.path} is not 64 lower-case hexadecimal digits"
        seen.add(file.path)
    names = [precision.name for precision in manifest.precisions]
    if not names or len(set(names)) != len(names) or not set(names) <= set(PRECISIONS):
        yield f"precisions must have one or more of {', '.join(PRECISIONS)}, each once"


def _translation_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    architecture = manifest.architecture
    for name in ("source_embeddings", "target_embeddings", "encoder", "decoder"):
        if not architecture.HasField(name):
            yield f"architecture.{name} is missing"
    vocab_size = architecture.target_embeddings.vocab_size
    yield from _token_problems(manifest, _TRANSLATION_TOKENS, vocab_size)
    if not manifest.HasField("decoding"):
        yield "decoding is missing"
    for name in ("start_token_id", "suppressed_token_ids"):
        value = getattr(manifest.decoding, name)
        if max([value] if isinstance(value, int) else [*value, 0]) >= vocab_size:
            yield f"decoding.{name} is outside the vocabulary"
    yield from _limit_problems(manifest, ("max_source_tokens", "max_target_tokens"))
    for name in ("source_languages", "target_languages"):
        if not getattr(manifest, name):
            yield f"{name} is empty"
    if not manifest.target_tokenizer:
        yield "target_tokenizer is missing"
    yield from _graph_problems(manifest, ("encoder", "scorer"))
    for precision in manifest.precisions:
        for problem in _steps_problems(precision):
            yield f"the {precision.name} precision: {problem}"


def _steps_problems(precision: bundle_pb2.PrecisionGraphs) -> Iterator[str]:
    steps = precision.steps
    names = [step.name for step in steps]
    if not all(names) or len(set(names)) != len(names):
        yield "steps must have names, each once"
    for step in steps:
        for problem in _step_problems(step, precision):
            yield f"step {step.name}: {problem}"
    general = [s for s in steps if not s.rows_per_sentence and not s.inputs.shortlist]
    if not general:
        yield "no step takes sentences of any number of rows without a shortlist"
    if len({_states_key(step) for step in steps}) > 1:
        yield "all steps must have the same states"
    takes_shortlist = any(step.inputs.shortlist for step in steps)
    if takes_shortlist and precision.shortlist_output not in precision.encoder.outputs:
        yield "shortlist_output is not an output of the encoder"


def _states_key(step: bundle_pb2.StepGraph) -> tuple[object, ...]:
    return tuple(
        (state.owner, state.type, tuple(state.shape), state.encoder_output) for state in step.states
    )


def _step_problems(
    step: bundle_pb2.StepGraph, precision: bundle_pb2.PrecisionGraphs
) -> Iterator[str]:
    if not 1 <= step.num_tokens <= MAX_STEP_TOKENS:
        yield f"num_tokens must be between 1 and {MAX_STEP_TOKENS}"
    if len(step.inputs.token_biases) != step.num_tokens:
        yield "token_biases must have an entry for each of num_tokens"
    if step.rows_per_sentence not in (0, 1):
        yield "rows_per_sentence must be 0 or 1"
    if step.num_tokens == 1 and not step.inputs.num_candidates:
        yield "inputs.num_candidates is missing"
    if step.num_tokens > 1 and step.rows_per_sentence != 1:
        yield "a step of several tokens must have rows_per_sentence 1"
    if bool(step.inputs.shortlist) != bool(step.inputs.may_use):
        yield "inputs.shortlist and inputs.may_use belong together"
    for part, names in ((step.inputs, _STEP_INPUTS), (step.outputs, _STEP_OUTPUTS)):
        for name in names:
            if not getattr(part, name):
                yield f"{name} is missing"
    yield from _interface_problems(step)
    for state in step.states:
        for problem in _state_problems(state, precision):
            yield f"state {state.input}: {problem}"


def _interface_problems(step: bundle_pb2.StepGraph) -> Iterator[str]:
    """Names of the signature that the graph does not have."""
    inputs = [value for _, value in step.inputs.ListFields() if isinstance(value, str)]
    inputs += [name for bias in step.inputs.token_biases for name in (bias.positions, bias.values)]
    inputs += [state.input for state in step.states]
    outputs = [value for _, value in step.outputs.ListFields()]
    outputs += [name for state in step.states for name in state.outputs]
    missing = [*set(inputs) - set(step.graph.inputs), *set(outputs) - set(step.graph.outputs)]
    for name in sorted(missing):
        yield f"the graph has no {name!r}"


def _state_problems(
    state: bundle_pb2.StateTensor, precision: bundle_pb2.PrecisionGraphs
) -> Iterator[str]:
    if state.update != bundle_pb2.STATE_UPDATE_GROWS:
        yield "this server runs states that grow, no others"
    if state.type not in (embedding_pb2.DATA_TYPE_FLOAT32, embedding_pb2.DATA_TYPE_FLOAT16):
        yield "type must be DATA_TYPE_FLOAT32 or DATA_TYPE_FLOAT16"
    heads_positions_width = list(state.shape)
    if len(heads_positions_width) != 3 or heads_positions_width[1] != 0:
        yield "shape must be [heads, 0, width]"
    elif not all(1 <= size <= MAX_DIMENSION for size in heads_positions_width[::2]):
        yield f"sizes in shape must be between 1 and {MAX_DIMENSION}"
    if state.owner == bundle_pb2.STATE_OWNER_SOURCE:
        if state.encoder_output not in precision.encoder.outputs:
            yield "encoder_output is not an output of the encoder"
    elif state.owner != bundle_pb2.STATE_OWNER_ROW:
        yield "owner is missing"


def _embedding_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    for name in ("source_embeddings", "encoder"):
        if not manifest.architecture.HasField(name):
            yield f"architecture.{name} is missing"
    vocab_size = manifest.architecture.source_embeddings.vocab_size
    yield from _token_problems(manifest, _EMBEDDING_TOKENS, vocab_size)
    yield from _limit_problems(manifest, ("max_tokens",))
    if manifest.embedding.pooling == embedding_pb2.POOLING_UNSPECIFIED:
        yield "embedding.pooling is missing"
    elif manifest.embedding.pooling not in embedding_pb2.Pooling.values():
        yield f"embedding.pooling has no value {manifest.embedding.pooling}"
    yield from _graph_problems(manifest, ("embedder",))
    with_head = [p for p in manifest.precisions if p.HasField("mlm_head")]
    if with_head and not manifest.special_tokens.HasField("mask_id"):
        yield "special_tokens.mask_id is missing, but there is an mlm_head"


def _limit_problems(manifest: bundle_pb2.Manifest, required: Sequence[str]) -> Iterator[str]:
    for name in required:
        if not 1 <= getattr(manifest.limits, name) <= MAX_TOKENS:
            yield f"limits.{name} must be between 1 and {MAX_TOKENS}"


def _token_problems(
    manifest: bundle_pb2.Manifest, required: Sequence[str], vocab_size: int
) -> Iterator[str]:
    for name in required:
        if not manifest.special_tokens.HasField(name):  # type: ignore[arg-type]
            yield f"special_tokens.{name} is missing"
    for field, token_id in manifest.special_tokens.ListFields():
        if token_id >= vocab_size:
            yield f"special_tokens.{field.name} is outside the vocabulary"


def _graph_problems(manifest: bundle_pb2.Manifest, required: Sequence[str]) -> Iterator[str]:
    for precision in manifest.precisions:
        for graph in required:
            if not precision.HasField(graph):  # type: ignore[arg-type]
                yield f"the {precision.name} precision has no graph {graph}"


def _reference_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    listed = {file.path for file in manifest.files}
    for path in _referred_paths(manifest):
        if path not in listed:
            yield f"{path!r} is used but not among files"


def _referred_paths(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    yield manifest.source_tokenizer
    if manifest.target_tokenizer:
        yield manifest.target_tokenizer
    if manifest.reference_outputs:
        yield manifest.reference_outputs
    for precision in manifest.precisions:
        yield from precision.weights
        yield from (step.graph.path for step in precision.steps)
        for _, value in precision.ListFields():
            if isinstance(value, bundle_pb2.Graph):
                yield value.path
