"""The rules for parts of manifests of translation models; `rules` has the others."""

import re
from collections.abc import Iterator

import attendant_glossaries as glossaries
from attendant.v1 import bundle_pb2

from attendant_manifest.sizes import num_source_heads
from attendant_manifest.special_tokens import target_tokens

REPETITION_PENALTIES = 0.01, 100
"""The smallest and the largest repetition penalty."""
CONTROL_NAME = re.compile(r"[a-z][a-z0-9_-]{0,99}")
"""Names of controls and of their values."""
MAX_CONTROLS, MAX_CONTROL_VALUES = 32, 256
MAX_GLOSSARIES = 100


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


def glossary_path(name: str) -> str:
    """The path of a glossary in its bundle."""
    return f"glossaries/{name}{glossaries.SUFFIX}"


def glossary_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    """Problems of names and sizes of glossaries; the content of their files is not checked."""
    names = list(manifest.glossaries)
    paths = set(map(glossary_path, names))
    if not all(map(glossaries.NAME.fullmatch, names)):
        yield "glossaries has a name that breaks the rules for names"
    if len(set(names)) < len(names) or len(names) > MAX_GLOSSARIES:
        yield f"glossaries must have at most {MAX_GLOSSARIES} names, and none twice"
    if names and not manifest.HasField("alignment"):
        yield "alignment is missing, but there are glossaries"
    for file in manifest.files:
        if file.path in paths and file.size_bytes > glossaries.MAX_FILE_BYTES:
            yield (
                f"files: {file.path} must have at most {glossaries.MAX_FILE_BYTES} bytes, "
                f"got {file.size_bytes}"
            )


def _num_heads(manifest: bundle_pb2.Manifest, layer: int) -> int:
    """Number of heads by which a decoder layer attends to the source, 0 if there are none."""
    for group in manifest.architecture.decoder.groups:
        if layer < group.num_layers:
            return num_source_heads(group)
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
    excluded = _excluded(manifest)
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


def control_problems(
    manifest: bundle_pb2.Manifest, source_size: int, target_size: int
) -> Iterator[str]:
    """Problems of controls, and of the tokens that choose their values."""
    controls = manifest.controls
    if len(controls) > MAX_CONTROLS:
        yield f"controls must have at most {MAX_CONTROLS}, not {len(controls)}"
    names = list(_control_name_problems(manifest))
    if names:  # other problems repeat the names
        yield from names
        return
    for control in controls:
        if not 1 <= len(control.values) <= MAX_CONTROL_VALUES:
            yield f"controls: {control.name} must have 1 to {MAX_CONTROL_VALUES} values"
        known = {"", *(value.name for value in control.values)}
        if control.default_value not in known:
            yield f"controls: the default value of {control.name} is not among its values"
        for value in control.values:
            yield from _value_problems(manifest, control.name, value, source_size, target_size)
    if controls and _num_forced_tokens(manifest) >= manifest.limits.max_target_tokens:
        yield "limits.max_target_tokens has no room beside the tokens that targets begin with"


def _control_name_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    groups = {"controls": [control.name for control in manifest.controls]}
    for i, control in enumerate(manifest.controls):
        groups[f"controls[{i}].values"] = [value.name for value in control.values]
    for field, names in groups.items():
        if not all(map(CONTROL_NAME.fullmatch, names)):
            yield f"{field} has a name that does not match {CONTROL_NAME.pattern}"
        if len(set(names)) < len(names):
            yield f"{field} has a name twice"


def _value_problems(
    manifest: bundle_pb2.Manifest,
    control: str,
    value: bundle_pb2.ControlValue,
    source_size: int,
    target_size: int,
) -> Iterator[str]:
    around = max((*value.source_prefix_ids, *value.source_suffix_ids), default=0)
    name = f"controls: {control}"
    if around >= source_size:
        yield f"{name}: a token id of {value.name} is outside the source vocabulary"
    if max(value.forced_target_ids, default=0) >= target_size:
        yield f"{name}: a token id of {value.name} is outside the target vocabulary"
    if not _excluded(manifest).isdisjoint(value.forced_target_ids):
        yield f"{name}: {value.name} forces EOS or a suppressed token"


def _num_forced_tokens(manifest: bundle_pb2.Manifest) -> int:
    """Largest number of tokens that a target must begin with."""
    languages = [language.forced_target_ids for language in manifest.target_languages]
    controls = [[v.forced_target_ids for v in control.values] for control in manifest.controls]
    longest = (max(map(len, choices), default=0) for choices in (languages, *controls))
    return len(manifest.decoding.forced_token_ids) + sum(longest)


def _excluded(manifest: bundle_pb2.Manifest) -> set[int]:
    """Tokens that no target can begin with."""
    return {*manifest.decoding.suppressed_token_ids, target_tokens(manifest).eos_id}
