"""Stage "speed": throughput and latency of servers on the GPU, beside what the card can do.

A line has the rate of the products with weights, as a share of the card's fastest fp16 product. It
also has the number of processors that the client and the server keep busy: if that of the client is
near 1, the client limits the figures.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.embedding.caller import embedding_caller
from bench.gpu.card import card_limits
from bench.gpu.made_texts import made_up_texts
from bench.gpu.models import EMBEDDING, PRECISION, TRANSLATION, carried_bundles, made_bundle
from bench.gpu.trial import Figures, Trial, rounded
from bench.graphs import read_manifest
from bench.loads import LoadResult, Send, Texts, closed_loop, in_calls
from bench.servers import RunningServer, flags_for, running_server
from bench.translation.caller import translation_caller

FLAGS = (
    "--max-encode-tokens=8192",
    "--max-batch-tokens=65536",
    "--max-batch-seconds=1",
    "--max-queued-texts=16384",
    "--max-request-seconds=600",
)
MAX_ROWS = (512, 1024, 256)
"""Limits of rows that servers are measured with, the most useful one first."""
EMBEDDED_TOKENS = 128
# Only products with weights count: 2 operations per weight and token.
TRANSLATION_FLOP = 2 * (6 * 12 * 512**2 + 12 * 512**2 + 6 * 14 * 512**2 + 32_000 * 512)
"""For one output token of the Transformer base and its source token: encoder, its projection to
keys and values, decoder and vocabulary."""
EMBEDDING_FLOP = 2 * 12 * 12 * 768**2 * EMBEDDED_TOKENS
"""For one text of the BERT base."""
BEAMS = (1, 4)
SINGLE_TEXT_WORDS = 24
"""About 25 tokens: common words are single tokens."""


def run(trial: Trial) -> None:
    """Measure the card, the exported models, and the built-in ones."""
    limits: dict[str, Any] = {}

    def measure_card() -> Figures:
        limits.update(card_limits(trial))
        return limits

    trial.part("limits of the card", measure_card)
    # A smoke test measures other models than the operations are counted for.
    peak = 0.0 if trial.is_smoke else limits.get("fp16_matmul_flop_per_second", 0.0)
    first, *others = trial.pick(MAX_ROWS, (16,))
    trial.part("server", measure_made, trial, TRANSLATION, first, peak)
    trial.part("server", measure_made, trial, EMBEDDING, first, peak)
    for bundle in () if trial.is_smoke else carried_bundles():
        trial.part("server", measure_bundle, trial, bundle, first, 0.0)
    for max_rows in others:
        trial.part("server", measure_made, trial, TRANSLATION, max_rows, peak)


def measure_made(trial: Trial, name: str, max_rows: int, peak: float) -> Figures:
    """`measure_bundle` of an exported model."""
    return measure_bundle(trial, made_bundle(trial, name), max_rows, peak)


def measure_bundle(trial: Trial, bundle: Path, max_rows: int, peak: float) -> Figures:
    """Report what a server of one bundle does, saturated and with one request at a time.

    ``peak`` is the rate of operations to compare with; 0 for a bundle whose operations are unknown.
    """
    name = bundle.parent.name
    flags = [*flags_for(bundle), f"--device={trial.device}", f"--precision={PRECISION}"]
    with running_server(*flags, *trial.pick(FLAGS, ()), f"--max-rows={max_rows}") as server:
        if not read_manifest(bundle).HasField("decoding"):
            part = f"{name}, texts of {EMBEDDED_TOKENS} tokens"
            trial.part(part, _measure_embedding, trial, server, peak)
            return {}
        for beam_size in BEAMS:
            part = f"{name}, beam {beam_size}, {max_rows} rows"
            trial.part(part, measure_saturated, trial, server, beam_size, peak)
        for beam_size in BEAMS:
            part = f"{name}, beam {beam_size}, one request at a time"
            trial.part(part, _measure_single, trial, server, beam_size)
    return {}


def measure_saturated(trial: Trial, server: RunningServer, beam_size: int, peak: float) -> Figures:
    """Tokens of best hypotheses per second, with texts of many lengths."""
    texts = made_up_texts(trial.pick(4096, 4), trial.pick(0, 3))

    async def load() -> tuple[LoadResult, Figures]:
        async with translation_caller(server, beam_size) as caller:
            return await _saturate(trial, server, caller.send_all, in_calls(texts, 32))

    result, figures = asyncio.run(load())
    rate = result.outputs_per_second
    return {
        "tokens_per_second": round(rate),
        "texts_per_second": rounded(result.texts_per_second),
        **_share(rate * beam_size * TRANSLATION_FLOP, peak),
        **figures,
    }


def _measure_embedding(trial: Trial, server: RunningServer, peak: float) -> Figures:
    """Texts of equal length per second; the model adds two special tokens to each."""
    texts = made_up_texts(trial.pick(4096, 16), trial.pick(EMBEDDED_TOKENS - 2, 8))

    some = texts[:16]

    async def load() -> tuple[LoadResult, Figures, float]:
        async with embedding_caller(server) as caller:
            await caller.send(some)
            num_tokens = server.total("attendant_input_tokens_total")
            return *await _saturate(trial, server, caller.send, in_calls(texts, 64)), num_tokens

    result, figures, num_tokens = asyncio.run(load())
    rate = result.texts_per_second
    return {
        "texts_per_second": rounded(rate),
        "tokens_per_text": rounded(num_tokens / len(some)),
        **_share(rate * EMBEDDING_FLOP, peak),
        **figures,
    }


async def _saturate(
    trial: Trial, server: RunningServer, send: Send[Texts], calls: Sequence[Texts]
) -> tuple[LoadResult, Figures]:
    """Load a server with many calls at a time, after a warm-up; raises SystemExit for failures."""
    seconds, concurrency = trial.pick(6.0, 0.2), trial.pick(64, 2)
    await closed_loop(send, calls, concurrency, seconds / 2)
    before, cpu_before = _steps(server), server.cpu_seconds()
    result = await closed_loop(send, calls, concurrency, seconds)
    cpu_seconds = server.cpu_seconds() - cpu_before
    if result.failures:
        raise SystemExit(f"calls failed: {dict(result.failures)}")
    num_steps, step_seconds, rows = (b - a for a, b in zip(before, _steps(server), strict=True))
    of_steps = {}
    if num_steps:
        of_steps["step_milliseconds"] = rounded(1e3 * step_seconds / num_steps)
        of_steps["rows_per_step"] = rounded(rows / num_steps)
    return result, {
        "client_processors": rounded(result.client_cpu_seconds / result.seconds),
        "server_processors": rounded(cpu_seconds / result.seconds),
        **of_steps,
    }


def _steps(server: RunningServer) -> tuple[float, float, float]:
    """The number of decoding steps so far, their seconds, and their rows."""
    names = ("step_seconds_count", "step_seconds_sum", "step_rows_sum")
    count, seconds, rows = (server.total(f"attendant_{name}") for name in names)
    return count, seconds, rows


def _share(flop_per_second: float, peak: float) -> Figures:
    return {"share_of_matmul_limit": rounded(flop_per_second / peak)} if peak else {}


def _measure_single(trial: Trial, server: RunningServer, beam_size: int) -> Figures:
    """Latency of texts of usual length, one at a time."""
    texts = made_up_texts(trial.pick(60, 2), trial.pick(SINGLE_TEXT_WORDS, 3))

    async def load() -> LoadResult:
        async with translation_caller(server, beam_size) as caller:
            await closed_loop(caller.send, texts[: trial.pick(10, 1)], 1)
            return await closed_loop(caller.send, texts, 1)

    result = asyncio.run(load())
    return {
        "tokens_per_text": rounded(result.num_outputs / result.num_texts),
        "p50_milliseconds": rounded(1e3 * result.latency(50)),
        "p99_milliseconds": rounded(1e3 * result.latency(99)),
    }
