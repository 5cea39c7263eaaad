"""Held-out sentences that a translation model is measured on while it is trained."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from attendant.v1.bundle_pb2 import Manifest
from torch import Tensor

from attendant_export.data.augmentation import casual_form
from attendant_export.data.pair_tokenizer import NO_MARKS, Marks, PairTokenizer
from attendant_export.data.text_files import group_references, read_pairs
from attendant_export.data.translation_data import TranslationData
from attendant_export.data.translation_pairs import PairBatch, batches_of
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.runs.text_facts import marks_of
from attendant_export.runs.translation import translate
from attendant_export.verify.metrics import score_translations

logger = logging.getLogger(__name__)

MAX_BATCH_TOKENS = 4096
"""Padded tokens of a batch whose loss is measured."""


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Sentences that are drawn once from a file, each with all of its references."""

    sources: list[str]
    references: list[list[str]]
    marks: Marks = NO_MARKS
    """The tokens next to each text."""

    def scores(self, model: EncoderDecoder, tokenizer: PairTokenizer) -> dict[str, float]:
        """BLEU and chrF of greedy translations."""
        texts = translate(model, tokenizer, self.sources, self.marks)
        return score_translations(texts, self.references)

    def fitting(self, tokenizer: PairTokenizer, max_tokens: int) -> "ValidationSet":
        """The sentences that have at most ``max_tokens`` on each side, in all references."""
        kept = []
        for source, references in zip(self.sources, self.references, strict=True):
            pairs = [(source, reference) for reference in references]
            sides = tokenizer.encode(pairs, [self.marks] * len(pairs))
            if max(len(ids) for side in sides for ids in side) <= max_tokens:
                kept.append((source, references))
        return replace(self, sources=[s for s, _ in kept], references=[r for _, r in kept])

    def casual(self) -> "ValidationSet":
        """The same sentences in lower case without final punctuation."""
        return replace(self, sources=[casual_form(source) for source in self.sources])

    @torch.inference_mode()
    def loss(
        self, loss: Callable[[PairBatch], Tensor], tokenizer: PairTokenizer, device: torch.device
    ) -> float:
        """The mean of ``loss`` over the target tokens of all references."""
        pairs = [
            (source, reference)
            for source, references in zip(self.sources, self.references, strict=True)
            for reference in references
        ]
        total, num_targets = 0.0, 0
        for batch in batches_of(pairs, tokenizer, MAX_BATCH_TOKENS, self.marks):
            total += loss(batch.to(device)).item() * batch.num_targets
            num_targets += batch.num_targets
        return total / num_targets


def read_validation(data: TranslationData, seed: int) -> dict[str, ValidationSet]:
    """The sets of ``data`` by their names; that of ``data.valid`` is the first, without a name.

    Raises as `read_pairs`.
    """
    files = {"": data.valid} | {extra.name: extra.path for extra in data.extra_valid}
    return {name: _read(path, data, seed) for name, path in files.items()}


def with_marks(
    valid: Mapping[str, ValidationSet], data: TranslationData, facts: Manifest | None
) -> dict[str, ValidationSet]:
    """The sets of `read_validation` with the tokens of their languages and controls.

    Raises ValueError as `marks_of`.
    """
    choices = {"": data.valid_choice} | {extra.name: extra.choice for extra in data.extra_valid}
    return {
        name: replace(each, marks=marks_of(facts, choices[name])) for name, each in valid.items()
    }


def without_long_sentences(
    valid: Mapping[str, ValidationSet], tokenizer: PairTokenizer, max_tokens: int | None
) -> dict[str, ValidationSet]:
    """The sets without sentences of more than ``max_tokens`` on a side; logs how many those are.

    None: there is no limit. Raises ValueError for a set that has no others.
    """
    if max_tokens is None:
        return dict(valid)
    fitting = {name: each.fitting(tokenizer, max_tokens) for name, each in valid.items()}
    for name, each in fitting.items():
        option = f"--extra-valid {name}" if name else "--valid"
        total, num_long = len(valid[name].sources), len(valid[name].sources) - len(each.sources)
        problem = (
            f"{num_long:,} of {total:,} sentences have more than {max_tokens} tokens on a side"
        )
        if not each.sources:
            raise ValueError(f"{option}: {problem}, the limit of the model's positions")
        if num_long:
            logger.warning("%s: %s and are left out", option, problem)
    return fitting


def _read(path: Path, data: TranslationData, seed: int) -> ValidationSet:
    references = group_references(read_pairs(path, data.swap))
    chosen = np.random.default_rng(seed).permutation(len(references))[: data.num_valid_sources]
    items = list(references.items())
    drawn = [items[i] for i in chosen]
    return ValidationSet([source for source, _ in drawn], [targets for _, targets in drawn])
