"""Models over ONNX Runtime on one thread of the host."""

from pathlib import Path

from attendant.v1.bundle_pb2 import Limits
from attendant_export.graphs.writer import write_translation_graphs
from attendant_server.bundles import Bundle
from attendant_server.runtime.embedding_model import OnnxEmbeddingModel
from attendant_server.runtime.model_graphs import RunCounter
from attendant_server.runtime.translation_model import OnnxTranslationModel

from tests.support.graphs import manifest_of, tiny_transformer


def random_bundle(
    folder: Path,
    max_tokens: int,
    precision: str,
    vocab_size: int = 50,
    penalizes_repetition: bool = False,
) -> Bundle:
    """A bundle of a model with random weights for texts of at most ``max_tokens``."""
    model = tiny_transformer(norm_first=True, vocab_size=vocab_size)
    graphs = write_translation_graphs(
        *(model, precision, folder, max_tokens), penalizes_repetition=penalizes_repetition
    )
    manifest = manifest_of(model)
    manifest.limits.CopyFrom(Limits(max_source_tokens=max_tokens, max_target_tokens=max_tokens))
    manifest.precisions.add().CopyFrom(graphs)
    return Bundle(folder, manifest, precision)


def translation_model(bundle: Bundle, uses_shortlists: bool = False) -> OnnxTranslationModel:
    return OnnxTranslationModel(bundle, 1, "cpu", RunCounter(1), uses_shortlists)


def embedding_model(bundle: Bundle) -> OnnxEmbeddingModel:
    return OnnxEmbeddingModel(bundle, 1, "cpu", RunCounter(1))
