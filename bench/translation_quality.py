"""The quality of translations beside their speed, measured through the same servers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from bench.loads import in_calls
from bench.quality import bleu_and_chrf
from bench.texts import sample_texts, tatoeba_sentences
from bench.translation_engines import Caller

TEXTS_PER_CALL = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """Sentences and what their translations are compared with."""

    sources: list[str]
    references: list[list[str]]
    """For sacreBLEU; for a model that copies, its source as its tokenizer writes it."""
    copies: bool


def quality_sample(data_dir: Path, tokenizer: Path, num_texts: int, copies: bool) -> Sample:
    """Random sentences of the Tatoeba test, whose translations or copies are wanted."""
    sources = sample_texts(data_dir, "short", num_texts, seed=3)
    if copies:
        pipeline = Tokenizer.from_file(str(tokenizer))
        wanted = [[pipeline.decode(pipeline.encode(source).ids)] for source in sources]
    else:
        all_references = tatoeba_sentences(data_dir)
        wanted = [all_references[source] for source in sources]
    return Sample(sources, wanted, copies)


async def translate_all(caller: Caller, texts: Sequence[str]) -> list[str]:
    """Translations of any number of texts."""
    calls = in_calls(texts, TEXTS_PER_CALL)
    return [text for call in calls for text in await caller.translate(call)]


def describe_quality(
    sample: Sample, translations: Sequence[str], fp32_translations: Sequence[str]
) -> dict[str, float]:
    """BLEU, or the share of exact copies; and the share of texts equal to those of fp32."""
    pairs = zip(translations, fp32_translations, strict=True)
    same = sum(ours == exact for ours, exact in pairs) / len(translations)
    if sample.copies:
        answers = zip(translations, sample.references, strict=True)
        exact = sum(text == copy for text, (copy,) in answers) / len(translations)
        return {"exact copies": exact, "same as fp32": same}
    return {"BLEU": bleu_and_chrf(translations, sample.references)[0], "same as fp32": same}
