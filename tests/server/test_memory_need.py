import pytest
from attendant_server import memory_need
from attendant_server.bundles import BundleError, read_bundle
from attendant_server.memory_need import check_memory, needed_bytes, warn_of_caches
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


def test_caches_that_may_exceed_the_free_memory_are_told(monkeypatch, caplog):
    free(monkeypatch, 1000)
    warn_of_caches(1000)
    assert not caplog.messages
    warn_of_caches(1001)
    assert "event=memory_may_run_out used_bytes=1000000000 max_cache_bytes=1001" in caplog.text
