"""Opens the attention graph of a model for its first call, if the memory suffices."""

import logging
from collections.abc import Callable
from functools import partial

from attendant_server.bundle_faults import without_paths
from attendant_server.bundles import BundleError
from attendant_server.errors import ModelNotLoaded
from attendant_server.memory_need import check_attention_memory
from attendant_server.runtime.attention_graph import AttentionGraph

logger = logging.getLogger(__name__)


def opener(graph: AttentionGraph | None) -> Callable[[], None] | None:
    """What opens a graph, by `open_attention`; None for a model without one."""
    return None if graph is None else partial(open_attention, graph)


def open_attention(graph: AttentionGraph) -> None:
    """Open a graph unless it is open. Any thread but the engine's: large files take seconds.

    Raises ModelNotLoaded if the memory does not suffice, or if the bundle's files have changed
    since the model was loaded.
    """
    if graph.is_open:
        return
    bundle = graph.bundle
    try:
        check_attention_memory(bundle)
        graph.open()
    except BundleError as error:
        logger.error("event=attention_not_opened model=%s %s", bundle.key, error)
        fault = without_paths(error, bundle.directory, bundle.key)
        raise ModelNotLoaded(f"model: its attention graph cannot be opened: {fault}") from error
