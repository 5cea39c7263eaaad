"""Models over ONNX Runtime on one thread of the host."""

from attendant_server.bundles import Bundle
from attendant_server.runtime.embedding_model import OnnxEmbeddingModel
from attendant_server.runtime.model_graphs import RunCounter
from attendant_server.runtime.translation_model import OnnxTranslationModel


def translation_model(bundle: Bundle, uses_shortlists: bool = False) -> OnnxTranslationModel:
    return OnnxTranslationModel(bundle, 1, "cpu", RunCounter(1), uses_shortlists)


def embedding_model(bundle: Bundle) -> OnnxEmbeddingModel:
    return OnnxEmbeddingModel(bundle, 1, "cpu", RunCounter(1))
