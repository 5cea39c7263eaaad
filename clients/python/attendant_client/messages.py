"""Builds the requests of translation and tokenization. Knows no channel."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import grpc
from attendant.v1 import model_pb2, text_pb2, translation_pb2

from attendant_client import parsing, results
from attendant_client.calls import Call, TextCall, sendable
from attendant_client.errors import TextError
from attendant_client.options import (
    GlossaryEntries,
    Markup,
    OffsetUnit,
    Sampling,
    Side,
    Splitting,
    TextNormalization,
    Truncation,
)

Choice = TypeVar("Choice")

TRUNCATIONS: dict[str, text_pb2.Truncation.ValueType] = {
    "refuse": text_pb2.TRUNCATION_REFUSE,
    "right": text_pb2.TRUNCATION_RIGHT,
    "left": text_pb2.TRUNCATION_LEFT,
}
SPLITTINGS: dict[str | None, text_pb2.Splitting.ValueType] = {
    None: text_pb2.SPLITTING_UNSPECIFIED,
    "none": text_pb2.SPLITTING_NONE,
    "lines": text_pb2.SPLITTING_LINES,
    "sentences": text_pb2.SPLITTING_SENTENCES,
}
MARKUPS: dict[str | None, text_pb2.Markup.ValueType] = {
    None: text_pb2.MARKUP_UNSPECIFIED,
    "none": text_pb2.MARKUP_NONE,
    "html": text_pb2.MARKUP_HTML,
    "xml": text_pb2.MARKUP_XML,
}
NORMALIZATIONS: dict[str | None, text_pb2.TextNormalization.ValueType] = {
    None: text_pb2.TEXT_NORMALIZATION_UNSPECIFIED,
    "none": text_pb2.TEXT_NORMALIZATION_NONE,
    "standard": text_pb2.TEXT_NORMALIZATION_STANDARD,
}
OFFSET_UNITS: dict[str, text_pb2.OffsetUnit.ValueType] = {
    "code_points": text_pb2.OFFSET_UNIT_CODE_POINTS,
    "utf8_bytes": text_pb2.OFFSET_UNIT_UTF8_BYTES,
    "utf16_units": text_pb2.OFFSET_UNIT_UTF16_UNITS,
}
SIDES: dict[str, model_pb2.TextSide.ValueType] = {
    "source": model_pb2.TEXT_SIDE_SOURCE,
    "target": model_pb2.TEXT_SIDE_TARGET,
}


def sampling(options: Sampling | None, has_seed: bool = False) -> translation_pb2.Sampling | None:
    """The message of sampling options, None for a search; `has_seed`: with a seed in any case."""
    if options is None:
        return None
    message = translation_pb2.Sampling(**asdict(options))
    if has_seed and not message.HasField("seed"):
        message.seed = secrets.randbits(32)  # the same for all texts and attempts
    return message


def _glossary_entries(entries: GlossaryEntries) -> list[translation_pb2.GlossaryEntry]:
    return [
        translation_pb2.GlossaryEntry(
            source=source, targets=[targets] if isinstance(targets, str) else targets
        )
        for source, targets in entries.items()
    ]


def translate(
    texts: str | Sequence[str],
    options: translation_pb2.TranslateOptions,
    *,
    model: str,
    source_language: str,
    target_language: str,
    controls: Mapping[str, str] | None,
    glossary: str,
    glossary_entries: GlossaryEntries | None,
    splitting: Splitting | None,
    return_sentences: bool,
    return_alignments: bool,
    text_normalization: TextNormalization | None,
    offset_unit: OffsetUnit,
    truncation: Truncation,
    markup: Markup | None,
    target_prefix: str | Sequence[str] | None,
) -> TextCall[results.Translation]:
    """Build a Translate call. Raises ValueError for another number of prefixes than of texts."""
    sent, faults = sendable(text_list(texts))
    if len(sent) > 1 and options.HasField("sampling") and not options.sampling.HasField("seed"):
        options.sampling.seed = secrets.randbits(32)  # the same for all parts of a large call
    fields: tuple[str, ...] = ("texts",)
    prefixes: list[str] = []
    if target_prefix is not None:
        prefixes, prefix_faults = sendable(text_list(target_prefix))
        if len(prefixes) != len(sent):
            raise ValueError(f"target_prefix must be {len(sent)} texts, as many as texts")
        faults = of_side("target_prefix", prefix_faults) | faults
        fields = ("texts", "target_prefixes")
    request = translation_pb2.TranslateRequest(
        model=model,
        texts=sent,
        options=options,
        source_language=source_language,
        target_language=target_language,
        controls=controls,
        glossary=glossary,
        glossary_entries=_glossary_entries(glossary_entries or {}),
        splitting=chosen(SPLITTINGS, "splitting", splitting),
        return_sentences=return_sentences,
        return_alignments=return_alignments,
        offset_unit=chosen(OFFSET_UNITS, "offset_unit", offset_unit),
        text_normalization=chosen(NORMALIZATIONS, "text_normalization", text_normalization),
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
        markup=chosen(MARKUPS, "markup", markup),
        target_prefixes=prefixes,
    )
    return TextCall(
        "/attendant.v1.TranslationService/Translate",
        request,
        translation_pb2.TranslateResponse,
        parsing.translations,
        fields=fields,
        results_field="translations",
        faults=faults,
    )


def stream_translate(
    text: str,
    options: translation_pb2.TranslateOptions,
    *,
    model: str,
    source_language: str,
    target_language: str,
    controls: Mapping[str, str] | None,
    glossary: str,
    glossary_entries: GlossaryEntries | None,
    splitting: Splitting | None,
    return_sentences: bool,
    return_alignments: bool,
    text_normalization: TextNormalization | None,
    offset_unit: OffsetUnit,
    truncation: Truncation,
    target_prefix: str | None,
) -> Call[results.Translation | None]:
    """Build a StreamTranslate call. Only the last message parses to a Translation.

    Raises TextError for a text that cannot be sent.
    """
    (sent, prefix), faults = sendable([text, target_prefix or ""])
    for problem in faults.values():
        raise TextError(problem, grpc.StatusCode.INVALID_ARGUMENT)
    request = translation_pb2.StreamTranslateRequest(
        model=model,
        text=sent,
        options=options,
        source_language=source_language,
        target_language=target_language,
        controls=controls,
        glossary=glossary,
        glossary_entries=_glossary_entries(glossary_entries or {}),
        splitting=chosen(SPLITTINGS, "splitting", splitting),
        return_sentences=return_sentences,
        return_alignments=return_alignments,
        offset_unit=chosen(OFFSET_UNITS, "offset_unit", offset_unit),
        text_normalization=chosen(NORMALIZATIONS, "text_normalization", text_normalization),
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
        target_prefix=prefix,
    )
    return Call(
        "/attendant.v1.TranslationService/StreamTranslate",
        request,
        translation_pb2.StreamTranslateResponse,
        parsing.stream_end,
    )


def score(
    pairs: Sequence[tuple[str, str]],
    *,
    model: str,
    source_language: str,
    target_language: str,
    controls: Mapping[str, str] | None,
    length_penalty: float | None,
    return_tokens: bool,
    return_alignments: bool,
    text_normalization: TextNormalization | None,
    offset_unit: OffsetUnit,
    truncation: Truncation,
) -> TextCall[results.TranslationScore]:
    """Build a Score call."""
    sources, faults = sendable([source for source, _ in pairs])
    targets, target_faults = sendable([target for _, target in pairs])
    request = translation_pb2.ScoreRequest(
        model=model,
        pairs=[
            translation_pb2.TranslationPair(source=source, target=target)
            for source, target in zip(sources, targets, strict=True)
        ],
        length_penalty=length_penalty,
        return_tokens=return_tokens,
        return_alignments=return_alignments,
        offset_unit=chosen(OFFSET_UNITS, "offset_unit", offset_unit),
        text_normalization=chosen(NORMALIZATIONS, "text_normalization", text_normalization),
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
        source_language=source_language,
        target_language=target_language,
        controls=controls,
    )
    return TextCall(
        "/attendant.v1.TranslationService/Score",
        request,
        translation_pb2.ScoreResponse,
        parsing.scores,
        fields=("pairs",),
        results_field="scores",
        faults=of_side("target", target_faults) | of_side("source", faults),
    )


def tokenize(
    texts: str | Sequence[str],
    *,
    model: str,
    side: Side,
    text_normalization: TextNormalization | None,
    offset_unit: OffsetUnit,
) -> TextCall[results.Tokenization]:
    """Build a Tokenize call."""
    sent, faults = sendable(text_list(texts))
    request = model_pb2.TokenizeRequest(
        model=model,
        texts=sent,
        side=chosen(SIDES, "side", side),
        offset_unit=chosen(OFFSET_UNITS, "offset_unit", offset_unit),
        text_normalization=chosen(NORMALIZATIONS, "text_normalization", text_normalization),
    )
    return TextCall(
        "/attendant.v1.ModelService/Tokenize",
        request,
        model_pb2.TokenizeResponse,
        parsing.tokenizations,
        faults=faults,
    )


def one_or_all(texts: str | Sequence[str], all_results: results.Results[Any]) -> Any:
    """Return the only result if the texts were one string, else all of them."""
    return all_results[0] if isinstance(texts, str) else all_results


def text_list(texts: str | Sequence[str]) -> list[str]:
    """Return the texts as a list; one string is one text."""
    return [texts] if isinstance(texts, str) else list(texts)


def chosen(choices: dict[Any, Choice], name: str, value: object) -> Choice:
    """Return what an option stands for. Raises ValueError for an unknown value."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}, not {value!r}")
    return choices[value]


def of_side(name: str, faults: dict[int, str]) -> dict[int, str]:
    """Return the problems of texts with the name of their side of a pair before them."""
    return {index: f"{name}: {problem}" for index, problem in faults.items()}
