"""Calls that models with an encoder alone answer, and their results."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.calls import Call, TokenIds

TOKEN_VECTORS = "token_vectors"
"""The output of an embedding model with vectors for late interaction."""
SPARSE_VECTORS = "sparse_vectors"
"""The output of an embedding model with weights of tokens of the vocabulary. A result has only the
weights that are not 0."""
SPARSE_TOKEN_IDS = "sparse_token_ids"
"""The ids of the tokens of these weights, ascending, in a result."""
LABEL_SCORES = "label_scores"
"""The output of an embedding model with the scores of labels."""


class EmbedCall(Call[dict[str, NDArray[np.float32]]]):
    """Embed texts (token ids with their special tokens).

    ``outputs`` names the outputs to return: ``mean_pooled``, ``cls_pooled``, ``max_pooled``, each
    (d,), ``hidden_<layer>`` and ``token_vectors``, each (length, d), ``label_scores`` (labels,), or
    ``sparse_vectors`` (weights,). A text's result maps these names to arrays, and
    ``sparse_token_ids`` to the ids of weights. ``first_lengths`` are the numbers of tokens of type
    0, which come first, of texts that have tokens of both types; empty if no text has.
    ``attended_lengths`` are the numbers of tokens, which come first, that are attended to; empty if
    all tokens are. ``num_prompt_tokens`` are the numbers of first tokens that poolings leave out,
    in a model that leaves out prompts, None for that of the default prompt; empty for it always.
    """

    def __init__(
        self,
        texts: Sequence[TokenIds],
        outputs: tuple[str, ...],
        deadline: float | None = None,
        first_lengths: Sequence[int] = (),
        attended_lengths: Sequence[int] = (),
        num_prompt_tokens: Sequence[int | None] = (),
    ) -> None:
        super().__init__(len(texts), deadline)
        self.texts = texts
        self.outputs = outputs
        self.first_lengths = first_lengths
        self.attended_lengths = attended_lengths
        self.num_prompt_tokens = num_prompt_tokens


@dataclass(frozen=True, slots=True)
class MaskCandidates:
    """The likeliest tokens of each mask of one text, best first, or the given ones, in their order.

    If masks have different numbers of given tokens, shorter rows end in padding of probability 0.
    """

    token_ids: NDArray[np.int64]  # (masks, top_k or given tokens)
    probabilities: NDArray[np.float32]  # the same


class FillMaskCall(Call[MaskCandidates]):
    """Predict the tokens at ``mask_positions`` (indices into the token ids) of each text.

    ``candidate_ids`` has tokens for each mask of each text, whose probabilities are the result;
    empty for the ``top_k`` likeliest tokens.
    """

    def __init__(
        self,
        texts: Sequence[TokenIds],
        mask_positions: Sequence[Sequence[int]],
        top_k: int = 1,
        deadline: float | None = None,
        candidate_ids: Sequence[Sequence[Sequence[int]]] = (),
    ) -> None:
        super().__init__(len(texts), deadline)
        self.texts = texts
        self.mask_positions = mask_positions
        self.top_k = top_k
        self.candidate_ids = candidate_ids
