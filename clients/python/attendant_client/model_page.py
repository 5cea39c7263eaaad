"""The page that `attendant models MODEL` prints: the description of one model for people.

Knows results only. Quality and parity are shown for the precision that the server runs; `--json`
prints everything.
"""

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from attendant_client.model_results import Model, ModelInfo

WIDTH = 80
INDENT = 14
LIMITS = {
    "max_source_tokens": "source tokens",
    "max_target_tokens": "target tokens",
    "max_tokens": "tokens",
}
REQUEST_LIMITS = {
    "max_texts": "texts",
    "max_text_characters": "characters of one text",
    "max_beam_size": "beam size",
    "max_top_k": "top_k",
}


def model_page(model: Model) -> str:
    """Return the page, about a screen long, in lines of at most 80 characters where words allow."""
    info = model.info
    facts = [
        ("kind", ", ".join(filter(None, (info.kind, languages(info))))),
        ("state", info.state),
        ("precision", f"{info.precision}; the bundle has {', '.join(model.available_precisions)}"),
        ("text limits", _numbers(model.limits, LIMITS)),
        ("call limits", _numbers(model.request_limits, REQUEST_LIMITS)),
        ("sizes", ", ".join(f"{name} {size:,}" for name, size in model.sizes.items() if size)),
        *_labels(model),
        *_pooling(model),
        *([("aligns words", "yes")] if model.aligns_words else []),
        *_controls(model),
        *([("glossaries", ", ".join(model.glossaries))] if model.glossaries else []),
        *([("has attention", "yes")] if model.has_attention else []),
        *_quality(model),
        *_parity(model),
        *_training(model.provenance),
        ("license", model.license),
        *(("credit", credit) for credit in model.credits),
    ]
    title = [f"{info.name}/{info.version}", *textwrap.wrap(info.description, WIDTH), ""]
    return "\n".join([*title, *(line for fact in _named_once(facts) for line in _lines(*fact))])


def languages(info: ModelInfo) -> str:
    """Return the languages of a model, in one direction for a translation model."""
    if info.source_languages:
        return f"{', '.join(info.source_languages)} → {', '.join(info.target_languages)}"
    return ", ".join(info.languages)


def _numbers(limits: object, names: dict[str, str]) -> str:
    found = {shown: getattr(limits, name) for name, shown in names.items()}
    return ", ".join(f"{shown} {number:,}" for shown, number in found.items() if number)


def _pooling(model: Model) -> Iterator[tuple[str, str]]:
    if model.default_pooling:
        normalized = "normalized" if model.default_normalize else "not normalized"
        yield "vectors", f"{model.default_pooling} pooling, {normalized}, unless a call chooses"
    if model.additional_poolings:
        yield "vectors", f"other poolings: {', '.join(model.additional_poolings)}"
    if model.trained_dimensions:
        numbers = ", ".join(map(str, model.trained_dimensions))
        yield "vectors", f"also trained for dimensions: {numbers}"
    if model.default_dimensions is not None:
        yield "vectors", f"{model.default_dimensions} dimensions, unless a call chooses"
    for name, prompt in model.prompts.items():
        applied = ", before every text" if name == model.default_prompt else ""
        yield "prompts", f"{name} {prompt!r}{applied}"


def _labels(model: Model) -> Iterator[tuple[str, str]]:
    if model.labels:
        yield "labels", f"{', '.join(model.labels)}; the score function is {model.score_function}"


def _controls(model: Model) -> Iterator[tuple[str, str]]:
    for control in model.controls:
        default = f", {control.default_value} by default" if control.default_value else ""
        about = f": {control.description}" if control.description else ""
        yield "controls", f"{control.name}={'|'.join(control.values)}{default}{about}"


def _quality(model: Model) -> Iterator[tuple[str, str]]:
    figures = [f for f in model.quality if f.precision == model.info.precision]
    for dataset, group in groupby(figures, key=lambda figure: figure.dataset):
        yield "quality", f"on {dataset}:"
        for figure in group:
            search = f", {figure.search}" if figure.search else ""
            yield "quality", f"{figure.value:#.4g} {figure.metric}{search}"


def _parity(model: Model) -> Iterator[tuple[str, str]]:
    compared: Any = model.parity.get("precisions", [])
    for parity in compared:
        difference = parity.get("max_log_probability_difference")
        if parity["precision"] == model.info.precision and difference is not None:
            weights = parity.get("reference_precision")
            reference = f"the model's with {weights} weights" if weights else "the trained model's"
            yield "parity", f"log-probabilities within {difference:.2g} of {reference}"


def _training(provenance: Any) -> Iterator[tuple[str, str]]:
    if provenance.get("created"):
        yield "bundle", f"made {provenance['created']}, trained on {provenance['hardware']}"
    for data in provenance.get("data", []):
        yield "data", f"{data['name']} ({data['license']})"


def _named_once(facts: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Drop facts without a value, and repeated names of consecutive facts."""
    before = ""
    for name, text in facts:
        if text:
            yield ("" if name == before else name), text
            before = name


def _lines(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=name.ljust(INDENT),
        subsequent_indent=" " * INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
