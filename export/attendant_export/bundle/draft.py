"""A bundle while it is being written, and what both kinds of models do with it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from attendant.v1.bundle_pb2 import Manifest
from tokenizers import Tokenizer

from attendant_export.data.corpus import Corpus
from attendant_export.data.tokenizer import TOKENIZER

REFERENCE_OUTPUTS = "reference_outputs.json"
NUM_REFERENCE_TEXTS = 64
MAX_REFERENCE_TOKENS = 100


@dataclass(frozen=True, slots=True)
class Draft:
    """Where a bundle is written, what it will say, and the text to verify it with."""

    folder: Path
    scratch: Path
    """For graphs that are compared but not part of the bundle."""
    manifest: Manifest
    precisions: tuple[str, ...]
    valid: Corpus
    tests: Sequence[Corpus]
    max_tokens: int
    shortlist_pairs: Path | None = None
    """Text to learn shortlists from; without it the bundle has none."""
    swap: bool = False
    """Whether its second column is the source."""

    def all_precisions(self) -> list[str]:
        """fp32, which the others are compared with, and those that the bundle will hold."""
        return list(dict.fromkeys(["fp32", *self.precisions]))

    def bundled_precisions(self) -> list[str]:
        """The precisions that the bundle will hold, in the order of `all_precisions`."""
        return [name for name in self.all_precisions() if name in self.precisions]

    def folder_of(self, precision: str) -> Path:
        """Where the graphs of ``precision`` go."""
        return self.folder if precision in self.precisions else self.scratch

    def add_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Write ``tokenizer.json``."""
        tokenizer.save(str(self.folder / TOKENIZER))
        self.manifest.source_tokenizer = TOKENIZER

    def reference_texts(self, tokenizer: Tokenizer, max_tokens: int) -> dict[str, list[int]]:
        """Texts of the validation set that are not too long, and their token ids."""
        texts = self.valid.sources[: 2 * NUM_REFERENCE_TEXTS]
        limit = min(MAX_REFERENCE_TOKENS, max_tokens)
        encoded = {text: tokenizer.encode(text).ids for text in texts}
        short = [(text, ids) for text, ids in encoded.items() if len(ids) <= limit]
        return dict(short[:NUM_REFERENCE_TEXTS])

    def add_reference_outputs(self, content: dict[str, Any]) -> None:
        """Write ``reference_outputs.json``."""
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        (self.folder / REFERENCE_OUTPUTS).write_text(text + "\n", encoding="utf-8")
        self.manifest.reference_outputs = REFERENCE_OUTPUTS


ROUNDING = 1e-6
"""Numbers in files are as exact as this."""


def rounded(values: Sequence[float] | np.ndarray) -> list[float]:
    """Numbers short enough for a file, exact to `ROUNDING`."""
    return [round(float(value), 6) for value in values]
