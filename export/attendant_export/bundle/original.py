"""Compares bundles of imported models with the original implementation of their checkpoints."""

from collections.abc import Mapping
from pathlib import Path

from attendant.v1 import embedding_pb2
from attendant.v1.bundle_pb2 import MODEL_KIND_EMBEDDING, Manifest, OriginalParity
from attendant.v1.embedding_pb2 import POOLING_CLS, POOLING_MAX, POOLING_MEAN

from attendant_export.bundle.manifest import (
    BundleError,
    check_files,
    describe_original,
    read_manifest,
)
from attendant_export.bundle.reference_outputs import read_embedding_outputs
from attendant_export.models.encoder import Pooling
from attendant_export.verify.embedding import EmbeddingGraphs
from attendant_export.verify.graph_sessions import ParityError
from attendant_export.verify.original import OriginalEncoder, compare_with_original

POOLINGS: Mapping[embedding_pb2.Pooling.ValueType, Pooling] = {
    POOLING_MEAN: "mean",
    POOLING_CLS: "cls",
    POOLING_MAX: "max",
}


def compare_encoder(
    checkpoint: Path,
    manifest: Manifest,
    texts: Mapping[str, list[int]],
    graphs: Mapping[str, EmbeddingGraphs],
) -> OriginalParity:
    """Compare graphs by precision with the original implementation on texts with token ids.

    Raises OriginalError if it cannot load the checkpoint, and ParityError if the graphs differ.
    """
    pooling = POOLINGS[manifest.embedding.pooling]
    return compare_with_original(OriginalEncoder(checkpoint), texts, graphs, pooling)


def verify_against(folder: Path, checkpoint: Path) -> list[str]:
    """Compare a bundle with the checkpoint that it was imported from, on the reference texts.

    Returns lines that describe the result. Raises BundleError, OriginalError or ParityError.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    if manifest.kind != MODEL_KIND_EMBEDDING:
        raise BundleError(f"{folder}: only embedding models can be compared with their original")
    outputs = read_embedding_outputs(folder, manifest)
    texts = {text["text"]: text["token_ids"] for text in outputs["texts"]}
    graphs = {p.name: EmbeddingGraphs(folder, p, manifest) for p in manifest.precisions}
    parity = compare_encoder(checkpoint, manifest, texts, graphs)
    if parity.num_different_token_ids:
        raise ParityError("; ".join(describe_original(parity)))
    return describe_original(parity)
