import pytest
from attendant_server import loading
from attendant_server.loading import ModelLoader, read_bundles
from attendant_server.observability.metrics import NoMetrics
from attendant_server.settings import Settings
from attendant_server.system.memory import HostMemory


def loader_on(monkeypatch: pytest.MonkeyPatch, num_usable: int, can_pin: bool) -> ModelLoader:
    """A loader on a machine with four processors, ``num_usable`` of which may be used."""
    monkeypatch.setattr(loading, "processor_ids", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(loading, "num_processors", lambda: num_usable)
    monkeypatch.setattr(loading, "CAN_PIN", can_pin)
    return ModelLoader(Settings(), NoMetrics())


@pytest.mark.parametrize(
    ("num_usable", "can_pin", "num_workers", "pinned_to"),
    [(4, True, 4, [0, 1, 2, 3]), (4, False, 4, ()), (1, True, 1, ()), (2, True, 2, ())],
)
def test_threads_and_workers_follow_the_processors_that_may_be_used(
    monkeypatch, num_usable, can_pin, num_workers, pinned_to
):
    loader = loader_on(monkeypatch, num_usable, can_pin)
    assert (loader.num_threads, loader.num_workers) == (num_usable, num_workers)
    assert list(loader.worker_processors) == list(pinned_to)


def test_threads_that_are_set_are_not_bounded_by_the_processors(monkeypatch):
    monkeypatch.setattr(loading, "num_processors", lambda: 1)
    assert ModelLoader(Settings(num_threads=3), NoMetrics()).num_threads == 3


POSITION_BYTES = 2 * 2 * 32 * 4
"""Keys and values of one position of the tiny model. Sources have at most 64 positions. Rows have
the same limit, or one more where a run decodes two tokens."""
ALL_ROWS = 128 * 65 + 2 * 16 * 64
LARGEST_SENTENCE = 8 * 64 + 64


@pytest.mark.parametrize(
    ("given", "memory_positions", "expected_positions"),
    [
        ({}, 10**9, ALL_ROWS),
        ({}, 20_000, 10_000),
        ({}, 100, 2 * LARGEST_SENTENCE),
        ({"max_rows": 64, "max_sentences": 10}, 10**9, 64 * 65 + 10 * 64),
        ({"max_cache_bytes": 5 * POSITION_BYTES}, 10**9, 5),
    ],
)
def test_the_limit_of_caches_follows_the_rows_and_the_memory_unless_it_is_set(
    monkeypatch, translation_bundle, given, memory_positions, expected_positions
):
    memory = HostMemory(used=0, limit=memory_positions * POSITION_BYTES)
    monkeypatch.setattr(loading, "host_memory", lambda: memory)
    settings = Settings(bundles=translation_bundle.parents[1], num_threads=2, **given)
    loader = ModelLoader(settings, NoMetrics())
    (bundle,) = read_bundles(settings, settings.models)
    model = loader._translation_model(bundle)
    _, max_cache_bytes = loader._translation_schedulers(bundle, model)
    assert max_cache_bytes == expected_positions * POSITION_BYTES


def test_a_limit_that_refuses_some_searches_is_told_at_the_start(translation_bundle, caplog):
    bundles = translation_bundle.parents[1]
    settings = Settings(bundles=bundles, num_threads=2, max_cache_bytes=1000)
    loader = ModelLoader(settings, NoMetrics())
    (bundle,) = read_bundles(settings, settings.models)
    loader._translation_schedulers(bundle, loader._translation_model(bundle))
    needed = 2 * LARGEST_SENTENCE * POSITION_BYTES
    assert f"event=caches_refuse_texts max_bytes=1000 needed_bytes={needed}" in caplog.text


def test_a_tokenizer_file_that_both_sides_name_is_read_once(translation_bundle):
    settings = Settings(bundles=translation_bundle.parents[1], num_threads=1)
    metrics = NoMetrics()
    metrics.add_model("tiny-en-de/1", "translation", "fp32", [])
    loader = ModelLoader(settings, metrics)
    (bundle,) = read_bundles(settings, settings.models)
    model = loader.load(bundle)
    assert model.source_tokenizer is model.target_tokenizer
    assert model.mask_tokenizer is None


def test_models_that_decode_share_the_memory_for_caches(monkeypatch, translation_bundle):
    memory = HostMemory(used=0, limit=20_000 * POSITION_BYTES)
    monkeypatch.setattr(loading, "host_memory", lambda: memory)
    settings = Settings(bundles=translation_bundle.parents[1], num_threads=1)
    (bundle,) = read_bundles(settings, settings.models)
    loader = ModelLoader(settings, NoMetrics())
    model = loader._translation_model(bundle)
    _, alone = loader._translation_schedulers(bundle, model)
    loader.num_decoding = 4
    _, shared = loader._translation_schedulers(bundle, model)
    assert shared < alone
