"""Whether the memory suffices for a model to be loaded, and for the caches of all models."""

import logging

from attendant_glossaries import MAX_ENTRIES, MAX_TARGETS
from attendant_manifest.translation_rules import glossary_path

from attendant_server.application.descriptions import ModelKind
from attendant_server.bundles import Bundle, BundleError
from attendant_server.system.memory import host_memory

BYTES_PER_BYTE = {
    ModelKind.TRANSLATION: 7.0,
    ModelKind.EMBEDDING: 4.5,
    ModelKind.LANGUAGE_MODEL: 7.0,
}
"""Resident memory of a loaded model, relative to the files that are loaded. ONNX Runtime keeps the
weights of each graph in the order in which its kernels read them."""
ATTENTION_BYTES_PER_BYTE = 1.5
"""The same for an attention graph, which is opened later, relative to the weights."""
BYTES_PER_GLOSSARY_ENTRY = 600
"""Memory of an entry of a glossary while it is read, without its translations, in addition to the
bytes of its file."""
MIN_ENTRY_BYTES = 4
"""The fewest bytes of an entry in a file."""
BYTES_PER_TRANSLATION = 80
"""Memory of a translation of an entry, in addition to the bytes of its file."""
MIN_TRANSLATION_BYTES = 3
"""The fewest bytes of a translation that takes memory of its own, with its separator. Shorter ones
are single ASCII letters, which share theirs."""
MEGABYTE = 1_000_000

logger = logging.getLogger(__name__)


def check_memory(bundle: Bundle) -> None:
    """Raise BundleError if the free memory does not suffice to load a bundle."""
    _check_free(bundle, needed_bytes(bundle))


def check_attention_memory(bundle: Bundle) -> None:
    """Raise BundleError if the free memory does not suffice to open the attention graph."""
    weights = set(bundle.graphs.weights)
    size = sum(file.size_bytes for file in bundle.manifest.files if file.path in weights)
    _check_free(bundle, int(ATTENTION_BYTES_PER_BYTE * size))


def _check_free(bundle: Bundle, needed: int) -> None:
    memory = host_memory()
    free = memory.limit - memory.used
    if needed > free:
        raise BundleError(
            f"{bundle.directory}: needs about {needed / MEGABYTE:.0f} MB of memory, but "
            f"{free / MEGABYTE:.0f} MB of {memory.limit / MEGABYTE:.0f} MB are free"
        )


def warn_of_caches(max_cache_bytes: int) -> None:
    """Log a warning if the caches of the loaded models could take more than the free memory."""
    memory = host_memory()
    if memory.used + max_cache_bytes > memory.limit:
        logger.warning(
            "event=memory_may_run_out used_bytes=%d max_cache_bytes=%d limit_bytes=%d %s",
            memory.used,
            max_cache_bytes,
            memory.limit,
            "raise the memory limit, or lower max_cache_bytes or max_rows",
        )


def needed_bytes(bundle: Bundle) -> int:
    """An estimate of the memory that a bundle takes once it is loaded, without caches."""
    of_files = int(BYTES_PER_BYTE[ModelKind(bundle.manifest.kind)] * bundle.num_loaded_bytes)
    paths = set(map(glossary_path, bundle.manifest.glossaries))
    glossaries = (file.size_bytes for file in bundle.manifest.files if file.path in paths)
    return of_files + sum(map(_bytes_of_terms, glossaries))


def _bytes_of_terms(num_file_bytes: int) -> int:
    """The most memory of the terms of a glossary, in addition to that of its bytes."""
    num_entries = min(MAX_ENTRIES, num_file_bytes // MIN_ENTRY_BYTES)
    num_translations = min(MAX_ENTRIES * MAX_TARGETS, num_file_bytes // MIN_TRANSLATION_BYTES)
    return BYTES_PER_GLOSSARY_ENTRY * num_entries + BYTES_PER_TRANSLATION * num_translations
