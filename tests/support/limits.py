"""Limits of schedulers that are high enough for a test which does not choose its own."""

from typing import Any

from attendant_server.engine.embedding_scheduler import EmbeddingLimits
from attendant_server.engine.translation_limits import TranslationLimits


def translation_limits(**chosen: Any) -> TranslationLimits:
    """Limits of a translation scheduler: ``chosen``, and high ones."""
    high = {
        "max_rows": 64,
        "max_sentences": 64,
        "max_queued_texts": 1024,
        "max_encode_tokens": 256,
        "max_cache_bytes": 2**62,
        "spare_cache_bytes": 8_000_000,
        "max_run_seconds": 0.01,
    }
    return TranslationLimits(**high | chosen)


def embedding_limits(**chosen: Any) -> EmbeddingLimits:
    """Limits of an embedding scheduler: ``chosen``, and high ones."""
    high = {"max_batch_tokens": 512, "max_batch_seconds": 0.01, "max_queued_texts": 1024}
    return EmbeddingLimits(**high | chosen)
