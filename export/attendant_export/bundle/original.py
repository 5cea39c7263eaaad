"""Compares bundles of imported models with the original implementation of their checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attendant.v1 import embedding_pb2
from attendant.v1.bundle_pb2 import (
    MODEL_KIND_EMBEDDING,
    Manifest,
    OriginalParity,
    PrecisionGraphs,
)
from attendant.v1.embedding_pb2 import POOLING_CLS, POOLING_MAX, POOLING_MEAN

from attendant_export.bundle.manifest import (
    check_files,
    describe_original,
    read_manifest,
)
from attendant_export.bundle.reference_outputs import (
    check_has_reference_outputs,
    read_embedding_outputs,
    read_translation_outputs,
)
from attendant_export.models.encoder import Pooling
from attendant_export.verify.embedding import EmbeddingGraphs
from attendant_export.verify.graph_sessions import ParityError, TranslationGraphs
from attendant_export.verify.language_samples import language_samples
from attendant_export.verify.original import OriginalEncoder, compare_with_original
from attendant_export.verify.original_translation import OriginalTranslator, compare_translations

POOLINGS: Mapping[embedding_pb2.Pooling.ValueType, Pooling] = {
    POOLING_MEAN: "mean",
    POOLING_CLS: "cls",
    POOLING_MAX: "max",
}


def compare_model(
    checkpoint: Path,
    manifest: Manifest,
    outputs: Mapping[str, Any],
    folders: Sequence[tuple[Path, PrecisionGraphs]],
) -> OriginalParity:
    """Compare graphs, each with its folder, with the original implementation.

    The texts and their token ids are those of the reference outputs. Raises OriginalError if the
    original cannot load the checkpoint, and ParityError if the graphs differ.
    """
    if manifest.kind == MODEL_KIND_EMBEDDING:
        encoders = {p.name: EmbeddingGraphs(folder, p, manifest) for folder, p in folders}
        pooling = POOLINGS[manifest.embedding.pooling]
        texts = {text["text"]: text["token_ids"] for text in outputs["texts"]}
        return compare_with_original(OriginalEncoder(checkpoint), texts, encoders, pooling)
    translators = {p.name: TranslationGraphs(folder, p, manifest) for folder, p in folders}
    return compare_translations(
        OriginalTranslator(checkpoint),
        language_samples(manifest, outputs["texts"]),
        translators,
        manifest.decoding,
        {p.precision: p.log_probability_bound for p in manifest.parity.precisions},
        manifest.limits.max_target_tokens,
    )


def verify_against(folder: Path, checkpoint: Path) -> list[str]:
    """Compare a bundle with the checkpoint that it was imported from, on the reference texts.

    Returns lines that describe the result. Raises BundleError, OriginalError or ParityError.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    check_has_reference_outputs(folder, manifest)
    is_embedding = manifest.kind == MODEL_KIND_EMBEDDING
    read_outputs = read_embedding_outputs if is_embedding else read_translation_outputs
    parity = compare_model(
        checkpoint,
        manifest,
        read_outputs(folder, manifest),
        [(folder, precision) for precision in manifest.precisions],
    )
    if parity.num_different_token_ids:
        raise ParityError("; ".join(describe_original(parity)))
    return describe_original(parity)
