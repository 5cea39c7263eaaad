"""Word vectors, such as those of word2vec, GloVe and fastText, as static embeddings.

The vector of a text is the mean of the vectors of its words. Words that the file lacks are left out
of it.
"""

import logging
import re
from pathlib import Path

import torch
from attendant_manifest.part_rules import MAX_TOKENS
from tokenizers import Tokenizer

from attendant_export.data.word_tokenizer import UNKNOWN, word_tokenizer
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.imported import ImportedEncoder
from attendant_export.importers.word_vector_files import read_word_table
from attendant_export.models.static_embedding import static_encoder

logger = logging.getLogger(__name__)

FAMILY = "word-vectors"
SUFFIX = re.compile(r"(\.txt|\.vec|\.bin)?(\.gz)?$")
"""What is left out of the name of a file, for the name of the model."""
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
