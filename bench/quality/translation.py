"""Scores and faults of served translations, obtained through the client."""

from collections.abc import Mapping, Sequence
from typing import Any

import sacrebleu
from attendant_client import Client
from attendant_export.data.augmentation import casual_form

NUM_LONG_WORDS = 15


def bleu_and_chrf(
    hypotheses: Sequence[str], references: Sequence[list[str]]
) -> tuple[float, float]:
    """Corpus scores by sacreBLEU with all references of every sentence."""
    streams: Any = [
        [r[i] if i < len(r) else None for r in references] for i in range(max(map(len, references)))
    ]
    return (
        sacrebleu.corpus_bleu(hypotheses, streams).score,
        sacrebleu.corpus_chrf(hypotheses, streams).score,
    )


def is_looping(text: str) -> bool:
    """Whether a sequence of three or more words occurs three times in a row."""
    words = text.split()
    return any(
        words[i : i + n] == words[i + n : i + 2 * n] == words[i + 2 * n : i + 3 * n]
        for n in range(1, 6)
        for i in range(len(words) - 3 * n + 1)
    )


def translate(client: Client, texts: Sequence[str], beam_size: int, model: str) -> list[str]:
    """The translations of any number of texts."""
    return [each.text for each in client.translate(texts, beam_size=beam_size, model=model)]


def casual_references(references: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The references of each source in lower case without final punctuation.

    Sources that become the same have the references of all of them.
    """
    found: dict[str, list[str]] = {}
    for source, texts in references.items():
        found.setdefault(casual_form(source), []).extend(texts)
    return found


def measure_translation(
    client: Client, references: dict[str, list[str]], beam_size: int, model: str = ""
) -> dict[str, float]:
    """Scores and faults of the translations of all test sentences."""
    sources = list(references)
    hypotheses = translate(client, sources, beam_size, model)
    bleu, chrf = bleu_and_chrf(hypotheses, list(references.values()))
    long = [i for i, source in enumerate(sources) if len(source.split()) > NUM_LONG_WORDS]
    long_bleu, _ = bleu_and_chrf(
        [hypotheses[i] for i in long], [references[sources[i]] for i in long]
    )
    return {
        "bleu": bleu,
        "chrf": chrf,
        f"bleu_over_{NUM_LONG_WORDS}_words": long_bleu,
        f"num_sentences_over_{NUM_LONG_WORDS}_words": len(long),
        **count_faults(hypotheses),
    }


def count_faults(hypotheses: Sequence[str]) -> dict[str, float]:
    """Numbers of empty, of repetitive, and of all translations."""
    return {
        "num_empty": sum(not h.strip() for h in hypotheses),
        "num_looping": sum(map(is_looping, hypotheses)),
        "num_sentences": len(hypotheses),
    }
