"""The quality of translations, measured through the same servers as their speed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from bench.quality.translation import bleu_and_chrf
from bench.texts import sample_texts, tatoeba_sentences

NUM_TEXTS = 300


def wanted_translations(data_dir: Path, tokenizer: Path, copies: bool) -> dict[str, list[str]]:
    """Random sentences of the Tatoeba test with their references.

    For a copying model, the reference is the sentence itself after a round trip of the tokenizer.
    """
    sources = sample_texts(data_dir, "short", NUM_TEXTS, seed=3)
    if copies:
        pipeline = Tokenizer.from_file(str(tokenizer))
        return {source: [pipeline.decode(pipeline.encode(source).ids)] for source in sources}
    references = tatoeba_sentences(data_dir)
    return {source: references[source] for source in sources}


def describe_quality(
    references: Mapping[str, list[str]], translations: Sequence[str], exact: Sequence[str]
) -> dict[str, float]:
    """BLEU, and the percentages of texts equal to a reference and equal to ``exact``."""
    is_reference = [t in r for t, r in zip(translations, references.values(), strict=True)]
    is_exact = [ours == theirs for ours, theirs in zip(translations, exact, strict=True)]
    return {
        "BLEU": bleu_and_chrf(translations, list(references.values()))[0],
        "equal to a reference, %": 100 * sum(is_reference) / len(is_reference),
        "same as the most exact precision, %": 100 * sum(is_exact) / len(is_exact),
    }
