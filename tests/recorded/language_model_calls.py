"""Calls of LanguageModelService."""

from collections.abc import Iterator, Sequence
from typing import Any

from attendant.v1.text_pb2 import (
    OFFSET_UNIT_UTF8_BYTES,
    OFFSET_UNIT_UTF16_UNITS,
    TRUNCATION_LEFT,
    TRUNCATION_RIGHT,
)
from attendant.v1.translation_pb2 import Sampling

from tests.recorded.call import Call, generate, score_texts, stream_generate
from tests.recorded.texts import LONG

FEW: dict[str, Any] = {"max_output_tokens": 8}
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beam 3, all hypotheses": {"beam_size": 3, "num_hypotheses": 3, "length_penalty": 0.6},
    "beam 4, patience": {"beam_size": 4, "patience": 2.0},
    "diverse beams": {"beam_size": 4, "num_beam_groups": 2, "diversity_penalty": 0.7},
    "at least 6 tokens": {"min_output_tokens": 6},
    "no repeated 2-grams": {"no_repeat_ngram_size": 2},
    "a repetition penalty": {"repetition_penalty": 1.3},
    "with the guard": {"repetition_guard": True},
    "without two tokens": {"suppressed_token_ids": [5], "suppressed_texts": ["e"]},
    "samples": {
        "num_hypotheses": 2,
        "sampling": Sampling(
            temperature=0.8, top_k=20, top_p=0.9, min_p=0.01, seed=7, first_index=1
        ),
    },
}


def generate_calls(model: str, prompts: Sequence[str]) -> Iterator[Call]:
    """Searches and samples, limits, and special tokens in prompts."""
    for name, options in SEARCHES.items():
        yield generate(name, prompts[:1], model, **(FEW | options))
    yield generate("several prompts", prompts, model, return_tokens=False, **FEW)
    yield generate("no options", prompts[:1], model)
    yield generate("an empty prompt", [""], model, **FEW)
    yield generate("special tokens in a prompt", ["a</s>b"], model, **FEW)
    yield generate(
        "special tokens that are read", ["a</s>b"], model, reads_special_tokens=True, **FEW
    )
    yield generate("a prompt that is too long", [LONG], model, **FEW)
    for name, side in {"left": TRUNCATION_LEFT, "right": TRUNCATION_RIGHT}.items():
        yield generate(f"truncation {name}", [LONG], model, truncation=side, **FEW)


def stop_calls(model: str, prompt: str, stop_texts: Sequence[str]) -> Iterator[Call]:
    """The same stop texts for a whole and a streamed continuation."""
    yield generate("stop texts", [prompt], model, stop_texts=stop_texts)
    yield stream_generate("stop texts", prompt, model, stop_texts=stop_texts)


def stream_generate_calls(model: str, prompt: str) -> Iterator[Call]:
    """All kinds of searches, and a prompt that is too long."""
    for name, options in SEARCHES.items():
        yield stream_generate(name, prompt, model, **(FEW | options))
    yield stream_generate("truncation left", LONG, model, truncation=TRUNCATION_LEFT, **FEW)
    yield stream_generate("a prompt that is too long", LONG, model, **FEW)
    yield stream_generate(
        "special tokens that are read", "a</s>b", model, reads_special_tokens=True, **FEW
    )


def score_text_calls(model: str, texts: Sequence[str]) -> Iterator[Call]:
    """Scores with and without tokens and the end, and faults of texts."""
    yield score_texts("several texts", texts, model)
    yield score_texts("tokens", texts[:1], model, return_tokens=True)
    yield score_texts("tokens and the end", texts[:1], model, return_tokens=True, scores_end=True)
    yield score_texts("an empty text and a long one", ["", LONG], model)
    yield score_texts("special tokens", ["a</s>b"], model, reads_special_tokens=True)
    for name, unit in {"bytes": OFFSET_UNIT_UTF8_BYTES, "UTF-16": OFFSET_UNIT_UTF16_UNITS}.items():
        text = "\u00e4 \U0001f436"
        yield score_texts(f"offsets in {name}", [text], model, return_tokens=True, offset_unit=unit)


def bad_language_model_calls(model: str) -> Iterator[Call]:
    """Options and counts that fail whole calls."""
    yield generate("no prompts", [], model)
    yield score_texts("no texts", [], model)
    yield generate("another kind of model", ["a"], "nothing")
    bad: dict[str, dict[str, Any]] = {
        "no output tokens": {"max_output_tokens": 0},
        "more output tokens than the model has": {"max_output_tokens": 10_000},
        "an empty stop text": {"stop_texts": [""]},
        "too many stop texts": {"stop_texts": ["a"] * 17},
        "a beam of samples": {"beam_size": 2, "sampling": Sampling()},
    }
    for name, options in bad.items():
        yield generate(name, ["a"], model, **options)
