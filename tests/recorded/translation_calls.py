"""Valid calls of TranslationService."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attendant.v1.text_pb2 import (
    MARKUP_HTML,
    OFFSET_UNIT_UTF8_BYTES,
    OFFSET_UNIT_UTF16_UNITS,
    SPLITTING_LINES,
    SPLITTING_NONE,
    SPLITTING_SENTENCES,
    TEXT_NORMALIZATION_NONE,
    TEXT_NORMALIZATION_STANDARD,
    TRUNCATION_LEFT,
    TRUNCATION_REFUSE,
    TRUNCATION_RIGHT,
    TRUNCATION_UNSPECIFIED,
    OffsetUnit,
    Splitting,
    TextNormalization,
)
from attendant.v1.translation_pb2 import GlossaryEntry, Sampling

from tests.recorded.call import Call, bulk_translate, score, stream, tokenize, translate
from tests.recorded.texts import BLANK, LONG, ODD

TRUNCATIONS = {
    "unspecified": TRUNCATION_UNSPECIFIED,
    "refuse": TRUNCATION_REFUSE,
    "right": TRUNCATION_RIGHT,
    "left": TRUNCATION_LEFT,
}
SEARCHES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "greedy": {"beam_size": 1, "num_hypotheses": 1},
    "beam 2": {"beam_size": 2},
    "beam 3, all hypotheses": {"beam_size": 3, "num_hypotheses": 3},
    "beam 4": {"beam_size": 4},
    "beam 5, 2 hypotheses": {"beam_size": 5, "num_hypotheses": 2},
    "beam 8, all hypotheses": {"beam_size": 8, "num_hypotheses": 8},
    "greedy, length penalty 0": {"length_penalty": 0},
    "greedy, length penalty 0.6": {"length_penalty": 0.6},
    "beam 4, length penalty 0": {"beam_size": 4, "num_hypotheses": 2, "length_penalty": 0},
    "beam 4, length penalty 1": {"beam_size": 4, "num_hypotheses": 2, "length_penalty": 1},
    "beam 4, length penalty 2.5": {"beam_size": 4, "num_hypotheses": 2, "length_penalty": 2.5},
    "beam 4, length penalty 10": {"beam_size": 4, "num_hypotheses": 2, "length_penalty": 10},
    "greedy, smallest length penalty": {"length_penalty": 1e-45},
    "greedy, at most 1 token": {"max_output_tokens": 1},
    "greedy, at most 2 tokens": {"max_output_tokens": 2},
    "greedy, at most 5 tokens": {"max_output_tokens": 5},
    "beam 4, at most 1 token": {"beam_size": 4, "num_hypotheses": 4, "max_output_tokens": 1},
    "beam 4, at most 5 tokens": {"beam_size": 4, "num_hypotheses": 4, "max_output_tokens": 5},
    "greedy, at least 0 tokens": {"min_output_tokens": 0},
    "greedy, at least 1 token": {"min_output_tokens": 1},
    "greedy, at least 15 tokens": {"min_output_tokens": 15},
    "greedy, at least 40 tokens": {"min_output_tokens": 40},
    "greedy, exactly 7 tokens": {"min_output_tokens": 7, "max_output_tokens": 7},
    "beam 4, at least 15 tokens": {"beam_size": 4, "min_output_tokens": 15},
    "beam 2, exactly 12 tokens": {
        "beam_size": 2,
        "num_hypotheses": 2,
        "min_output_tokens": 12,
        "max_output_tokens": 12,
    },
    "beam 5, everything set": {
        "beam_size": 5,
        "num_hypotheses": 3,
        "length_penalty": 1.7,
        "min_output_tokens": 4,
        "max_output_tokens": 30,
    },
}
SEARCHES |= {
    "greedy, no bigram twice": {"no_repeat_ngram_size": 2, "repetition_penalty": 1},
    "beam 3, suppressed tokens": {
        "beam_size": 3,
        "suppressed_token_ids": [43, 80],
        "allow_unknown": False,
    },
    "greedy, unknown tokens replaced": {"replace_unknown": True},
    "greedy, suppressed text": {"suppressed_texts": ["."], "repetition_guard": False},
    "beam 4, patience 2": {"beam_size": 4, "num_hypotheses": 4, "patience": 2},
    "beam 4, coverage penalty 2": {"beam_size": 4, "coverage_penalty": 2},
    "4 beams in 2 groups": {"beam_size": 4, "num_hypotheses": 4, "num_beam_groups": 2},
    "4 groups, penalty 3": {
        "beam_size": 4,
        "num_hypotheses": 4,
        "num_beam_groups": 4,
        "diversity_penalty": 3,
    },
    "3 alternatives": {"num_hypotheses": 3, "return_alternatives": True},
    "2 alternatives, beam 2": {"num_hypotheses": 2, "beam_size": 2, "return_alternatives": True},
    "3 samples": {
        "num_hypotheses": 3,
        "max_output_tokens": 12,
        "sampling": Sampling(temperature=2, top_k=20, top_p=0.95, min_p=0.01, seed=5),
    },
    "3 samples of a later text": {
        "num_hypotheses": 3,
        "max_output_tokens": 12,
        "sampling": Sampling(
            temperature=2, top_k=20, top_p=0.95, min_p=0.01, seed=5, first_index=2
        ),
    },
}
SPLITTINGS = (SPLITTING_NONE, SPLITTING_LINES, SPLITTING_SENTENCES)
NORMALIZATIONS = (TEXT_NORMALIZATION_NONE, TEXT_NORMALIZATION_STANDARD)
FEW_SEARCHES = (
    "defaults",
    "beam 4",
    "beam 8, all hypotheses",
    "beam 4, length penalty 0",
    "greedy, at most 5 tokens",
    "greedy, at least 15 tokens",
    "beam 5, everything set",
    "3 samples",
)


def search_calls(model: str, texts: Sequence[str], searches: Sequence[str]) -> Iterator[Call]:
    """Each search for one text, and a few searches for several texts in one call."""
    for name in searches:
        yield translate(f"{model} {name}", texts[:1], model, **SEARCHES[name])
    yield translate(f"{model} greedy, {len(texts)} texts", texts, model)
    yield translate(f"{model} beam 4, {len(texts)} texts", texts, model, beam_size=4)
    yield translate(
        f"{model} without tokens", texts, model, beam_size=2, num_hypotheses=2, return_tokens=False
    )


def splitting_calls(model: str, texts: Sequence[str]) -> Iterator[Call]:
    """Texts of several sentences, split and normalized in every way."""
    several = [
        f"{texts[0]}  {texts[1]}\n\n{texts[0]}",
        f"😀 {ODD['decomposed accents']} https://a.bc",
    ]
    for splitting in SPLITTINGS:
        for normalization in NORMALIZATIONS:
            name = f"{model} {Splitting.Name(splitting)} {TextNormalization.Name(normalization)}"
            fields: dict[str, Any] = {
                "splitting": splitting,
                "text_normalization": normalization,
                "return_sentences": True,
            }
            yield translate(name, several, model, **fields)
            yield stream(name, several[0], model, **fields)
    pairs = [(text, text) for text in several]
    for normalization in NORMALIZATIONS:
        name = f"{model} {TextNormalization.Name(normalization)}"
        yield score(name, pairs, model, text_normalization=normalization)
        yield tokenize(name, several, model, text_normalization=normalization)
    for unit in (OFFSET_UNIT_UTF8_BYTES, OFFSET_UNIT_UTF16_UNITS):
        name = f"{model} {OffsetUnit.Name(unit)}"
        fields = {"offset_unit": unit, "return_sentences": True}
        yield translate(name, several, model, **fields)
        yield stream(name, several[1], model, **fields)
        yield score(name, pairs, model, offset_unit=unit)
        yield tokenize(name, several, model, offset_unit=unit)
    yield translate(f"{model} alignments", texts[:1], model, return_alignments=True)
    yield stream(f"{model} alignments", texts[0], model, return_alignments=True)
    yield score(f"{model} alignments", pairs[:1], model, return_alignments=True)
    entries = [GlossaryEntry(source=texts[0].split()[0], targets=[texts[0].split()[-1]])]
    yield translate(f"{model} glossary", texts[:1], model, glossary_entries=entries)
    yield stream(f"{model} glossary", texts[0], model, glossary_entries=entries)
    yield translate(f"{model} stored glossary", texts[:1], model, glossary="unknown")
    yield stream(f"{model} stored glossary", texts[0], model, glossary="unknown")
    yield translate(f"{model} markup", [f"<b>{texts[0]}</b>"], model, markup=MARKUP_HTML)
    for guard in (False, True):
        yield translate(f"{model} guard {guard}", texts[:1], model, repetition_guard=guard)


def mixed_calls(model: str, texts: Sequence[str]) -> Iterator[Call]:
    """Valid and invalid texts in one call, and more texts than run concurrently."""
    mixed = [texts[0], "", LONG, " ", texts[1], ODD["emoji"], texts[0]]
    yield translate(f"{model} mixed texts", mixed, model)
    yield translate(f"{model} mixed texts, beam 2", mixed, model, beam_size=2, num_hypotheses=2)
    yield translate(f"{model} only bad texts", ["", LONG], model)
    many = [*texts, *ODD.values()]
    yield translate(f"{model} more texts than run at a time", many, model, max_output_tokens=4)
    yield translate(
        f"{model} more rows than run at a time", many, model, beam_size=8, max_output_tokens=3
    )


def truncated_calls(model: str) -> Iterator[Call]:
    """A text over the limit with each kind of truncation."""
    for name, truncation in TRUNCATIONS.items():
        yield translate(
            f"{model} too long, truncation {name}",
            [LONG],
            model,
            truncation=truncation,
            max_output_tokens=12,
        )


def odd_calls(model: str, texts: Mapping[str, str]) -> Iterator[Call]:
    """Each unusual text in a call of its own, with default options."""
    for name, text in texts.items():
        yield translate(f"{model} {name}", [text], model)


def stream_calls(model: str, texts: Sequence[str]) -> Iterator[Call]:
    """Streams with several searches, and streams of unusual texts."""
    yield from few_stream_calls(model, texts[1])
    yield stream(f"{model} without tokens", texts[1], model, return_tokens=False)
    for name in ("lines", "decomposed accents", "two sentences", "punctuation", "emoji"):
        yield stream(f"{model} {name}", ODD[name], model)
    for name, truncation in TRUNCATIONS.items():
        yield stream(
            f"{model} too long, truncation {name}",
            LONG,
            model,
            truncation=truncation,
            beam_size=2,
            max_output_tokens=12,
        )
    for name, text in BLANK.items():
        yield stream(f"{model} {name}", text, model)


def prefix_calls(model: str, texts: Sequence[str], prefix: str) -> Iterator[Call]:
    """Beginnings of translations, good and bad ones."""
    for beam_size in (1, 4):
        options = {"beam_size": beam_size, "max_output_tokens": 24}
        prefixes = [prefix, "", "\u72ac"]
        name = f"{model} target prefixes, beam {beam_size}"
        yield translate(name, texts[:3], model, target_prefixes=prefixes, **options)
        name = f"{model} biased target prefixes, beam {beam_size}"
        biased = options | {"target_prefix_bias": 2}
        yield translate(name, texts[:2], model, target_prefixes=prefixes[:2], **biased)
        name = f"{model} target prefix, beam {beam_size}"
        yield stream(name, texts[0], model, target_prefix=prefix, **options)


def bulk_translate_calls(model: str, text: str) -> Iterator[Call]:
    """Streams with one good text, with faults and with bad settings."""
    yield bulk_translate(f"{model} one text", [("id 1", text)], model)
    yield bulk_translate(f"{model} blank texts", [("", ""), ("b", text), ("c", " ")], model)
    for name in FEW_SEARCHES:
        yield bulk_translate(f"{model} {name}", [("", text)], model, **SEARCHES[name])
    yield bulk_translate(f"{model} no texts", [], model)
    yield bulk_translate(f"{model} texts in the settings", [("", text)], model, texts=[text])
    prefixes = {"target_prefixes": ["Der"]}
    yield bulk_translate(f"{model} prefixes in the settings", [("", text)], model, **prefixes)
    yield bulk_translate(f"{model} a long id", [("", text), ("i" * 129, text)], model)
    yield bulk_translate("an unknown model", [("", text)], "nothing")


def few_stream_calls(model: str, text: str) -> Iterator[Call]:
    """Streams of one text with several searches."""
    for name in FEW_SEARCHES:
        yield stream(f"{model} {name}", text, model, **SEARCHES[name])


def score_calls(model: str, pairs: Sequence[tuple[str, str]]) -> Iterator[Call]:
    """Valid and invalid pairs with every option."""
    source, target = pairs[0]
    yield score(f"{model} one pair", pairs[:1], model)
    yield score(f"{model} {len(pairs)} pairs", pairs, model)
    yield score(f"{model} without tokens", pairs, model, return_tokens=False)
    for penalty in (0, 0.6, 1, 2.5, 10):
        yield score(f"{model} length penalty {penalty}", pairs[:2], model, length_penalty=penalty)
    for name, truncation in TRUNCATIONS.items():
        yield score(
            f"{model} too long, truncation {name}",
            [(LONG, target), (source, target)],
            model,
            truncation=truncation,
        )
    yield score(f"{model} target too long", [(source, LONG)], model, truncation=TRUNCATION_RIGHT)
    bad = [("", target), (source, ""), ("", ""), (source, " \n"), (source, target)]
    yield score(f"{model} blank sides", bad, model)
    yield score(f"{model} only bad pairs", bad[:2], model)
    yield score(f"{model} swapped pair", [(target, source)], model)


def odd_score_calls(model: str, source: str) -> Iterator[Call]:
    """Unusual texts as targets of one source, in one call."""
    yield score(f"{model} odd targets", [(source, text) for text in ODD.values()], model)


def control_calls(model: str, texts: Sequence[str]) -> Iterator[Call]:
    """Values of the controls of a model, and some that it lacks."""
    for controls in (
        {},
        {"tone": "plain"},
        {"tone": "warm"},
        {"tone": "cold", "opening": "fixed"},
        {"tone": ""},
        {"tone": "Warm"},
        {"formality": "formal"},
    ):
        name = ", ".join(f"{control} '{value}'" for control, value in controls.items())
        name = name or "no controls"
        for beam_size in (1, 4):
            yield translate(
                f"{name}, beam {beam_size}", texts, model, controls=controls, beam_size=beam_size
            )
        yield stream(name, texts[0], model, controls=controls)
        yield score(name, [(texts[0], texts[1])], model, controls=controls)


def language_calls(text: str) -> Iterator[Call]:
    """Languages with and without a model, for the built-in bundles."""
    for source, target in (
        ("", "de"),
        ("en", "fr"),
        ("DE-at", "en-GB"),
        ("en", ""),
        ("fr", "de"),
        ("", "d"),
        ("x" * 101, ""),
    ):
        languages = {"source_language": source, "target_language": target}
        name = f"from '{source[:20]}' to '{target}'"
        yield translate(name, [text], **languages)
        yield translate(f"{name} by en-de", [text], "en-de", **languages)
        yield stream(name, text, **languages)
        yield score(name, [(text, text)], **languages)
