"""Describes manifests, and the figures in them, to people."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import (
    MODEL_KIND_TRANSLATION,
    CorpusParity,
    ImportSource,
    Manifest,
    ModelKind,
    OriginalParity,
    OriginalTranslations,
    PrecisionParity,
    Provenance,
    QualityFigure,
    SparseParity,
)
from attendant.v1.embedding_pb2 import ScoreFunction
from attendant.v1.text_pb2 import TextNormalization
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from attendant_export.bundle.controls import describe_control
from attendant_export.data.shortlists import WITH_SHORTLISTS
from attendant_export.verify.marian_original import WITHOUT_TOKENIZER


def describe_manifest(manifest: Manifest) -> str:
    """The manifest as readable text, one fact per line."""
    lines = [
        f"{manifest.name}/{manifest.version}: {manifest.description}",
        f"kind        {ModelKind.Name(manifest.kind).removeprefix('MODEL_KIND_').lower()}",
        f"languages   {_languages(manifest)}",
        *(f"control     {describe_control(control)}" for control in manifest.controls),
        f"license     {manifest.license}",
        *_architecture_lines(manifest.architecture),
        f"limits      {_fields(manifest.limits)}",
        f"tokens      {_fields(manifest.special_tokens)}",
        *_optional_lines(manifest),
        *([f"glossaries  {', '.join(manifest.glossaries)}"] if manifest.glossaries else []),
        *_origin_lines(manifest.provenance),
        *(f"data        {d.name} ({d.license})" for d in manifest.provenance.data),
        *_quality_lines(manifest),
        *_parity_lines(manifest),
        *_original_lines(manifest),
        *(f"file        {f.path} {f.size_bytes:,} bytes" for f in manifest.files),
    ]
    return "\n".join(lines)


def describe_origin(origin: ImportSource) -> str:
    """The source of an import and, if it has one, its revision."""
    return f"{origin.source}{origin.revision and f', revision {origin.revision}'}"


def _origin_lines(provenance: Provenance) -> Iterator[str]:
    """Lines on the training, or on the checkpoint that was imported."""
    if provenance.HasField("imported_from"):
        origin = provenance.imported_from
        yield (
            f"imported    from {describe_origin(origin)}, family {origin.family}, "
            f"{provenance.created}"
        )
        return
    yield f"trained     {provenance.recipe}"
    yield (
        f"            {provenance.training_seconds / 60:.0f} minutes on "
        f"{provenance.hardware or 'unknown hardware'}, seed {provenance.seed}, "
        f"exported {provenance.created}"
    )


def _languages(manifest: Manifest) -> str:
    if manifest.kind != MODEL_KIND_TRANSLATION:
        return ", ".join(manifest.languages) or "not stated"
    sources, targets = (
        ", ".join(language.tag for language in languages)
        for languages in (manifest.source_languages, manifest.target_languages)
    )
    return f"{sources} to {targets}"


def _optional_lines(manifest: Manifest) -> Iterator[str]:
    """Lines on decoding defaults, normalization and step signatures that the manifest has."""
    for name in ("target_special_tokens", "decoding", "embedding"):
        if manifest.HasField(name):
            yield f"{name.split('_')[0]:<11} {_fields(getattr(manifest, name))}"
    if manifest.text_normalization:
        name = TextNormalization.Name(manifest.text_normalization)
        yield f"texts       normalization {name.removeprefix('TEXT_NORMALIZATION_').lower()}"
    if manifest.HasField("classification"):
        part = manifest.classification
        function = ScoreFunction.Name(part.score_function).rpartition("_")[2].lower()
        yield f"labels      {', '.join(part.labels)}; scores are those of {function}"
    for step in manifest.precisions[0].steps:
        rows = step.rows_per_sentence or "any number of"
        yield f"step        {step.name}: {step.num_tokens} tokens a run, {rows} rows a sentence"


def _architecture_lines(architecture: Architecture) -> Iterator[str]:
    """One line for the width and one for each part of the network."""
    yield f"network     d_model {architecture.d_model}"
    for field, part in architecture.ListFields():
        if field.message_type is not None:
            yield f"            {field.name.replace('_', ' ')}: {_fields(part) or 'empty'}"


def _fields(message: Message) -> str:
    """Names and values of all fields; nested messages are in brackets."""
    return ", ".join(
        f"{field.name} {each}"
        for field, value in message.ListFields()
        for each in _values(field, value)
    )


def _values(field: FieldDescriptor, value: Any) -> Iterator[str]:
    """The values of a field. A map, such as that of prompts, is from names to texts."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        yield from (f"({name} {value[name]!r})" for name in sorted(value))
        return
    yield from (_value(field, each) for each in (value if field.is_repeated else [value]))


def _value(field: FieldDescriptor, value: Any) -> str:
    if field.message_type is not None:
        return f"({_fields(value)})"
    if field.enum_type is not None:
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", field.enum_type.name).upper() + "_"
        known = field.enum_type.values_by_number.get(value)
        return known.name.removeprefix(prefix).lower() if known is not None else str(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _quality_lines(manifest: Manifest) -> Sequence[str]:
    lines = []
    for q in manifest.quality:
        measured = ", ".join(filter(None, (q.precision, q.search, q.dataset)))
        lines.append(f"quality     {q.metric} {q.value:.4g} ({measured}){_carried_over(q)}")
    return lines


def _carried_over(
    figures: QualityFigure | PrecisionParity | CorpusParity | OriginalParity,
) -> str:
    return ", carried over from earlier graphs" if figures.is_carried_over else ""


def compared_corpora(parity: PrecisionParity) -> Iterator[tuple[str, CorpusParity]]:
    """The comparisons on whole corpora, each with the suffix "" or `WITH_SHORTLISTS`."""
    if parity.HasField("corpus"):
        yield "", parity.corpus
    if parity.HasField("shortlist_corpus"):
        yield WITH_SHORTLISTS, parity.shortlist_corpus


def describe_original(parity: OriginalParity) -> list[str]:
    """Sentences on the comparison with the original implementation."""
    compared = f"{parity.num_different_token_ids} of {parity.num_texts} texts have other token ids"
    if parity.implementation in (WITHOUT_TOKENIZER, "ctranslate2"):  # They have no tokenizer.
        compared = f"the token ids of {parity.num_texts} texts were translated"
    first = f"{parity.implementation} {parity.implementation_version}: {compared}"
    if parity.HasField("min_cosine"):
        first += (
            f"; the cosine of fp32 hidden states is at least {parity.min_cosine:.6f}, their "
            f"largest difference {parity.max_difference:.2g}"
        )
    return [
        first + _carried_over(parity),
        *(
            f"{each.precision}: cosine of {kind}: mean {each.embeddings.mean_cosine:.6f}, "
            f"least {each.embeddings.min_cosine:.6f}"
            for kind, found in (
                ("vectors", parity.vectors),
                ("vectors of tokens", parity.token_vectors),
            )
            for each in found
        ),
        *(f"{each.precision}: {_sparse_line(each.vectors)}" for each in parity.sparse_vectors),
        *(
            f"{each.precision}: scores of labels differ by at most {each.max_difference:.2g}; "
            f"the best label is the same for {each.num_same_best} of {each.num_texts} texts"
            for each in parity.label_scores
        ),
        *(line for each in parity.translations for line in _translation_lines(each)),
    ]


def _sparse_line(parity: SparseParity) -> str:
    return (
        f"cosine of sparse vectors: mean {parity.mean_cosine:.6f}, least {parity.min_cosine:.6f}; "
        f"{parity.same_top_share:.1%} of the greatest weights have the same tokens"
    )


def _translation_lines(parity: OriginalTranslations) -> Iterator[str]:
    states = ""
    if parity.HasField("max_encoder_difference"):
        states = f"keys and values differ by at most {parity.max_encoder_difference:.2g}, "
    yield (
        f"{parity.precision}: {states}log-probabilities "
        f"{'' if states else 'differ '}by at most {parity.max_log_probability_difference:.2g}"
    )
    for entry in parity.tokens:
        explained = entry.num_identical + entry.num_ties + entry.num_longer_searches
        longer = f", {entry.num_longer_searches} more by longer searches"
        yield (
            f"{parity.precision} {entry.search} {entry.batching}: "
            f"{entry.num_sentences - explained} of {entry.num_sentences} outputs have other "
            f"tokens, {entry.num_ties} more in ties"
            f"{longer if entry.num_longer_searches else ''}"
        )


def _original_lines(manifest: Manifest) -> Iterator[str]:
    if not manifest.provenance.HasField("imported_from"):
        return
    lines = ["not compared"]
    if manifest.parity.HasField("original"):
        lines = describe_original(manifest.parity.original)
    for line, name in zip(lines, ["original", *[""] * len(lines)], strict=False):
        yield f"{name:<11} {line}"


def _parity_lines(manifest: Manifest) -> Sequence[str]:
    lines = []
    for parity in manifest.parity.precisions:
        reference = parity.reference_precision
        model = f"the model{f' of the {reference} weights' if reference else ''}"
        if parity.HasField("log_probability_bound"):
            lines.append(
                f"parity      {parity.precision}: log-probabilities within "
                f"{parity.max_log_probability_difference:.2g} of {model}, "
                f"{parity.log_probability_bound:.2g} between batches{_carried_over(parity)}"
            )
        else:
            compared = f"compared with {model}"
            lines.append(f"parity      {parity.precision}: {compared}{_carried_over(parity)}")
        for entry in parity.tokens:
            cached = "cached" if entry.cached else "uncached"
            by = f" by {entry.step}" if entry.step else ""
            lines.append(
                f"            {entry.search} {entry.batching} {cached}{by}: "
                f"{entry.num_identical} of {entry.num_sentences} identical, {entry.num_ties} ties"
            )
        for how, corpus in compared_corpora(parity):
            lines.append(
                f"            BLEU {corpus.bleu:.2f}{how}, fp32 {corpus.fp32_bleu:.2f}, same text "
                f"{corpus.same_text_share:.1%} ({corpus.search}, {corpus.dataset})"
                f"{_carried_over(corpus)}"
            )
        if parity.HasField("embeddings"):
            vectors = parity.embeddings
            lines.append(
                f"            cosine to the model: mean {vectors.mean_cosine:.5f}, "
                f"least {vectors.min_cosine:.5f} of {vectors.num_texts} texts"
            )
        if parity.HasField("token_vectors"):
            vectors = parity.token_vectors
            lines.append(
                f"            cosine of vectors of tokens: mean {vectors.mean_cosine:.5f}, "
                f"least {vectors.min_cosine:.5f}"
            )
        if parity.HasField("sparse_vectors"):
            lines.append(f"            {_sparse_line(parity.sparse_vectors)}")
    return lines
