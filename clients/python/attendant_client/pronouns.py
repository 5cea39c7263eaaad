"""Winograd schemas: which of several nouns a pronoun stands for, as a model sees it.

`by_likelihood` asks a language model which text is more probable with the noun in place of the
pronoun (Trinh and Le, 2018, "A Simple Method for Commonsense Reasoning"). `by_attention` asks how
much the pronoun attends to each noun (Klein and Nabi, 2019, "Attention Is (not) All You Need for
Commonsense Reasoning"). This module knows neither protobuf nor gRPC.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from attendant_client.client import Client
from attendant_client.results import Token

POSSESSIVES = ("his", "its", "their")
DETERMINERS = ("a", "an", "the", "my", "your", "his", "her", "our", "their")
SCHEMAS_IN_CALL = 32


class SchemaError(Exception):
    """A schema is not of the form that `read_schemas` reads."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A text with a pronoun from `start` to `end`, and the nouns that it may stand for.

    `answer` is the index of the right one. `line` is the first line of the schema in its file.
    """

    text: str
    start: int
    end: int
    candidates: tuple[str, ...]
    answer: int
    line: int

    def filled(self, candidate: str) -> tuple[str, int]:
        """The text with a candidate in place of the pronoun, and where the candidate ends."""
        noun = candidate
        first, _, rest = candidate.partition(" ")
        if first.lower() in DETERMINERS and self.start and rest:
            noun = f"{first.lower()} {rest}"
        if self.text[self.start : self.end].lower() in POSSESSIVES:
            noun += "'" if noun.endswith("s") else "'s"
        return self.text[: self.start] + noun + self.text[self.end :], self.start + len(noun)

    def candidate_spans(self) -> list[tuple[int, int]]:
        """Where each candidate is in the text; raises SchemaError if one is not there."""
        spans = []
        for candidate in self.candidates:
            found = [*_words(candidate, self.text)]
            if not found:
                raise SchemaError(f"line {self.line}: the text lacks the candidate {candidate!r}")
            spans.append(found[0].span())
        return spans


def read_schemas(lines: Iterable[str]) -> Iterator[Schema]:
    """The schemas of a file of blocks between empty lines; raises SchemaError.

    A block has four lines: the text, the pronoun, the candidates between commas, and the right
    candidate. If the text has the pronoun several times, the last one is meant.
    """
    numbered = enumerate((line.strip() for line in lines), start=1)
    for is_blank, block in groupby(numbered, key=lambda each: not each[1]):
        if not is_blank:
            rows = list(block)
            yield _schema(rows[0][0], [text for _, text in rows])


def _schema(line: int, rows: Sequence[str]) -> Schema:
    if len(rows) != 4:
        raise SchemaError(f"line {line}: a schema has 4 lines, this one has {len(rows)}")
    text, pronoun, nouns, answer = (re.sub(r"\s+", " ", row) for row in rows)
    candidates = tuple(noun.strip() for noun in nouns.split(","))
    if len(candidates) < 2 or not all(candidates):
        raise SchemaError(f"line {line}: at least two candidates between commas are needed")
    if answer not in candidates:
        raise SchemaError(f"line {line}: {answer!r} is not one of the candidates")
    places = [*_words(pronoun, text)]
    if not places:
        raise SchemaError(f"line {line}: the text lacks the pronoun {pronoun!r}")
    return Schema(text, *places[-1].span(), candidates, candidates.index(answer), line)


def _words(words: str, text: str) -> Iterator[re.Match[str]]:
    return re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE)


def by_likelihood(
    client: Client, schemas: Sequence[Schema], model: str, is_partial: bool
) -> Iterator[NDArray[np.float64]]:
    """The log-probability of the text of each schema with each of its candidates.

    With ``is_partial``, only the tokens behind the candidate count, so that nouns that are rare by
    themselves are not at a disadvantage. Raises the errors of the client.
    """
    for first in range(0, len(schemas), SCHEMAS_IN_CALL):
        chosen = schemas[first : first + SCHEMAS_IN_CALL]
        filled = [each.filled(candidate) for each in chosen for candidate in each.candidates]
        texts = [text for text, _ in filled]
        scores = client.score_texts(texts, model=model, return_tokens=is_partial)
        values = iter(
            _after(score.tokens, score.log_probabilities, end)
            if is_partial
            else score.log_probability
            for score, (_, end) in zip(scores.raise_for_errors(), filled, strict=True)
        )
        for each in chosen:
            yield np.array([next(values) for _ in each.candidates])


def _after(tokens: Sequence[Token], log_probabilities: Sequence[float], end: int) -> float:
    """The sum over the tokens that begin at ``end`` or later."""
    pairs = zip(tokens, log_probabilities, strict=True)
    return sum(value for token, value in pairs if token.start >= end)


def by_attention(
    client: Client, schemas: Iterable[Schema], model: str
) -> Iterator[NDArray[np.float64]]:
    """The share of each candidate of a schema in the attention of the pronoun to all of them.

    Each head of each layer of the encoder counts for the candidate to which it attends most.
    Raises the errors of the client, and SchemaError for a candidate that the text lacks and a model
    without self-attention in its encoder.
    """
    for schema in schemas:
        spans = schema.candidate_spans()
        found = client.attention(schema.text, model=model)
        if found.encoder is None:
            raise SchemaError("the encoder of this model has no self-attention")
        queries, *keys = (
            _tokens_of(found.source_tokens, span, schema.line)
            for span in ((schema.start, schema.end), *spans)
        )
        weights = found.encoder[:, :, queries].mean(axis=2)  # (layers, heads, keys)
        yield maximum_attention(np.stack([weights[:, :, each].max(axis=2) for each in keys]))


def _tokens_of(tokens: Sequence[Token], span: tuple[int, int], line: int) -> list[int]:
    start, end = span
    found = [
        place
        for place, token in enumerate(tokens)
        if not token.special and token.start < end and token.end > start
    ]
    if not found:
        raise SchemaError(f"line {line}: the model has no token for a candidate or the pronoun")
    return found


def maximum_attention(weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """The maximum attention scores of candidates, which add up to 1.

    ``weights`` has the shape (candidates, layers, heads).
    """
    is_greatest = weights == weights.max(axis=0)
    kept: NDArray[np.float64] = np.where(is_greatest, weights, 0.0).astype(np.float64)
    sums = kept.sum(axis=(1, 2))
    return np.asarray(sums / sums.sum())
