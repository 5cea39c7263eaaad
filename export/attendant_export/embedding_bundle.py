"""What is particular to bundles of embedding models: graphs, verification, reference outputs."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attendant.v1.bundle_pb2 import (
    MODEL_KIND_EMBEDDING,
    EmbeddingSizes,
    Limits,
    Manifest,
    PrecisionGraphs,
    SpecialTokens,
)
from attendant.v1.embedding_pb2 import POOLING_MEAN
from tokenizers import Tokenizer

from attendant_export.bert import Bert
from attendant_export.bert_training import load_bert_model
from attendant_export.bundle_draft import Draft, rounded
from attendant_export.onnx_graphs import write_embedding_graphs
from attendant_export.quality import measure_embeddings
from attendant_export.tokenizer import BERT_UNK, special_token_id
from attendant_export.verify import ParityError
from attendant_export.verify_embeddings import (
    MIN_BATCHED_COSINE,
    EmbeddingGraphs,
    EmbeddingVerifier,
    VerifiedEmbeddings,
    cosines,
)

logger = logging.getLogger(__name__)

NUM_COMPONENTS = 8
"""Leading components of each reference vector that are stored."""


def write_embedding_files(draft: Draft) -> None:
    """Write and verify the graphs of a run's best model and complete the manifest."""
    model, tokenizer = load_bert_model(draft.run_dir)
    max_tokens = min(draft.max_tokens, model.config.max_positions)
    _describe(draft.manifest, model, tokenizer, max_tokens)
    draft.add_tokenizer(tokenizer)
    texts = draft.reference_texts(tokenizer)
    verifier = EmbeddingVerifier(model, list(texts.values()))
    verified = {}
    for precision in draft.all_precisions():
        folder = draft.folder_of(precision)
        written = write_embedding_graphs(model, precision, folder)
        graphs = open_embedding_graphs(folder, written, draft.manifest)
        logger.info("verifying %s", precision)
        verified[precision] = verifier.verify(precision, graphs)
        draft.manifest.parity.precisions.append(verified[precision].parity)
        if precision in draft.precisions:
            draft.manifest.precisions.append(written)
            for corpus in draft.tests:
                logger.info("measuring %s on %s", precision, corpus.name)
                draft.manifest.quality.extend(
                    measure_embeddings(precision, graphs, tokenizer, corpus, max_tokens)
                )
    outputs = {name: verified[name] for name in draft.precisions}
    draft.add_reference_outputs(_reference_outputs(texts, outputs))


def open_embedding_graphs(
    folder: Path, graphs: PrecisionGraphs, manifest: Manifest
) -> EmbeddingGraphs:
    """The graphs of one precision in ``folder``."""
    return EmbeddingGraphs(folder, graphs, manifest.special_tokens.pad_id)


def _describe(manifest: Manifest, model: Bert, tokenizer: Tokenizer, max_tokens: int) -> None:
    config = model.config
    manifest.kind = MODEL_KIND_EMBEDDING
    manifest.embedding_sizes.CopyFrom(
        EmbeddingSizes(
            d_model=config.d_model,
            num_heads=config.num_heads,
            head_dim=config.d_model // config.num_heads,
            d_feed_forward=config.d_ff,
            num_layers=config.num_layers,
            vocab_size=config.vocab_size,
        )
    )
    manifest.special_tokens.CopyFrom(
        SpecialTokens(
            pad_id=config.pad_id,
            cls_id=config.cls_id,
            sep_id=config.sep_id,
            mask_id=config.mask_id,
            unk_id=special_token_id(tokenizer, BERT_UNK),
        )
    )
    manifest.limits.CopyFrom(Limits(max_tokens=max_tokens))
    manifest.default_pooling = POOLING_MEAN
    manifest.default_normalize = True


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


def check_embedding_outputs(
    folder: Path, manifest: Manifest, tokenizer: Tokenizer, reference: dict[str, Any]
) -> None:
    """Embed the reference texts again, in one batch; raises ParityError if anything differs."""
    token_ids = [entry["token_ids"] for entry in reference["texts"]]
    if [tokenizer.encode(entry["text"]).ids for entry in reference["texts"]] != token_ids:
        raise ParityError("the tokenizer gives other token ids for the reference texts")
    for precision in manifest.precisions:
        graphs = open_embedding_graphs(folder, precision, manifest)
        expected = np.array(reference["outputs"][precision.name]["mean_pooled"], np.float32)
        found = graphs.pooled(token_ids)[0, :, :NUM_COMPONENTS]
        cosine = float(cosines(expected, found).min())
        logger.info("%s: least cosine to the reference outputs %.6f", precision.name, cosine)
        if cosine < MIN_BATCHED_COSINE[precision.name]:
            raise ParityError(f"{precision.name}: reference vectors have cosine {cosine:.6f} only")
