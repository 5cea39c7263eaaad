"""Reads the training text of a BERT. Depends on files, not on tokenizers or models."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attendant_export.data.bad_lines import SKIP, BadLines
from attendant_export.data.similar_pairs import paraphrase_pairs
from attendant_export.data.text_files import (
    draw_texts,
    files_of,
    group_references,
    join_paragraphs,
    numbered_lines,
    numbered_pairs,
    read_documents,
    read_pairs,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TextSource:
    """A file of documents for the masked language model, separated by empty lines."""

    path: Path
    max_characters: int = 4_000_000
    """Limit of a random sample of passages from the whole file."""
    held_out_documents: float = 0.0
    """Fraction of the documents that is held out for validation."""


@dataclass(frozen=True, slots=True)
class BertData:
    """Files of training and validation text, and settings for tokenization and sampling."""

    train_pairs: Path
    """Tab-separated translation pairs. Every phase trains on them."""
    valid_pairs: Path
    texts: tuple[TextSource, ...] = ()
    """Additional text for the masked language model. The tokenizer learns from the same sample."""
    teacher_texts: tuple[Path, ...] = ()
    """Files and folders of further texts for a teacher, one on each line."""
    vocab_size: int = 16_000
    max_tokens: int = 64
    seed: int = 1
    """Seed of the sample from ``texts`` and of the validation samples."""
    skip_bad_lines: bool = False
    """Leave out lines of training text that cannot be used, instead of refusing to train."""


@dataclass(frozen=True, slots=True)
class MlmText:
    """Untokenized text for the masked language model."""

    train: list[str]
    valid: list[str]


def read_mlm_text(data: BertData) -> MlmText:
    """The sampled passages of every source and the sentences of the translation pairs.

    Raises ValueError that lists the bad lines of these files, unless ``data`` skips them; then logs
    how many there are.
    """
    valid = _distinct_sentences(read_pairs(data.valid_pairs))
    bad_lines = BadLines()
    text = MlmText(_distinct_sentences(_train_pairs(data, bad_lines)), valid)
    rng = np.random.default_rng(data.seed)
    max_characters = 4 * data.max_tokens  # a passage of this size fills about one sequence
    for source in data.texts:
        passages: list[str] = []
        for document in read_documents(source.path, bad_lines):
            is_held_out = rng.random() < source.held_out_documents
            cut = join_paragraphs(document, max_characters)
            (text.valid if is_held_out else passages).extend(cut)
        text.train.extend(draw_texts(passages, source.max_characters, rng))
    _handle(bad_lines, data)
    return text


def read_teacher_texts(data: BertData) -> list[str]:
    """The distinct texts of ``data.teacher_texts``, without blank ones.

    Raises ValueError for a file without texts, and for bad lines as `read_mlm_text`.
    """
    bad_lines, texts = BadLines(), dict[str, None]()
    for file in (file for path in data.teacher_texts for file in files_of(path)):
        found = [line for _, line in numbered_lines(file, bad_lines) if line.strip()]
        if not found and not bad_lines.counts:
            raise ValueError(f"{file} has no texts")
        texts |= dict.fromkeys(found)
    _handle(bad_lines, data)
    return list(texts)


def _handle(bad_lines: BadLines, data: BertData) -> None:
    """Refuse bad lines, or log how many are left out."""
    if not data.skip_bad_lines:
        bad_lines.refuse(SKIP)
    elif bad_lines.counts:
        logger.info("left out: %s", bad_lines.summary())


def _train_pairs(data: BertData, bad_lines: BadLines) -> list[tuple[str, str]]:
    return [pair for _, pair in numbered_pairs(data.train_pairs, bad_lines)]


def _distinct_sentences(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(text for pair in pairs for text in pair))


@dataclass(frozen=True, slots=True)
class SimilarSentences:
    """Pairs of sentences for contrastive training and its validation."""

    translations: list[tuple[str, str]]
    paraphrases: list[tuple[str, str]]
    """Sentences of one language that share a translation, of both languages."""
    valid: list[tuple[str, str]]
    """Translations. Each first sentence occurs once."""


def read_similar_sentences(
    data: BertData, max_paraphrases_per_group: int, num_valid_sentences: int
) -> SimilarSentences:
    """The training pairs, and a random sample of held-out sentences with their first reference.

    `read_mlm_text` checks their lines.
    """
    pairs = _train_pairs(data, BadLines())
    paraphrases = paraphrase_pairs(pairs, max_paraphrases_per_group)
    references = list(group_references(read_pairs(data.valid_pairs)).items())
    chosen = np.random.default_rng(data.seed).permutation(len(references))[:num_valid_sentences]
    return SimilarSentences(
        pairs, paraphrases, [(references[i][0], references[i][1][0]) for i in chosen]
    )
