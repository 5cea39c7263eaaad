"""Labelled texts as batches of tokens. Depends on tokenizers, not on models."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.bad_lines import BadLines
from attendant_export.data.batches import (
    num_batches,
    pad,
    shuffled_batches,
    special_tokens_as_text,
)
from attendant_export.data.labelled_texts import (
    MULTIPLE_CHOICE,
    SIMILARITY,
    LabelledText,
    LabelledTexts,
)
from attendant_export.data.tokenizer import unknown_token_id

CHUNK = 1000
"""Lines that are encoded together."""


@dataclass(frozen=True, slots=True)
class LabelledBatch:
    """Lines, or one process's share of them, each with the same number of inputs.

    Lines with fewer inputs have their first one again.
    """

    token_ids: Tensor  # (lines, inputs, length)
    token_types: Tensor  # (lines, inputs, length), 1 for the tokens of the second text of a pair
    is_input: Tensor  # (lines, inputs), false for one that is there again
    answers: Tensor  # (lines), the index of the label or of the choice, or the score from 0 to 1
    num_lines: int  # of the whole batch, not of the share

    def share(self, rows: Callable[[Tensor], Tensor], device: torch.device) -> "LabelledBatch":
        """One process's share, on ``device``; ``rows`` selects its rows of a tensor."""
        return LabelledBatch(
            rows(self.token_ids).to(device),
            rows(self.token_types).to(device),
            rows(self.is_input).to(device),
            rows(self.answers).to(device),
            self.num_lines,
        )


@dataclass(frozen=True, slots=True)
class EncodedInput:
    """The tokens of a text or a pair."""

    token_ids: list[int]
    first_length: int
    """Number of tokens of type 0, which come first."""


@dataclass(frozen=True, slots=True)
class AnswerScale:
    """What the answers of lines are as numbers."""

    labels: Sequence[str]
    """The labels of the head."""
    scores: tuple[float, float] = (0.0, 1.0)
    """The similarities that become 0 and 1."""

    def number(self, task: str, answer: str) -> float:
        """The index of a label or of a choice, or a similarity.

        Raises ValueError for a label that is not there.
        """
        if task == SIMILARITY:
            low, high = self.scores
            return (float(answer) - low) / (high - low)
        if task == MULTIPLE_CHOICE:
            return int(answer) - 1
        return self.labels.index(answer)


@dataclass(frozen=True, slots=True)
class TextReader:
    """What turns texts and pairs into the tokens that a model reads."""

    tokenizer: Tokenizer
    pad_id: int
    vocab_size: int
    """Ids from this on, which some tokenizers have, stand for the unknown token."""
    max_tokens: int

    def encode(self, inputs: Sequence[tuple[str, ...]]) -> list[EncodedInput]:
        """The tokens of texts and pairs. The name of a special token is read as text."""
        with special_tokens_as_text(self.tokenizer):
            encodings = self.tokenizer.encode_batch(
                [each[0] if len(each) == 1 else each for each in inputs]
            )
        return [EncodedInput(self._known(each.ids), each.type_ids.count(0)) for each in encodings]

    def _known(self, token_ids: list[int]) -> list[int]:
        if max(token_ids, default=0) < self.vocab_size:
            return token_ids
        unk_id = unknown_token_id(self.tokenizer)
        if unk_id is None:
            raise ValueError("the tokenizer gives tokens that the model lacks")
        return [each if each < self.vocab_size else unk_id for each in token_ids]


class LabelledDataset:
    """The tokens of labelled texts."""

    def __init__(
        self,
        texts: LabelledTexts,
        reader: TextReader,
        scale: AnswerScale,
        max_batch_tokens: int = 2048,
        bad_lines: BadLines | None = None,
    ) -> None:
        """Adds lines with an input of more tokens than ``reader`` allows to ``bad_lines``.

        Without it, raises ValueError that lists them. Also raises ValueError for a label that
        ``scale`` lacks, and if no line is left.
        """
        self._pad_id, self._max_batch_tokens = reader.pad_id, max_batch_tokens
        bad = BadLines() if bad_lines is None else bad_lines
        self.lines: list[list[EncodedInput]] = []
        """The inputs of each line."""
        self.answers: list[float] = []
        """The answer of each line; see `AnswerScale`."""
        for row, inputs in _encoded(texts, reader):
            if max(len(each.token_ids) for each in inputs) > reader.max_tokens:
                bad.add(texts.path, row.number, f"more than {reader.max_tokens} tokens")
                continue
            self.lines.append(inputs)
            self.answers.append(_answer(texts, row, scale))
        if bad_lines is None:
            bad.refuse()
        self._sizes = [
            len(inputs) * max(len(each.token_ids) for each in inputs) for inputs in self.lines
        ]
        self._dtype = torch.float32 if texts.task == SIMILARITY else torch.int64

    def num_batches(self) -> int:
        """The number of batches of an epoch."""
        return num_batches(self._sizes, self._max_batch_tokens)

    def batches(self, rng: np.random.Generator) -> Iterator[LabelledBatch]:
        """One epoch of batches of lines of similar size, in random order."""
        for chosen in shuffled_batches(self._sizes, self._max_batch_tokens, rng):
            yield self._batch(chosen.tolist())

    def _batch(self, chosen: Sequence[int]) -> LabelledBatch:
        lines = [self.lines[i] for i in chosen]
        most = max(map(len, lines))
        filled = [[*inputs, *[inputs[0]] * (most - len(inputs))] for inputs in lines]
        flat = [each for inputs in filled for each in inputs]
        token_ids = pad([each.token_ids for each in flat], self._pad_id)
        firsts = torch.tensor([each.first_length for each in flat])
        types = (torch.arange(token_ids.shape[1]) >= firsts[:, None]).long()
        shape = (len(lines), most, token_ids.shape[1])
        lengths = torch.tensor([len(inputs) for inputs in lines])
        return LabelledBatch(
            token_ids.view(shape),
            types.view(shape),
            torch.arange(most) < lengths[:, None],
            torch.tensor([self.answers[i] for i in chosen], dtype=self._dtype),
            len(lines),
        )


def _encoded(
    texts: LabelledTexts, reader: TextReader
) -> Iterator[tuple[LabelledText, list[EncodedInput]]]:
    """Each line with its inputs."""
    for start in range(0, len(texts.rows), CHUNK):
        rows = texts.rows[start : start + CHUNK]
        inputs = [row.inputs(texts.task) for row in rows]
        encoded = iter(reader.encode([each for of_row in inputs for each in of_row]))
        for row, of_row in zip(rows, inputs, strict=True):
            yield row, [next(encoded) for _ in of_row]


def _answer(texts: LabelledTexts, row: LabelledText, scale: AnswerScale) -> float:
    try:
        return scale.number(texts.task, row.answer)
    except ValueError:
        known = ", ".join(scale.labels)
        raise ValueError(
            f"{texts.path}:{row.number}: the label {row.answer} is none of the training text: "
            f"{known}"
        ) from None
