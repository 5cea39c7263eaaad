"""Whether the texts of a model are normalized unless a request says otherwise."""

from attendant.v1 import bundle_pb2, text_pb2


def normalizes_texts(manifest: bundle_pb2.Manifest) -> bool:
    """Whether texts are normalized by default: also those of trained models that do not say so."""
    if manifest.kind == bundle_pb2.MODEL_KIND_LANGUAGE_MODEL:
        return False  # a continuation goes on from the very characters of its prompt
    if manifest.text_normalization:
        return manifest.text_normalization == text_pb2.TEXT_NORMALIZATION_STANDARD
    return not manifest.provenance.HasField("imported_from")
