"""Compares the graphs of an embedding bundle with the PyTorch model that they were exported from.

Works on token ids and does not depend on text or files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from attendant.v1.bundle_pb2 import EmbeddingParity, Manifest, PrecisionGraphs, PrecisionParity
from attendant_manifest.rules import MAX_LOG_PROBABILITY_BOUNDS
from numpy.typing import NDArray

from attendant_export.data.batches import pad
from attendant_export.graphs.classification import FIRST_LENGTHS, LABEL_SCORES
from attendant_export.graphs.sparse_head import SPARSE_VECTORS
from attendant_export.graphs.text_vectors import NUM_PROMPT_TOKENS
from attendant_export.graphs.token_vectors import ATTENDED_LENGTHS
from attendant_export.models.encoder import Encoder
from attendant_export.models.text_vectors import poolings_of
from attendant_export.progress import progress
from attendant_export.verify.attention import check_text_attention
from attendant_export.verify.bounds import FP32_BOUND, largest, stated_bound
from attendant_export.verify.graph_sessions import (
    GraphSession,
    ParityError,
    check_finite,
    check_token_ids,
)

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

MIN_FP32_COSINE = 0.99999
MIN_MEAN_COSINE = {"fp32": MIN_FP32_COSINE, "fp16": 0.9999, "int8": 0.99}
"""A precision with a lower mean cosine to the model's vectors logs a warning."""
MIN_BATCHED_COSINE = {"fp32": 0.999999, "fp16": 0.99999, "int8": 0.99999}
"""Lower bound of the cosine between a text's vectors alone and in a batch, which allows only for
rounding. A shared scale for the activations of a whole batch would fail it."""
NUM_CANDIDATES = 5


@dataclass(frozen=True, slots=True)
class MaskedText:
    """A text with one masked token, and the graphs' candidates for it."""

    token_ids: list[int]
    position: int
    candidate_ids: list[int]
    log_probabilities: list[float]


@dataclass(frozen=True, slots=True)
class VerifiedEmbeddings:
    """The comparison of one precision, with the outputs of its graphs."""

    parity: PrecisionParity
    mean_pooled: FloatArray  # (texts, dimension)
    masked: list[MaskedText]


class EmbeddingGraphs:
    """The graphs of one precision of an embedding bundle."""

    def __init__(self, folder: Path, graphs: PrecisionGraphs, manifest: Manifest) -> None:
        """``manifest`` provides the vocabulary and the padding token. Raises GraphError."""
        self.vocab_size = manifest.architecture.source_embeddings.vocab_size
        self.precision = graphs.name
        self._pad_id = manifest.special_tokens.pad_id
        self.embedder = GraphSession(folder, graphs.embedder)
        self._poolings = poolings_of(manifest.architecture)
        self._num_prompt_tokens = (
            manifest.embedding.num_prompt_tokens
            if manifest.architecture.text_vectors.excludes_prompt
            else None
        )
        has_head = graphs.HasField("mlm_head")
        self.mlm_head = GraphSession(folder, graphs.mlm_head) if has_head else None
        has_sparse = graphs.HasField("sparse_head")
        self._sparse_head = GraphSession(folder, graphs.sparse_head) if has_sparse else None
        has_attention = graphs.HasField("attention")
        self.attention = GraphSession(folder, graphs.attention) if has_attention else None
        self._reads_pairs = FIRST_LENGTHS in self.embedder.input_names
        self._has_unattended_tokens = ATTENDED_LENGTHS in self.embedder.input_names
        names = self.embedder.output_names
        self.hidden_names = sorted(
            (n for n in names if n.startswith("hidden_")), key=lambda n: int(n.split("_")[1])
        )

    def run(
        self,
        texts: Sequence[Sequence[int]],
        names: Sequence[str],
        first_lengths: Sequence[int] = (),
        attended_lengths: Sequence[int] = (),
    ) -> list[FloatArray]:
        """The outputs ``names`` of one padded batch. Raises ParityError for NaN or infinity.

        ``first_lengths`` are the numbers of tokens of type 0; by default, all tokens are.
        ``attended_lengths`` are the numbers of tokens that are attended to, by default all.
        """
        lengths = np.array([len(ids) for ids in texts])
        inputs = {"token_ids": pad(texts, self._pad_id).numpy(), "lengths": lengths}
        if self._reads_pairs:
            inputs[FIRST_LENGTHS] = np.array(first_lengths) if first_lengths else lengths
        if self._has_unattended_tokens:
            inputs[ATTENDED_LENGTHS] = np.array(attended_lengths) if attended_lengths else lengths
        if self._num_prompt_tokens is not None:
            inputs[NUM_PROMPT_TOKENS] = np.full(len(texts), self._num_prompt_tokens)
        outputs: list[FloatArray] = self.embedder.run(names, inputs)
        for name, output in zip(names, outputs, strict=True):
            check_finite(f"embedder, {name},", output)
        return outputs

    def label_scores(
        self, texts: Sequence[Sequence[int]], first_lengths: Sequence[int]
    ) -> FloatArray:
        """Scores of labels (texts, labels), computed in one padded batch."""
        return self.run(texts, [LABEL_SCORES], first_lengths)[0]

    def sparse_vectors(self, texts: Sequence[Sequence[int]]) -> FloatArray:
        """Weights of tokens (texts, vocab), computed in one padded batch."""
        assert self._sparse_head is not None
        (hidden,) = self.run(texts, self.hidden_names[-1:])
        inputs = {"hidden": hidden, "lengths": np.array([len(ids) for ids in texts])}
        (vectors,) = self._sparse_head.run([SPARSE_VECTORS], inputs)
        check_finite("sparse_head", vectors)
        found: FloatArray = vectors
        return found

    def pooled(self, texts: Sequence[Sequence[int]]) -> FloatArray:
        """Vectors (poolings, texts, dimension) of all poolings, computed in one padded batch."""
        return np.stack(self.run(texts, [f"{name}_pooled" for name in self._poolings]))

    def fill(self, token_ids: Sequence[int], position: int) -> MaskedText:
        """The best candidates for the token at ``position``, which is masked."""
        (hidden,) = self.run([token_ids], self.hidden_names[-1:])
        ids, probabilities = self.candidates(hidden[0, [position]], NUM_CANDIDATES)
        log_p = np.log(probabilities[0]).tolist()
        return MaskedText(list(token_ids), position, ids[0].tolist(), log_p)

    def candidates(self, hidden: FloatArray, num_candidates: int) -> tuple[IntArray, FloatArray]:
        """Ids and probabilities, each (rows, candidates), of the best tokens for each row."""
        assert self.mlm_head is not None
        inputs = {"hidden": hidden, "top_k": np.array([num_candidates])}
        names = ["candidate_ids", "candidate_probabilities"]
        ids, probabilities = self.mlm_head.run(names, inputs)
        check_finite("mlm_head", probabilities)
        return ids, probabilities


class EmbeddingVerifier:
    """Runs the PyTorch model once, then compares each precision with it."""

    def __init__(
        self, model: Encoder, texts: Sequence[Sequence[int]], num_prompt_tokens: int = 0
    ) -> None:
        """Poolings leave out the first ``num_prompt_tokens`` tokens."""
        self._model, self._texts, self._num_prompt_tokens = model, texts, num_prompt_tokens
        self._hidden = [self._hidden_states(ids) for ids in progress(texts, "running the model")]
        pooled = [self._pool(ids, h[-1]) for ids, h in zip(texts, self._hidden, strict=True)]
        self._pooled = np.stack(pooled, axis=1)

    @property
    def last_hidden(self) -> list[FloatArray]:
        """The model's last hidden states (1, length, d_model) of each text."""
        return [states[-1] for states in self._hidden]

    @torch.inference_mode()
    def _hidden_states(self, token_ids: Sequence[int]) -> list[FloatArray]:
        return [h.numpy() for h in self._model.hidden_states(torch.tensor([list(token_ids)]))]

    @torch.inference_mode()
    def _pool(self, token_ids: Sequence[int], hidden: FloatArray) -> FloatArray:
        states, ids = torch.from_numpy(hidden), torch.tensor([list(token_ids)])
        mask = torch.ones(states.shape[:2], dtype=torch.bool)
        vectors = [
            self._model.vectors(states, ids, mask, pooling, self._num_prompt_tokens)[0]
            for pooling in self._model.poolings
        ]
        return np.stack([vector.numpy() for vector in vectors])  # (poolings, dimension)

    def verify(self, precision: str, graphs: EmbeddingGraphs) -> VerifiedEmbeddings:
        """Compare ``graphs`` with the model.

        Raises ParityError if a result depends on the other texts of a batch, if a result is NaN or
        infinity, or if fp32 differs from the model.
        """
        texts = progress(self._texts, "embedding")
        alone = np.concatenate([graphs.pooled([ids]) for ids in texts], axis=1)
        together = graphs.pooled(self._texts)
        batched = float(cosines(alone, together).min())
        if not (batched >= MIN_BATCHED_COSINE[precision]):
            raise ParityError(f"{precision}: cosine of alone and batched is only {batched:.6f}")
        similar = cosines(alone, self._pooled)  # (poolings, texts)
        with_mask = self._texts if graphs.mlm_head is not None else []
        masked = [self._fill(graphs, ids) for ids in with_mask if len(ids) > 2]
        difference = self._candidate_difference(masked)
        if precision == "fp32":
            self._check_fp32(graphs, float(similar.min()), difference)
        parity = PrecisionParity(
            precision=precision,
            embeddings=agreement(similar[0], len(self._texts)),
        )
        if graphs.attention is not None:
            parity.max_attention_difference = check_text_attention(
                precision, graphs.attention, self._model, self._texts
            )
        if masked:
            parity.max_log_probability_difference = difference
            parity.log_probability_bound = self._bound(precision, graphs, masked)
        return VerifiedEmbeddings(parity, alone[0], masked)

    def _fill(self, graphs: EmbeddingGraphs, token_ids: Sequence[int]) -> MaskedText:
        """Mask the middle token."""
        position, mask_id = len(token_ids) // 2, self._model.tokens.mask_id
        assert mask_id is not None, "a rule of manifests"
        masked = [*token_ids[:position], mask_id, *token_ids[position + 1 :]]
        return graphs.fill(masked, position)

    @torch.inference_mode()
    def _candidate_difference(self, masked: Sequence[MaskedText]) -> float:
        """Largest difference between candidates' log-probabilities and those of the model."""
        differences = []
        for text in masked:
            hidden = self._model(torch.tensor([text.token_ids]))[0, [text.position]]
            log_p = self._model.mask_logits(hidden).float().log_softmax(-1)[0]
            expected = log_p[text.candidate_ids].numpy()
            differences.append(float(np.abs(expected - text.log_probabilities).max()))
        return largest(differences)

    def _bound(
        self, precision: str, graphs: EmbeddingGraphs, masked: Sequence[MaskedText]
    ) -> float:
        """The bound for changes of candidates' log-probabilities when texts share a batch."""
        moved = batched_difference(graphs, masked)
        bound = stated_bound(precision, moved)
        if not (moved <= bound <= MAX_LOG_PROBABILITY_BOUNDS[precision]):
            raise ParityError(f"{precision}: mask candidates differ by {moved:.2g} when batched")
        return bound

    def _check_fp32(self, graphs: EmbeddingGraphs, cosine: float, difference: float) -> None:
        problems = []
        if not (cosine >= MIN_FP32_COSINE):
            problems.append(f"smallest cosine is {cosine:.6f}")
        if not (difference <= FP32_BOUND):
            problems.append(f"mask candidates differ by {difference:.2g}")
        for ids, states in zip(self._texts, self._hidden, strict=True):
            for name, ours, theirs in zip(
                graphs.hidden_names, states, graphs.run([ids], graphs.hidden_names), strict=True
            ):
                limit = FP32_BOUND * np.abs(ours).max(initial=1.0)
                if not (np.abs(ours - theirs).max() <= limit):
                    problems.append(f"{name} of a text of {len(ids)} tokens differs")
        if problems:
            raise ParityError("fp32 graphs do not follow the model: " + "; ".join(problems))


def batched_difference(graphs: EmbeddingGraphs, masked: Sequence[MaskedText]) -> float:
    """Largest change of log-probabilities when all texts of ``masked`` share one batch.

    Compares the log-probabilities of the stored candidates, and those of the best tokens in rank
    order. 0 for a model without a masked-language-model head, which has no such texts.
    """
    if not masked:
        return 0.0
    (hidden,) = graphs.run([text.token_ids for text in masked], graphs.hidden_names[-1:])
    rows = hidden[range(len(masked)), [text.position for text in masked]]
    ids, probabilities = graphs.candidates(rows, graphs.vocab_size)
    check_token_ids("mlm_head", ids, graphs.vocab_size)
    by_id = np.empty_like(probabilities)
    np.put_along_axis(by_id, ids, probabilities, axis=1)
    differences = []
    for text, row, best in zip(masked, by_id, probabilities, strict=True):
        for found in (row[text.candidate_ids], best[: len(text.candidate_ids)]):
            differences.append(float(np.abs(np.log(found) - text.log_probabilities).max()))
    return largest(differences)


def agreement(similar: FloatArray, num_texts: int) -> EmbeddingParity:
    """The least and the mean of cosines."""
    return EmbeddingParity(
        num_texts=num_texts, min_cosine=float(similar.min()), mean_cosine=float(similar.mean())
    )


def cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    """Cosines along the last dimension of ``a`` and ``b``, which have the same shape.

    Two vectors of zeros have a cosine of 1, a vector of zeros and another one have 0.
    """
    norms, others = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
    products = norms * others
    found = (a * b).sum(-1) / np.where(products == 0, 1, products)
    return np.where((norms == 0) & (others == 0), 1, found).astype(np.float32)
