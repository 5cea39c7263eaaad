"""A bundle while it is being written: the steps that are the same for both kinds of models."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from attendant.v1.bundle_pb2 import Manifest
from tokenizers import Tokenizer

from attendant_export.bundle.reference_outputs import source_token_ids
from attendant_export.data.corpus import Corpus
from attendant_export.data.labelled_texts import LabelledTexts
from attendant_export.data.tokenizer import TARGET_TOKENIZER, TOKENIZER

REFERENCE_OUTPUTS = "reference_outputs.json"
TestTexts: TypeAlias = Corpus | LabelledTexts
"""Texts that the quality of a model is measured on."""
NUM_REFERENCE_TEXTS = 64
MAX_REFERENCE_TOKENS = 100


@dataclass(frozen=True, slots=True)
class Draft:
    """The folder, manifest and evaluation text of a bundle that is being written."""

    folder: Path
    scratch: Path
    """Folder for graphs that are compared but are not part of the bundle."""
    manifest: Manifest
    precisions: tuple[str, ...]
    texts: Sequence[str]
    """Texts for the reference outputs; the first short ones are taken."""
    max_tokens: int
    valid: Corpus | None = None
    """Pairs to compare the precisions on. None: no comparison of translations of a corpus."""
    tests: Sequence[TestTexts] = ()
    shortlist_pairs: Path | None = None
    """Pairs to learn shortlists from. None: a bundle without shortlists."""
    swap: bool = False
    """Whether the second column of ``shortlist_pairs`` is the source."""

    def all_precisions(self) -> list[str]:
        """The precisions to write: those of the bundle and fp32, the reference for the others."""
        return list(dict.fromkeys(["fp32", *self.precisions]))

    def bundled_precisions(self) -> list[str]:
        """The precisions of the bundle, in the order of `all_precisions`."""
        return [name for name in self.all_precisions() if name in self.precisions]

    def folder_of(self, precision: str) -> Path:
        """The folder for the graphs of ``precision``."""
        return self.folder if precision in self.precisions else self.scratch

    def add_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Write ``tokenizer.json``."""
        tokenizer.save(str(self.folder / TOKENIZER))
        self.manifest.source_tokenizer = TOKENIZER

    def add_target_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Write the tokenizer of targets that are not tokenized like the sources."""
        tokenizer.save(str(self.folder / TARGET_TOKENIZER))
        self.manifest.target_tokenizer = TARGET_TOKENIZER

    def reference_texts(self, tokenizer: Tokenizer, max_tokens: int) -> dict[str, list[int]]:
        """The first short texts, with their token ids. Raises ValueError if no text is short."""
        texts = self.texts[: 2 * NUM_REFERENCE_TEXTS]
        limit = min(MAX_REFERENCE_TOKENS, max_tokens)
        encoded = {text: source_token_ids(self.manifest, tokenizer, text) for text in texts}
        short = [(text, ids) for text, ids in encoded.items() if 0 < len(ids) <= limit]
        if not short:
            raise ValueError(f"no reference text has at most {limit} tokens: use a larger limit")
        return dict(short[:NUM_REFERENCE_TEXTS])

    def add_reference_outputs(self, content: dict[str, Any]) -> None:
        """Write ``reference_outputs.json`` and name it in the manifest."""
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        (self.folder / REFERENCE_OUTPUTS).write_text(text + "\n", encoding="utf-8")
        self.manifest.reference_outputs = REFERENCE_OUTPUTS


ROUNDING = 1e-6
"""Precision of numbers in files."""


def rounded(values: Sequence[float] | np.ndarray) -> list[float]:
    """Numbers rounded to `ROUNDING`, to keep files small."""
    return [round(float(value), 6) for value in values]
