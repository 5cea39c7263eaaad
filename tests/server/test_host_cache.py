"""Caches on a device hold and return the same content as caches on the host."""

import random
from copy import copy
from operator import eq, gt
from types import SimpleNamespace

import numpy as np
import pytest
from attendant.v1.bundle_pb2 import StepGraph
from attendant_server.bundles import read_bundle
from attendant_server.engine.models import NO_TOKEN_BIAS, CacheCopy, StepInput, TokenBias
from attendant_server.runtime.cache_pool import CachePool
from attendant_server.runtime.cache_sizes import CacheSizes, StateLayout
from attendant_server.runtime.decoder_cache import MAX_BINDINGS
from attendant_server.runtime.device_models import DeviceTranslationModel
from attendant_server.runtime.model_graphs import RunCounter
from attendant_server.runtime.step import check_input_devices

from tests.support.devices import open_device
from tests.support.models import translation_model

MAX_BLOCKS = 24
# Allowed difference between host and device: kernels are equal on a CPU, but not on a GPU.
VARIANTS = [
    *(
        pytest.param((bundle, precision, "cpu", 0.0), id=f"{bundle}-{precision}")
        for bundle in ("translation_bundle", "ssru_bundle", "mixed_bundle")
        for precision in ("fp32", "fp16")
    ),
    *(
        pytest.param((bundle, "fp16", "cuda", 2e-2), id=f"{bundle}-cuda", marks=pytest.mark.gpu)
        for bundle in ("translation_bundle", "ssru_bundle", "mixed_bundle")
    ),
]


@pytest.fixture(scope="module", params=VARIANTS)
def models(request):
    name, precision, device, tolerance = request.param
    bundle = request.getfixturevalue(name)
    open_device(device)
    return SimpleNamespace(
        host=without_greedy_graph(read_bundle(bundle, precision, "cpu")),
        device=DeviceTranslationModel(
            read_bundle(bundle, precision, device), 1, device, RunCounter(1)
        ),
        tolerance=tolerance,
    )


def without_greedy_graph(bundle):
    """A model on the host that uses the step graph of devices for all steps."""
    model = translation_model(bundle)
    model.greedy_graph = None
    return model


class Twins:
    """The same sentences in a cache on the host and one on the device, with equal operations."""

    def __init__(self, models, width, max_slots=MAX_BLOCKS):
        self.models, self.width = models, width
        self.pools = [CachePool(m.cache_sizes, spare_bytes=0) for m in (models.host, models.device)]
        self.host = models.host.new_cache(
            models.host.step_for(width), width, max_slots, self.pools[0]
        )
        self.device = models.device.new_cache(
            models.device.step_for(width), width, max_slots, self.pools[1]
        )
        self.tokens = np.zeros(0, np.int64)
        self.lengths = np.zeros(0, np.int32)

    @property
    def num_slots(self):
        return len(self.tokens) // self.width

    def join(self, *sources):
        encoded = self.models.host.encode(sources), self.models.device.encode(sources)
        for on_host, on_device in zip(*encoded, strict=True):
            self.host.load(self.num_slots, on_host)
            self.device.load(self.num_slots, on_device)
            bos = [self.models.host.start_token_id] * self.width
            self.tokens = np.append(self.tokens, bos)
            self.lengths = np.append(self.lengths, np.zeros(self.width, np.int32))

    def leave(self, slot):
        last = self.num_slots - 1
        rows, end = slice(slot * self.width, (slot + 1) * self.width), last * self.width
        if slot != last:
            for cache in (self.host, self.device):
                cache.move(last, slot, int(self.lengths[end]))
            self.tokens[rows], self.lengths[rows] = self.tokens[end:], self.lengths[end:]
        self.tokens, self.lengths = self.tokens[:end], self.lengths[:end]
        if not self.num_slots:
            for cache in (self.host, self.device):
                cache.release()

    def step(self, suppressed=()):
        positions = np.array(suppressed, np.int64).reshape(-1, 2)
        values = np.full(len(positions), -np.inf, np.float32)
        biases = [TokenBias(positions, values)]
        step_input = StepInput(self.tokens, self.lengths, 5, biases)
        expected = self.host.step(self.num_slots, step_input)
        found = self.device.step(self.num_slots, step_input)
        for pool in self.pools:
            assert pool.needed <= pool.allocated <= 1.5 * pool.needed
        assert np.allclose(
            found.log_probabilities,
            expected.log_probabilities,
            rtol=0,
            atol=self.models.tolerance,
        )
        if self.models.tolerance == 0:
            assert np.array_equal(found.token_ids, expected.token_ids)
        # The content of all rows differs, so that swapped rows are detected.
        choice = np.arange(len(self.tokens)) % 5
        self.tokens = expected.token_ids[np.arange(len(self.tokens)), choice]
        self.lengths = self.lengths + 1

    def copy(self, rng):
        slot = rng.randrange(self.num_slots)
        rows = [slot * self.width + i for i in range(self.width)]
        parents = rng.sample(rows, rng.randint(1, self.width))
        stop = int(self.lengths[rows[0]])
        copies = [CacheCopy(r, rng.choice(parents), 0, stop) for r in rows if r not in parents]
        for cache in (self.host, self.device) if copies else ():
            cache.copy(copies)


def source_of(length, seed=0):
    rng = random.Random(f"{length} {seed}")
    return [*(rng.randrange(4, 130) for _ in range(length - 1)), 2]


@pytest.mark.parametrize("width", [1, 2, 4])
def test_any_mixture_of_joining_leaving_and_copying_agrees(models, width):
    search_at_random(Twins(models, width), random.Random(width))


def search_at_random(twins, rng):
    """Sentences join, take steps and leave at random. Compares the caches after every step."""
    for _ in range(60):
        if twins.num_slots < MAX_BLOCKS and rng.random() < 0.5:
            lengths = [rng.choice([1, 3, 9, 30, 64]) for _ in range(rng.randint(1, 2))]
            room = MAX_BLOCKS - twins.num_slots
            twins.join(*(source_of(n, rng.random()) for n in lengths[:room]))
        if twins.num_slots:
            twins.step([(0, twins.models.host.eos_id)] if rng.random() < 0.3 else ())
            twins.copy(rng)
        for slot in reversed(range(twins.num_slots)):
            if twins.lengths[slot * twins.width] == 64 or rng.random() < 0.1:
                twins.leave(slot)


def test_a_longer_source_widens_the_buffers_and_changes_nothing_for_the_others(models):
    twins = Twins(models, 2)
    twins.join(source_of(5))
    twins.step()
    small = [pool.allocated for pool in twins.pools]
    twins.join(source_of(64))
    twins.step()
    large = [pool.allocated for pool in twins.pools]
    assert all(map(gt, large, small))
    twins.leave(1)
    for _ in range(3):
        twins.step()
    assert all(map(gt, large, [2 * pool.allocated for pool in twins.pools]))


def test_a_long_output_widens_the_buffers_and_goes_on_as_before(models):
    twins = Twins(models, 2)
    twins.join(source_of(5), source_of(7))
    twins.step()
    small = [pool.allocated for pool in twins.pools]
    for _ in range(63):
        twins.step()
    has_growing = models.host.cache_sizes.growing.num_tensors > 0
    assert all(map(gt if has_growing else eq, [pool.allocated for pool in twins.pools], small))


def test_memory_is_given_back_when_nothing_is_in_use_and_taken_again(models):
    twins = Twins(models, 1)
    for _ in range(2):
        twins.join(*(source_of(n + 1) for n in range(9)))
        twins.step()
        assert all(pool.allocated > 0 for pool in twins.pools)
        for _ in range(9):
            twins.leave(0)
        assert all(pool.allocated == 0 for pool in twins.pools)


def test_scores_are_those_of_the_host(models):
    pairs = [(source_of(9), source_of(4)), (source_of(30), source_of(12))]
    found, expected = models.device.score(pairs), models.host.score(pairs)
    for a, b in zip(found, expected, strict=True):
        assert len(a.log_probabilities) == len(b.log_probabilities)
        assert np.allclose(a.log_probabilities, b.log_probabilities, rtol=0, atol=models.tolerance)


class CountingSession:
    def __init__(self, session):
        self.session, self.num_bindings = session, 0

    def get_inputs(self):
        return self.session.get_inputs()

    def get_outputs(self):
        return self.session.get_outputs()

    def io_binding(self):
        self.num_bindings += 1
        return self.session.io_binding()

    def run_with_iobinding(self, binding):
        self.session.run_with_iobinding(binding)


@pytest.mark.parametrize("caches", ["host", "device"])
def test_a_step_is_bound_once_for_each_number_of_blocks(models, caches):
    model = getattr(models, caches)
    counting = CountingSession(model.decoder_step.shared)
    graph = copy(model.decoder_step)
    graph.shared = graph.alone = counting
    whole, model.decoder_step = model.decoder_step, graph
    try:
        cache = model.new_cache(model.step_for(2), 2, MAX_BINDINGS, CachePool(model.cache_sizes))
    finally:
        model.decoder_step = whole
    for slot, encoded in enumerate(model.encode([source_of(5)] * 4)):
        cache.load(slot, encoded)
    for num_slots in (4, 3, 4, 3, 2, 4):
        tokens, lengths = np.full(2 * num_slots, 9, np.int64), np.zeros(2 * num_slots, np.int32)
        cache.step(num_slots, StepInput(tokens, lengths, 2, [NO_TOKEN_BIAS]))
    # A step that replaces states is bound to read either copy of them.
    assert counting.num_bindings == (6 if model.cache_sizes.replaced.num_tensors else 3)


@pytest.mark.parametrize(
    ("name", "device"), [("tokens", "Cpu"), ("source_lengths", "Cpu"), ("total_length", "Cuda")]
)
def test_a_graph_that_would_read_a_stale_copy_of_an_input_is_refused(name, device):
    devices = dict.fromkeys(("tokens", "past_lengths", "source_lengths"), "Cuda")
    devices["total_length"] = "Cpu"

    def session():
        return SimpleNamespace(
            get_inputs=lambda: [SimpleNamespace(name=name) for name in devices],
            get_input_memory_infos=lambda: [SimpleNamespace(name=d) for d in devices.values()],
        )

    step = StepGraph(name="step")
    for name_ in devices:
        setattr(step.inputs, name_, name_)
    check_input_devices(step, session(), "cuda")
    devices[name] = device
    with pytest.raises(ValueError, match=name):
        check_input_devices(step, session(), "cuda")


def test_heads_that_do_not_fill_words_are_refused_at_load(translation_bundle, monkeypatch):
    layout = StateLayout(1, 2, 3, np.dtype(np.float16), 16)
    sizes = CacheSizes(layout, layout, layout)
    monkeypatch.setattr("attendant_server.runtime.decoder_model.cache_sizes", lambda *_: sizes)
    # A real graph cannot have such heads, so no trial can run.
    monkeypatch.setattr(DeviceTranslationModel, "_check_steps", lambda *_: None)
    monkeypatch.setattr(DeviceTranslationModel, "_choose_sessions", lambda *_: None)
    bundle = read_bundle(translation_bundle, "fp32", "cpu")
    with pytest.raises(ValueError, match="head_dim 3 does not fill words"):
        DeviceTranslationModel(bundle, 1, "cpu", RunCounter(1))
