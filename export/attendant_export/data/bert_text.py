"""Where a BERT's training text is, and reading it. Knows files, not tokenizers or models."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attendant_export.data.similar_pairs import paraphrase_pairs
from attendant_export.data.text_files import (
    draw_texts,
    group_references,
    join_paragraphs,
    read_documents,
    read_pairs,
)


@dataclass(frozen=True, slots=True)
class TextSource:
    """A file of documents for the masked language model: paragraphs, empty lines between."""

    path: Path
    max_characters: int = 4_000_000
    """Passages are drawn from the whole file until they hold so much: its share of the text."""
    held_out_documents: float = 0.0
    """Fraction of the documents kept for validation, never trained on."""


@dataclass(frozen=True, slots=True)
class BertData:
    """Where the text is and how it is cut."""

    train_pairs: Path
    """Translation pairs, tab-separated: every phase trains on them."""
    valid_pairs: Path
    texts: tuple[TextSource, ...] = ()
    """Further text for the masked language model; the tokenizer learns from the same draw."""
    vocab_size: int = 16_000
    max_tokens: int = 64
    seed: int = 1
    """Of the draw from ``texts`` and of the validation samples."""


@dataclass(frozen=True, slots=True)
class MlmText:
    """The text of the masked language model, before it is tokenized."""

    train: list[str]
    valid: list[str]


def read_mlm_text(data: BertData) -> MlmText:
    """The drawn passages of every source and the sentences of the translation pairs."""
    text = MlmText(_distinct_sentences(data.train_pairs), _distinct_sentences(data.valid_pairs))
    rng = np.random.default_rng(data.seed)
    max_characters = 4 * data.max_tokens  # of a passage: about one sequence
    for source in data.texts:
        passages: list[str] = []
        for document in read_documents(source.path):
            is_held_out = rng.random() < source.held_out_documents
            cut = join_paragraphs(document, max_characters)
            (text.valid if is_held_out else passages).extend(cut)
        text.train.extend(draw_texts(passages, source.max_characters, rng))
    return text


def _distinct_sentences(path: Path) -> list[str]:
    return list(dict.fromkeys(text for pair in read_pairs(path) for text in pair))


@dataclass(frozen=True, slots=True)
class SimilarSentences:
    """What contrastive training learns from and is measured by."""

    train: list[tuple[str, str]]
    """Translations, and paraphrases of either language."""
    valid: list[tuple[str, str]]
    """Translations, each first sentence once."""


def read_similar_sentences(
    data: BertData, max_paraphrases_per_group: int, num_valid_sentences: int
) -> SimilarSentences:
    """The pairs to train on, and a random sample of the held-out sentences' first references."""
    pairs = read_pairs(data.train_pairs)
    paraphrases = paraphrase_pairs(pairs, max_paraphrases_per_group)
    references = list(group_references(read_pairs(data.valid_pairs)).items())
    chosen = np.random.default_rng(data.seed).permutation(len(references))[:num_valid_sentences]
    return SimilarSentences(
        pairs + paraphrases, [(references[i][0], references[i][1][0]) for i in chosen]
    )
