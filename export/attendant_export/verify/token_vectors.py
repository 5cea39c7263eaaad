"""Compares vectors of tokens for late interaction with the PyTorch model and with the original."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from attendant.v1.bundle_pb2 import EmbeddingParity, Manifest, OriginalVectors
from torch import nn

from attendant_export.graphs.token_vectors import TOKEN_VECTORS
from attendant_export.models.encoder import Encoder
from attendant_export.models.token_vectors import token_vectors
from attendant_export.verify.embedding import (
    MIN_FP32_COSINE,
    EmbeddingGraphs,
    FloatArray,
    agreement,
    cosines,
)
from attendant_export.verify.graph_sessions import ParityError
from attendant_export.verify.original import (
    IMPLEMENTATION,
    MIN_SAME_MODEL_COSINE,
    OriginalEncoder,
)

MIN_BATCHED_COSINE = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.999}
"""Lower bound of the cosine between a token's vectors alone and in a batch. It allows for rounding,
which moves the vector of one token more than a pooling of many."""


class ReadText(NamedTuple):
    """The tokens of a text as a model of late interaction reads it."""

    token_ids: list[int]
    num_attended: int
    """Number of first tokens that are attended to."""


def read_texts(texts: Sequence[Sequence[int]], manifest: Manifest) -> list[ReadText]:
    """``texts`` as they are, and if the model expands queries, expanded queries made of them."""
    found = [ReadText(list(ids), len(ids)) for ids in texts]
    part, mask_id = manifest.late_interaction, manifest.special_tokens.mask_id
    if not part.expands_queries:
        return found
    max_tokens = part.max_query_tokens
    is_unattended = manifest.architecture.token_vectors.has_unattended_tokens
    for ids in texts:
        query = [*ids[: max_tokens - 1], ids[-1]] if len(ids) > max_tokens else list(ids)
        expanded = [*query, *[mask_id] * (max_tokens - len(query))]
        found.append(ReadText(expanded, len(query) if is_unattended else max_tokens))
    return found


class TokenVectorVerifier:
    """Runs the PyTorch model once, then compares each precision with it."""

    def __init__(
        self,
        model: Encoder,
        texts: Sequence[Sequence[int]],
        hidden: Sequence[FloatArray],
        manifest: Manifest,
    ) -> None:
        """``hidden`` are the last hidden states of the model for each of ``texts``."""
        self._texts = read_texts(texts, manifest)
        queries = [_last_hidden(model, text) for text in self._texts[len(texts) :]]
        self._expected = [projected(model.token_dense, each) for each in (*hidden, *queries)]

    def verify(self, graphs: EmbeddingGraphs) -> EmbeddingParity:
        """Compare ``graphs`` with the model.

        Raises ParityError if a vector depends on the other texts of a batch, or if fp32 differs.
        """
        alone = [vectors_alone(graphs, text) for text in self._texts]
        (batch,) = graphs.run(
            [text.token_ids for text in self._texts],
            [TOKEN_VECTORS],
            attended_lengths=[text.num_attended for text in self._texts],
        )
        together = [
            row[: len(text.token_ids)] for row, text in zip(batch, self._texts, strict=True)
        ]
        batched = _agreement(alone, together).min_cosine
        if not (batched >= MIN_BATCHED_COSINE[graphs.precision]):
            raise ParityError(
                f"{graphs.precision}: cosine of vectors of tokens alone and batched is only "
                f"{batched:.6f}"
            )
        parity = _agreement(alone, self._expected)
        if graphs.precision == "fp32" and not (parity.min_cosine >= MIN_FP32_COSINE):
            raise ParityError(
                "fp32 graphs do not follow the model: the smallest cosine of vectors of tokens is "
                f"{parity.min_cosine:.6f}"
            )
        return parity


@torch.inference_mode()
def _last_hidden(model: Encoder, text: ReadText) -> FloatArray:
    """The last hidden states (1, tokens, d_model)."""
    token_ids, attended = torch.tensor([text.token_ids]), torch.tensor([text.num_attended])
    hidden: FloatArray = model.hidden_states(token_ids, attended_lengths=attended)[-1].numpy()
    return hidden


def vectors_alone(graphs: EmbeddingGraphs, text: ReadText) -> FloatArray:
    """The vectors (tokens, dimension) of one text."""
    (vectors,) = graphs.run([text.token_ids], [TOKEN_VECTORS], attended_lengths=[text.num_attended])
    alone: FloatArray = vectors[0]
    return alone


@torch.inference_mode()
def projected(dense: nn.Module, hidden: FloatArray) -> FloatArray:
    """The vectors (tokens, dimension) of last hidden states (1, tokens, d_model)."""
    vectors = token_vectors(dense, torch.from_numpy(hidden))
    found: FloatArray = vectors[0].numpy()
    return found


def compare_token_vectors(
    original: OriginalEncoder,
    texts: Sequence[ReadText],
    graphs: Mapping[str, EmbeddingGraphs],
    dense: nn.Module,
) -> list[OriginalVectors]:
    """Compare graphs by precision with hidden states of the original after the dense layers.

    Raises ParityError if vectors of fp32 differ, or if those of another precision are not similar.
    """
    expected = [projected(dense, original.hidden_states(*text)[-1]) for text in texts]
    compared = []
    for precision, opened in graphs.items():
        found = _agreement([vectors_alone(opened, text) for text in texts], expected)
        is_near = found.mean_cosine >= MIN_SAME_MODEL_COSINE
        if not is_near or (precision == "fp32" and not found.min_cosine >= MIN_FP32_COSINE):
            raise ParityError(
                f"{precision} vectors of tokens differ from {IMPLEMENTATION} {original.version}: "
                f"cosine mean {found.mean_cosine:.6f}, least {found.min_cosine:.6f}"
            )
        compared.append(OriginalVectors(precision=precision, embeddings=found))
    return compared


def _agreement(found: Sequence[FloatArray], expected: Sequence[FloatArray]) -> EmbeddingParity:
    """Cosines over all tokens of all texts."""
    similar = np.concatenate([cosines(*pair) for pair in zip(found, expected, strict=True)])
    return agreement(similar, len(found))
