"""Export and verification of bundles of embedding models: graphs and reference outputs."""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attendant.v1.bundle_pb2 import (
    MODEL_KIND_EMBEDDING,
    Classification,
    EmbeddingDefaults,
    LateInteraction,
    Limits,
    Manifest,
    PrecisionGraphs,
    PrecisionParity,
    QualityFigure,
    SpecialTokens,
)
from attendant.v1.embedding_pb2 import POOLING_MEAN
from tokenizers import Tokenizer

from attendant_export.bundle.classification import (
    SCORES,
    LabelExport,
    check_label_scores,
    classified_texts,
    read_classified,
)
from attendant_export.bundle.controls import ControlOption
from attendant_export.bundle.draft import ROUNDING, Draft, TestTexts, rounded
from attendant_export.bundle.reference_outputs import (
    NUM_COMPONENTS,
    checked_token_ids,
    log_probability_bounds,
    read_embedding_outputs,
)
from attendant_export.bundle.sparse_vectors import FIELD as SPARSE
from attendant_export.bundle.sparse_vectors import (
    SparseExport,
    check_sparse_form,
    check_sparse_vectors,
)
from attendant_export.bundle.token_vectors import check_token_vectors, mean_vectors
from attendant_export.data.corpus import Corpus
from attendant_export.data.tokenizer import unknown_token_id
from attendant_export.graphs.token_vectors import TOKEN_VECTORS
from attendant_export.graphs.writer import write_embedding_graphs
from attendant_export.models.embeddings import longest_text
from attendant_export.models.encoder import Encoder
from attendant_export.runs.models import load_model
from attendant_export.verify.bounds import largest
from attendant_export.verify.embedding import (
    MIN_BATCHED_COSINE,
    MIN_MEAN_COSINE,
    EmbeddingGraphs,
    EmbeddingVerifier,
    FloatArray,
    MaskedText,
    VerifiedEmbeddings,
    batched_difference,
)
from attendant_export.verify.graph_sessions import ParityError
from attendant_export.verify.quality import measure_embeddings
from attendant_export.verify.token_vectors import TokenVectorVerifier

logger = logging.getLogger(__name__)

DEFAULTS = EmbeddingDefaults(pooling=POOLING_MEAN, normalize=True)
"""Defaults of Embed for models that the exporter trains."""
NUM_GUESSES = 3
"""Number of candidates that the model card shows for a mask."""


def set_languages(manifest: Manifest, languages: Sequence[str], _facts: Manifest | None) -> None:
    """Write the languages of a data card into the manifest."""
    manifest.languages.extend(languages)


def describe_use(manifest: Manifest) -> str:
    """A sentence on languages and limits, for the model card."""
    languages = ", ".join(manifest.languages) or "languages that its source does not state"
    use = f"Reads {languages}, texts of at most {manifest.limits.max_tokens} tokens."
    if manifest.architecture.HasField("token_vectors"):
        use += " `EmbedTokens` returns vectors of tokens for late interaction"
        roles = (
            "; its roles are queries, of at most "
            f"{manifest.late_interaction.max_query_tokens} tokens, and documents"
        )
        use += f"{roles if manifest.HasField('late_interaction') else ''}."
    if manifest.architecture.HasField("sparse_vectors"):
        use += " `EmbedSparse` returns weights of the tokens of the vocabulary."
    return use


class EmbeddingExport:
    """The export of an embedding model; `kinds.ModelExport` describes the steps."""

    example_title: str = "best guesses"

    def __init__(
        self,
        model: Encoder,
        tokenizer: Tokenizer,
        draft: Draft,
        defaults: EmbeddingDefaults | None = None,
        classification: Classification | None = None,
        late_interaction: LateInteraction | None = None,
    ) -> None:
        """Complete the draft's manifest and embed the reference texts with the PyTorch model.

        ``defaults`` are those of Embed. None: mean pooling of normalized vectors.
        ``classification`` has the labels of a model with a classification head,
        ``late_interaction`` the roles of texts of a model of late interaction. Raises ValueError if
        its queries exceed the limit of tokens.
        """
        self._model, self._tokenizer, self._draft = model, tokenizer, draft
        self._max_tokens = longest_text(model.architecture, draft.max_tokens)
        _describe(draft.manifest, model, tokenizer, self._max_tokens)
        draft.manifest.embedding.CopyFrom(defaults or DEFAULTS)
        if late_interaction is not None:
            _check_query_length(late_interaction, self._max_tokens)
            draft.manifest.late_interaction.CopyFrom(late_interaction)
        draft.add_tokenizer(tokenizer)
        self._texts = draft.reference_texts(tokenizer, self._max_tokens)
        self._verifier = EmbeddingVerifier(
            model, list(self._texts.values()), draft.manifest.embedding.num_prompt_tokens
        )
        self._verified: dict[str, VerifiedEmbeddings] = {}
        has_sparse = model.architecture.HasField("sparse_vectors")
        self._sparse = SparseExport(model, list(self._texts.values())) if has_sparse else None
        self._token_vectors: dict[str, list[list[float]]] = {}
        self._labels: LabelExport | None = None
        if classification is not None:
            draft.manifest.classification.CopyFrom(classification)
            texts = classified_texts(self._texts, tokenizer, draft.manifest)
            self._labels = LabelExport(model, texts)

    @cached_property
    def _token_verifier(self) -> TokenVectorVerifier:
        texts, hidden = list(self._texts.values()), self._verifier.last_hidden
        return TokenVectorVerifier(self._model, texts, hidden, self._draft.manifest)

    def write(self, precision: str) -> PrecisionGraphs:
        """Write the graphs and weights of one precision."""
        folder = self._draft.folder_of(precision)
        # Half of the texts that precisions are compared on, so that the other half is new to them.
        texts = list(self._texts.values())[::2]
        return write_embedding_graphs(self._model, precision, folder, self._max_tokens, texts)

    def verify(self, written: PrecisionGraphs) -> PrecisionParity:
        """Compare the graphs of one precision with the model."""
        graphs = self._open(written)
        verified = self._verifier.verify(written.name, graphs)
        self._verified[written.name] = verified
        _warn_of_distance(verified.parity)
        if self._labels is not None:
            self._labels.verify(graphs, verified.parity)
        if self._sparse is not None:
            self._sparse.verify(graphs, verified.parity)
        if self._model.architecture.HasField("token_vectors"):
            verified.parity.token_vectors.CopyFrom(self._token_verifier.verify(graphs))
            texts = list(self._texts.values())
            self._token_vectors[written.name] = mean_vectors(graphs, texts)
        return verified.parity

    def measure(self, written: PrecisionGraphs, test: TestTexts) -> list[QualityFigure]:
        """Retrieval accuracy of one precision on the pairs of ``test``."""
        assert isinstance(test, Corpus)
        return measure_embeddings(
            written.name, self._open(written), self._tokenizer, test, self._max_tokens
        )

    def reference_outputs(self) -> dict[str, Any]:
        """The vectors and mask candidates of each precision of the bundle."""
        found = {name: self._verified[name] for name in self._draft.precisions}
        outputs = _reference_outputs(self._texts, found)
        if self._labels is not None:
            self._labels.add_reference_outputs(outputs)
        if self._sparse is not None:
            self._sparse.add_reference_outputs(outputs)
        if self._token_vectors:
            for precision, content in outputs["outputs"].items():
                content[TOKEN_VECTORS] = self._token_vectors[precision]
        return outputs

    def example_outputs(self, texts: Sequence[str]) -> list[str]:
        """The model's best candidates for the first "[MASK]" of each text.

        Raises ValueError for a text without "[MASK]".
        """
        return [_best_guesses(self._model, self._tokenizer, text) for text in texts]

    def _open(self, written: PrecisionGraphs) -> EmbeddingGraphs:
        folder = self._draft.folder_of(written.name)
        return EmbeddingGraphs(folder, written, self._draft.manifest)


@torch.inference_mode()
def _best_guesses(model: Encoder, tokenizer: Tokenizer, text: str) -> str:
    token_ids = tokenizer.encode(text).ids
    if model.tokens.mask_id not in token_ids:
        raise ValueError(f"an example of the data card has no [MASK]: {text}")
    hidden = model(torch.tensor([token_ids]))[0, token_ids.index(model.tokens.mask_id)]
    best = model.mask_logits(hidden[None]).topk(NUM_GUESSES).indices[0]
    return ", ".join(str(tokenizer.id_to_token(int(i))) for i in best)


def export_of_run(
    run_dir: Path, draft: Draft, _controls: Sequence[ControlOption], num_averaged: int | None
) -> EmbeddingExport:
    """The export of a run, with the weights of `load_model`. Embedding models have no controls."""
    model, tokenizer = load_model(run_dir, num_averaged)
    assert isinstance(model, Encoder)
    return EmbeddingExport(model, tokenizer, draft)


def _describe(manifest: Manifest, model: Encoder, tokenizer: Tokenizer, max_tokens: int) -> None:
    tokens = model.tokens
    manifest.kind = MODEL_KIND_EMBEDDING
    manifest.architecture.CopyFrom(model.architecture)
    manifest.special_tokens.CopyFrom(
        SpecialTokens(
            pad_id=tokens.pad_id,
            cls_id=tokens.cls_id,
            sep_id=tokens.sep_id,
            mask_id=tokens.mask_id,
            unk_id=unknown_token_id(tokenizer),
        )
    )
    manifest.limits.CopyFrom(Limits(max_tokens=max_tokens))


def _check_query_length(part: LateInteraction, max_tokens: int) -> None:
    if part.max_query_tokens > max_tokens:
        raise ValueError(
            f"the limit of {max_tokens} tokens is less than the {part.max_query_tokens} tokens of "
            "queries"
        )


def _warn_of_distance(parity: PrecisionParity) -> None:
    mean, floor = parity.embeddings.mean_cosine, MIN_MEAN_COSINE[parity.precision]
    if not (mean >= floor):
        logger.warning(
            "%s vectors have a mean cosine of %.5f to the model's, less than %g",
            parity.precision,
            mean,
            floor,
        )


def _reference_outputs(
    texts: Mapping[str, list[int]], outputs: Mapping[str, VerifiedEmbeddings]
) -> dict[str, Any]:
    masked = next(iter(outputs.values())).masked
    return {
        "texts": [{"text": text, "token_ids": ids} for text, ids in texts.items()],
        "masked": [{"token_ids": m.token_ids, "position": m.position} for m in masked],
        "outputs": {
            precision: {
                "mean_pooled": [rounded(v[:NUM_COMPONENTS]) for v in found.mean_pooled],
                "norms": rounded(np.linalg.norm(found.mean_pooled, axis=1)),
                "masked": [
                    {
                        "candidate_ids": m.candidate_ids,
                        "log_probabilities": rounded(m.log_probabilities),
                    }
                    for m in found.masked
                ],
            }
            for precision, found in outputs.items()
        },
    }


def check_embedding_outputs(folder: Path, manifest: Manifest, tokenizer: Tokenizer) -> list[str]:
    """Embed the reference texts and fill their masks again, all in one batch.

    Returns one line per precision that describes the comparison. Raises ParityError if token ids
    differ, or if vectors or log-probabilities differ by more than their bounds. Raises BundleError
    or GraphError if the reference outputs or a graph cannot be read.
    """
    reference = read_embedding_outputs(folder, manifest)
    token_ids = checked_token_ids(reference["texts"], tokenizer, manifest)
    bounds = log_probability_bounds(manifest)
    checked = []
    for precision in manifest.precisions:
        name, stored = precision.name, reference["outputs"][precision.name]
        graphs = EmbeddingGraphs(folder, precision, manifest)
        (vectors,) = graphs.run(token_ids, ["mean_pooled"])
        limit = _check_vectors(name, vectors, stored)
        masked = [
            MaskedText(**text, **output)
            for text, output in zip(reference["masked"], stored["masked"], strict=True)
        ]
        bound = bounds[name]
        moved = batched_difference(graphs, masked)
        if not (moved <= bound + ROUNDING):
            raise ParityError(
                f"{name}: log-probabilities of reference masks differ by {moved:.2g}; the bound "
                f"is {bound:.2g}"
            )
        checked.append(
            f"{name}: {NUM_COMPONENTS} components and the norms of {len(vectors)} mean-pooled "
            f"vectors within {limit:.2%}"
        )
        if manifest.HasField("classification"):
            texts = read_classified(folder / manifest.reference_outputs, reference, manifest)
            checked[-1] += ", " + check_label_scores(graphs, texts, stored[SCORES])
        if manifest.architecture.HasField("sparse_vectors"):
            check_sparse_form(folder / manifest.reference_outputs, reference, manifest)
            checked[-1] += ", " + check_sparse_vectors(graphs, token_ids, stored[SPARSE])
        if manifest.architecture.HasField("token_vectors"):
            path = folder / manifest.reference_outputs
            checked[-1] += ", " + check_token_vectors(path, reference, manifest, graphs, token_ids)
        if masked:
            checked[-1] += (
                f", log-probabilities of candidates for {len(masked)} masks within {bound:.2g}"
            )
    return checked


def _check_vectors(precision: str, found: FloatArray, stored: dict[str, Any]) -> float:
    """Compare with the stored components and norms. Returns the allowed relative difference."""
    # The relative distance between two vectors of equal length with this cosine.
    limit = float(np.sqrt(2 * (1 - MIN_BATCHED_COSINE[precision])))
    components, norms = np.array(stored["mean_pooled"]), np.array(stored["norms"])
    first = found[:, :NUM_COMPONENTS]
    if first.shape != components.shape:
        raise ParityError(f"{precision}: reference vectors have another number of components")
    apart = np.linalg.norm(first - components, axis=1)
    moved = largest(
        [
            *_relative(apart, np.linalg.norm(components, axis=1)),
            *_relative(np.abs(np.linalg.norm(found, axis=1) - norms), norms),
        ]
    )
    if not (moved <= limit):
        raise ParityError(
            f"{precision}: reference vectors differ by {moved:.2%}; the bound is {limit:.2%}"
        )
    return limit


def _relative(differences: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Differences relative to sizes; to 1 where the size is zero, as for a text without tokens."""
    return np.asarray(differences / np.where(sizes == 0, 1, sizes))
