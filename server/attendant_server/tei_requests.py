"""Requests of Text Embeddings Inference as requests to the application, for every front door.

Its defaults are those of TEI, whatever the model says.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from attendant_server.application.descriptions import ModelDescription
from attendant_server.application.embedding import EmbeddingRequest
from attendant_server.application.offset_units import OffsetUnit, TextOffsets
from attendant_server.application.prompts import PromptChoice
from attendant_server.application.tokenization_options import Truncation
from attendant_server.errors import InvalidRequest
from attendant_server.tokenized_text import TokenizedText

INPUTS = {"texts": "inputs", "texts[0]": "inputs", "text_pairs[0]": "inputs[1]"}
"""The fields of TEI, for those of the application with one text."""
DTYPES = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
"""Names of number formats in TEI, by those of precisions."""
EMBEDDING, CLASSIFIER, RERANKER = "embedding", "classifier", "reranker"
"""Types of models."""


class SimpleToken(NamedTuple):
    """A token of a text; ``start`` and ``stop`` are None for special tokens."""

    id: int
    text: str
    special: bool
    start: int | None = None
    stop: int | None = None


def truncation(truncate: bool, is_left: bool) -> int:
    """The number of a `Truncation`."""
    if not truncate:
        return Truncation.REFUSE
    return Truncation.LEFT if is_left else Truncation.RIGHT


def embedding_request(
    texts: Sequence[str],
    model: str,
    normalize: bool | None,
    truncation: int,
    dimensions: int | None,
    prompt_name: str | None,
) -> EmbeddingRequest:
    """A request for vectors, which are normalized unless it says otherwise."""
    return EmbeddingRequest(
        texts=texts,
        model=model,
        normalize=True if normalize is None else normalize,
        truncation=truncation,
        dimensions=dimensions,
        prompt=PromptChoice(prompt_name, None),
    )


def model_type(model: ModelDescription) -> str:
    """What a model is to TEI, by its labels."""
    if not model.labels:
        return EMBEDDING
    return RERANKER if len(model.labels) == 1 else CLASSIFIER


def simple_tokens(
    text: str, tokens: TokenizedText, unit: OffsetUnit, add_special_tokens: bool
) -> Iterator[SimpleToken]:
    """The tokens of a text, with their places in it in the given unit."""
    offsets = TextOffsets(text, unit)
    for token in tokens:
        if not token.is_special:
            start, stop = offsets.in_unit(token.start), offsets.in_unit(token.end)
            yield SimpleToken(token.id, text[token.start : token.end], False, start, stop)
        elif add_special_tokens:
            yield SimpleToken(token.id, token.text, True)


def checked_pair(texts: Sequence[str]) -> Sequence[str]:
    """The two texts of a pair; raises InvalidRequest for another number of texts."""
    if len(texts) != 2:
        raise InvalidRequest("inputs", f"must be 2 texts, got {len(texts)}")
    return texts
