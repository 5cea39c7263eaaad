"""Word vectors, such as those of word2vec, GloVe and fastText, as static embeddings.

The vector of a text is the mean of the vectors of its words. Words that the file lacks are left out
of it.
"""

import logging
import re
from collections.abc import Collection
from pathlib import Path

import torch
from attendant_manifest.part_rules import MAX_TOKENS
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.imported import ImportedEncoder
from attendant_export.importers.word_vector_files import UNKNOWN, read_word_table
from attendant_export.models.static_embedding import static_encoder

logger = logging.getLogger(__name__)

FAMILY = "word-vectors"
SUFFIX = re.compile(r"(\.txt|\.vec|\.bin)?(\.gz)?$")
"""What is left out of the name of a file, for the name of the model."""
APOSTROPHE, TYPOGRAPHIC = "'", "\u2019"
NEGATION, CLITICS = "n't", ("'s", "'re", "'ve", "'ll", "'d", "'m")
"""Ends of English words that the Penn Treebank, and so GloVe, has as words of their own."""
JOINED = re.compile(r"(?<=\w)[^\w\s](?=\w)")
"""Punctuation within a word."""
MIN_JOINED = 1e-3
"""Share of words with a character in them from which on texts are not split at this character."""
BATCH = 10_000
"""Words that are encoded together."""


class WordVectorFile(Checkpoint):
    """A checkpoint that is one file, to which the other files of its folder do not belong."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError if the file is missing."""
        super().__init__(path.absolute().parent, source=path.name, file=path.name)
        self.title = str(path)
        self.path(path.name)

    @property
    def name(self) -> str:
        """The name of the file without suffixes such as ``.txt.gz``."""
        return SUFFIX.sub("", self.file)

    def find(self, name: str) -> Path | None:
        """The path of the file, or None for every other name."""
        return super().find(name) if name == self.file else None

    def names(self) -> list[str]:
        """The name of the file."""
        return [self.file]


def read_word_vectors(checkpoint: WordVectorFile, max_words: int | None) -> ImportedEncoder:
    """The model of a file, of its first ``max_words`` words if given.

    Raises CheckpointError, and ValueError for a number of words below 1.
    """
    if max_words is not None and max_words < 1:
        raise ValueError(f"--max-words {max_words}: want at least 1")
    path = checkpoint.path(checkpoint.file)
    table = read_word_table(path, max_words)
    tokenizer = word_tokenizer(table.ids)
    if num_lost := _num_lost(tokenizer, table.ids):
        logger.warning(
            "%s: %d of %d words are never found in texts, which are split within them",
            *(path, num_lost, len(table.ids) - 1),
        )
        if num_lost == len(table.ids) - 1:
            raise CheckpointError(f"{path} has no words that texts can have")
    unknown = table.ids[UNKNOWN]
    model = static_encoder(torch.from_numpy(table.vectors), unknown, unknown)
    return ImportedEncoder(FAMILY, model, tokenizer, MAX_TOKENS)


def word_tokenizer(ids: dict[str, int]) -> Tokenizer:
    """A tokenizer of whole words, with the ids of words and of `UNKNOWN`.

    Texts are lower-cased if no word has a letter that is not, and typographic apostrophes become
    ASCII ones if no word has a typographic one.
    """
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    steps: list[normalizers.Normalizer] = []
    if all(word == word.lower() for word in ids if word != UNKNOWN):
        steps.append(normalizers.Lowercase())
    if not any(TYPOGRAPHIC in word for word in ids):
        steps.append(normalizers.Replace(TYPOGRAPHIC, APOSTROPHE))
    tokenizer.normalizer = normalizers.Sequence(steps)
    pattern = Regex(word_pattern(ids))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, "removed", invert=True)
    return tokenizer


def word_pattern(words: Collection[str]) -> str:
    """The regular expression of what is a word in a text, with the syntax of Oniguruma.

    A word is a run of letters, digits and underscores, or one other character. Runs are joined by
    a character between them if words of the file are, and English clitics such as ``n't`` are
    words of their own if they are in the file.
    """
    clitics = [clitic for clitic in CLITICS if clitic in words]
    joiners = _joiners(words)
    alternatives = []
    if NEGATION in words:
        alternatives += [rf"\w+?(?={NEGATION}\b)", rf"{NEGATION}\b"]
    if clitics:
        alternatives.append(rf"(?:{'|'.join(clitics)})\b")
    if clitics or NEGATION in words:
        joiners.discard(APOSTROPHE)
    joined = "|".join(re.escape(joiner) for joiner in sorted(joiners))
    alternatives += [rf"\w+(?:(?:{joined})\w+)*" if joined else r"\w+", r"[^\w\s]"]
    return "|".join(alternatives)


def _joiners(words: Collection[str]) -> set[str]:
    """The characters at which words are not split."""
    counts: dict[str, int] = {}
    for word in words:
        for joiner in set(JOINED.findall(word)):
            counts[joiner] = counts.get(joiner, 0) + 1
    return {joiner for joiner, count in counts.items() if count >= MIN_JOINED * len(words)}


def _num_lost(tokenizer: Tokenizer, ids: dict[str, int]) -> int:
    """The number of words that are not a token of their own even if the text has no others."""
    words = [word for word in ids if word != UNKNOWN]
    num_lost = 0
    for first in range(0, len(words), BATCH):
        batch = words[first : first + BATCH]
        encodings = tokenizer.encode_batch(batch)
        num_lost += sum(
            encoding.ids != [ids[word]] for word, encoding in zip(batch, encodings, strict=True)
        )
    return num_lost
