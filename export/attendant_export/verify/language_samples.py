"""Texts in the languages of a model, to compare its translations with those of the original."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from attendant.v1.bundle_pb2 import Language, Manifest

MAX_LANGUAGES = 4
"""Maximum number of languages of each side; those of a model are taken at equal distances."""


class Sample(NamedTuple):
    """A text to translate from one language to another."""

    text: str
    token_ids: tuple[int, ...]
    """The tokens of the text and of its languages."""
    forced_ids: tuple[int, ...] = ()
    """The tokens that the translation begins with."""
    language_id: int | None = None
    """The token of the source language. None for a model without such tokens."""
    prefix_ids: tuple[int, ...] = ()
    """The tokens before the source that select the target language."""


def language_samples(manifest: Manifest, texts: Sequence[Mapping[str, Any]]) -> list[Sample]:
    """The reference texts of a bundle, by language, each in one of a few languages.

    Texts that are too long with the tokens of their languages are left out.
    """
    sources, targets = (
        [each[i * len(each) // MAX_LANGUAGES] for i in range(MAX_LANGUAGES)]
        for each in (manifest.source_languages, manifest.target_languages)
    )
    forced = tuple(manifest.decoding.forced_token_ids)
    samples = []
    for i, text in enumerate(texts):
        number = i * MAX_LANGUAGES // len(texts)
        source, target = sources[number], targets[number - 1]
        token_ids = with_languages(text["token_ids"], source, target)
        if len(token_ids) > manifest.limits.max_source_tokens:
            continue
        around = [*source.source_prefix_ids, *source.source_suffix_ids]
        samples.append(
            Sample(
                text["text"],
                token_ids,
                (*forced, *target.forced_target_ids),
                around[0] if around else None,
                tuple(target.source_prefix_ids),
            )
        )
    return samples


def with_languages(token_ids: Sequence[int], source: Language, target: Language) -> tuple[int, ...]:
    """The tokens of a text with those that its languages put around it."""
    return (
        *source.source_prefix_ids,
        *target.source_prefix_ids,
        *token_ids,
        *source.source_suffix_ids,
        *target.source_suffix_ids,
    )


def batches(samples: Iterable[Sample], size: int) -> list[list[Sample]]:
    """Neighbours with the same forced tokens, at most ``size`` together."""
    found = []
    for _, group in groupby(samples, lambda sample: sample.forced_ids):
        alike = list(group)
        found += [alike[i : i + size] for i in range(0, len(alike), size)]
    return found
