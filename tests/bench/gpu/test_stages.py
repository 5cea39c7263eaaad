"""The measurements of the trial's stages, on one server on the CPU with the built-in models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attendant_client import Client

from bench.gpu import parity, pressure, profiling, speed
from bench.gpu.rivals import repeated
from bench.gpu.trial import Trial
from bench.servers import ONE_OF_EACH_KIND, RunningServer, running_server

BUNDLES = Path(__file__).parents[3] / "bundles"
TEXTS = ["Where is the station?", "Tom bought a house."]
SMOKE = Trial("any", seconds=60, is_smoke=True)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    flags = [f"--bundles={BUNDLES}", ONE_OF_EACH_KIND, "--precision=fp16"]
    with running_server(*flags, "--num-threads=1", "--max-rows=16") as running:
        yield running


@pytest.fixture(scope="module")
def pair(server: RunningServer) -> Iterator[parity.Pair]:
    with Client(server.target) as client:
        yield client, client


def test_a_server_agrees_with_itself_in_every_graph(pair: parity.Pair):
    found = parity.compare_translations(pair, TEXTS, 0.01, beam_size=4)
    assert (found["same"], found["tie"], found["different"]) == (2, 0, 0)
    assert found["max_log_probability_difference"] == 0
    scores = parity.compare_scores(pair, TEXTS)
    assert scores["num_values"] > 8
    assert scores["max_difference"] == 0
    links = parity.compare_alignments(pair, TEXTS)
    assert links["num_links"] > 6
    assert links["num_different_links"] == 0
    attention = parity.compare_attention(pair, TEXTS[:1], "en-de")
    assert attention["max_cross"] == attention["max_decoder"] == 0
    assert "max_cross" not in parity.compare_attention(pair, TEXTS[:1], "bert-en-de", False)
    assert parity.compare_embeddings(pair, TEXTS)["min_cosine_mean"] == pytest.approx(1)
    assert parity.compare_masks(pair, TEXTS)["num_common"] == 2 * parity.NUM_CANDIDATES


def test_caches_are_no_longer_needed_and_cancelled_calls_change_nothing(server: RunningServer):
    caches = pressure.measure_caches(server, TEXTS, num_callers=2, release_seconds=0)
    assert caches["num_failed"] == caches["needed_after"] == 0
    assert caches["largest_seen"] > 0
    cancelled = pressure.measure_cancelled_calls(server, TEXTS * 2, num_callers=4)
    assert (cancelled["num_answered"], cancelled["num_different"]) == (2, 0)
    assert cancelled["rows_used_after"] == 0


def test_speed_has_rates_and_what_keeps_the_processors_busy(server: RunningServer):
    found = speed.measure_saturated(SMOKE, server, beam_size=1, peak=1e12)
    assert found["tokens_per_second"] > 0
    assert found["share_of_matmul_limit"] > 0
    assert found["rows_per_step"] >= 1
    assert found["server_processors"] > 0


def test_a_step_alone_is_timed_and_its_operators_are_counted():
    bundle = BUNDLES / "en-de/3"
    assert profiling.measure_step(SMOKE, bundle, 4, 2)["rows_per_second"] > 0
    operators = profiling.measure_operators(SMOKE, bundle)
    assert "GroupQueryAttention" in operators["longest"]


def test_the_events_of_a_trace_are_added_up_for_each_run():
    events: list[dict[str, Any]] = [
        {"cat": "kernel", "name": "gemm", "dur": 6},
        {"cat": "kernel", "name": "gemm", "dur": 2},
        {"cat": "kernel", "name": "softmax", "dur": 4},
        {"cat": "gpu_memcpy", "name": "Memcpy HtoD", "dur": 1},
        {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "dur": 3},
        {"cat": "kernel", "name": "without an end"},
    ]
    assert profiling.added_up(events, num_runs=2) == {
        "num_kernels": 1.5,
        "kernel_microseconds": 6.0,
        "num_copies": 0.5,
        "copy_microseconds": 0.5,
        "num_cuda_calls": 0.5,
        "cuda_call_microseconds": 1.5,
        "longest": {"gemm": 4.0, "softmax": 2.0},
    }


def test_rivals_get_at_least_one_batch():
    assert list(repeated([1, 2, 3], seconds=0)) == [1]
