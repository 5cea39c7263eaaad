import re

import pytest
from attendant_server import memory_need
from attendant_server.attention_opening import open_attention
from attendant_server.bundles import BundleError, read_bundle
from attendant_server.errors import ModelNotLoaded
from attendant_server.memory_need import check_memory, needed_bytes, warn_of_caches
from attendant_server.runtime.attention_graph import AttentionGraph
from attendant_server.runtime.model_graphs import RunCounter
from attendant_server.system.memory import HostMemory


@pytest.fixture
def bundle(translation_bundle):
    return read_bundle(translation_bundle, "fp32", "cpu")


def free(monkeypatch, num_bytes):
    memory = HostMemory(used=10**9, limit=10**9 + num_bytes)
    monkeypatch.setattr(memory_need, "host_memory", lambda: memory)


def test_a_bundle_needs_more_memory_than_the_files_of_its_precision(bundle):
    weights = (bundle.directory / "weights.fp32.bin").stat().st_size
    all_files = sum(file.size_bytes for file in bundle.manifest.files)
    assert weights < needed_bytes(bundle) < 7 * all_files


def test_a_bundle_that_does_not_fit_the_free_memory_is_refused(monkeypatch, bundle):
    free(monkeypatch, needed_bytes(bundle))
    check_memory(bundle)
    free(monkeypatch, needed_bytes(bundle) - 1)
    with pytest.raises(BundleError, match=r"needs about \d+ MB of memory, but \d+ MB of \d+ MB"):
        check_memory(bundle)


def test_an_attention_graph_that_does_not_fit_the_free_memory_is_not_opened(monkeypatch, bundle):
    graph = AttentionGraph(bundle, 1, "cpu", RunCounter(1))
    needed = 3 * (bundle.directory / "weights.fp32.bin").stat().st_size // 2
    free(monkeypatch, needed - 1)
    with pytest.raises(ModelNotLoaded) as refused:
        open_attention(graph)
    assert re.fullmatch(
        rf"model: its attention graph cannot be opened: {bundle.key}: "
        r"needs about \d+ MB of memory, but \d+ MB of \d+ MB are free",
        str(refused.value),
    )
    assert not graph.is_open
    free(monkeypatch, needed)
    open_attention(graph)
    assert graph.is_open
    free(monkeypatch, 0)
    open_attention(graph)


def test_caches_that_may_exceed_the_free_memory_are_told(monkeypatch, caplog):
    free(monkeypatch, 1000)
    warn_of_caches(1000)
    assert not caplog.messages
    warn_of_caches(1001)
    assert "event=memory_may_run_out used_bytes=1000000000 max_cache_bytes=1001" in caplog.text
