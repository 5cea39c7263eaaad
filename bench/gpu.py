"""Throughput of attendant on a GPU, compared with the peak of the card.

    python -m bench.gpu                 # needs a GPU and the environment of `make test DEVICE=gpu`
    python -m bench.gpu --smoke         # tests the bench on a CPU with the built-in bundles

Models are a Transformer base (6+6 layers, d 512, vocabulary of 32,000) and a BERT base in fp16,
with constructed or random weights. Texts are made-up words, and translations are as long as their
sources. The first run exports the bundles, which takes minutes. Prints JSON.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.arguments import bench_parser
from bench.embedding.caller import embedding_caller
from bench.loads import LoadResult, closed_loop, in_calls
from bench.models import copying_transformer, encoders, runs
from bench.reporting import report
from bench.servers import ONE_OF_EACH_KIND, RunningServer, running_server
from bench.translation.caller import translation_caller

FOLDER = Path("build/bench/gpu")
NUM_COMMON_WORDS = 8000
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
SERVER_FLAGS = (
    "--device=cuda",
    "--precision=fp16",
    "--max-encode-tokens=8192",
    "--max-batch-tokens=65536",
    "--max-batch-seconds=1",
    "--max-queued-texts=16384",
    "--max-request-seconds=600",
)
EMBEDDED_TOKENS = 128
# Only products with weights count: 2 operations per weight and token.
TRANSLATION_FLOP = 2 * (6 * 12 * 512**2 + 12 * 512**2 + 6 * 14 * 512**2 + 32_000 * 512)
"""For one output token and its source token: encoder, its projection to keys and values, decoder
and vocabulary."""
EMBEDDING_FLOP = 2 * 12 * 12 * 768**2 * EMBEDDED_TOKENS
"""For one text."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The number of texts and other sizes of a measurement."""

    flags: tuple[str, ...]
    max_rows: tuple[int, ...]
    num_texts: int
    texts_per_call: int
    concurrency: int
    words_to_embed: int
    matrix: int
    copied_bytes: int


FULL = Sizes(SERVER_FLAGS, (256, 512, 1024), 16_384, 64, 64, EMBEDDED_TOKENS - 2, 8192, 2**30)
SMOKE = Sizes(("--precision=fp16", ONE_OF_EACH_KIND), (16,), 32, 8, 4, 12, 256, 2**20)


def made_up_words(count: int) -> list[str]:
    """Distinct words of two to four syllables, in random order."""
    rng = random.Random(1)
    words = {"".join(rng.choices(SYLLABLES, k=rng.randint(2, 4))): None for _ in range(2 * count)}
    return list(words)[:count]


def texts_of(words: Sequence[str], count: int, num_words: int = 0) -> list[str]:
    """Texts of ``num_words`` words each; 0: of 3 to 60 words, most of them short."""
    rng = random.Random(2)
    lengths = [num_words or min(3 + int(rng.expovariate(1 / 18)), 60) for _ in range(count)]
    return [" ".join(rng.choices(words, k=length)) for length in lengths]


def export_bundles(words: Sequence[str]) -> Path:
    """The folder of both bundles. ``attendant-export`` exports them if it does not exist."""
    bundles = FOLDER / "bundles"
    translation, embedding = bundles / "transformer-base/1", bundles / "bert-base/1"
    # Frequent words become single tokens; the others fill the vocabularies.
    training = [*made_up_words(40_000), *(" ".join(words) for _ in range(20))]
    if not translation.exists():
        run_dir = FOLDER / "runs/transformer-base"
        built_in = copying_transformer.TOKENIZER_OF
        tokenizer = copying_transformer.train_tokenizer(
            built_in, training, copying_transformer.VOCAB_SIZES["copy-base"]
        )
        copying_transformer.write_copying_run(run_dir, tokenizer)
        runs.export_run(run_dir, translation, "fp16", ["en", "en"], texts_of(words, 32))
    if not embedding.exists():
        run_dir = FOLDER / "runs/bert-base"
        network = encoders.SIZES["bert-base"]
        tokenizer = encoders.train_tokenizer(training, encoders.VOCAB_SIZE)
        runs.write_run(run_dir, network, runs.random_weights(network), tokenizer)
        runs.export_run(run_dir, embedding, "fp16", ["en"], texts_of(words, 32))
    return bundles


async def measure(
    server: RunningServer, texts: Sequence[str], sizes: Sizes, beam_size: int = 0
) -> LoadResult:
    """Send all texts in concurrent calls of many texts: to translate, or with beam 0 to embed."""
    calls = in_calls(texts, sizes.texts_per_call)
    async with (
        translation_caller(server, beam_size) as a,
        embedding_caller(server) as b,
    ):
        send = a.send_all if beam_size else b.send
        warm_up = await closed_loop(send, calls[: len(calls) // 4], sizes.concurrency)
        result = await closed_loop(send, calls, sizes.concurrency)
    if failures := warm_up.failures + result.failures:
        raise SystemExit(f"calls failed: {dict(failures)}")
    return result


def measure_translation(
    server: RunningServer, beam_size: int, words: Sequence[str], sizes: Sizes, peak: float
) -> dict[str, Any]:
    """Throughput with texts of many lengths. A wide beam gets fewer texts."""
    texts = texts_of(words, sizes.num_texts // beam_size)
    result = asyncio.run(measure(server, texts, sizes, beam_size))
    rate = result.outputs_per_second
    return {
        "beam_size": beam_size,
        "best_hypothesis_tokens_per_second": round(rate),
        "tokens_per_text": round(result.num_outputs / result.num_texts, 1),
        "share_of_matmul_limit": _share(rate * beam_size * TRANSLATION_FLOP, peak),
        "client_cpu_share": round(result.client_cpu_share, 3),
    }


def measure_embedding(
    server: RunningServer, words: Sequence[str], sizes: Sizes, peak: float
) -> dict[str, Any]:
    """Throughput with texts of 128 tokens with special tokens, after a warm-up on a quarter."""
    texts = texts_of(words, sizes.num_texts, sizes.words_to_embed)
    result = asyncio.run(measure(server, texts, sizes))
    tokens = server.total("attendant_input_tokens_total")
    rate = result.texts_per_second
    return {
        "sequences_per_second": round(rate, 1),
        "tokens_per_sequence": round(tokens / (len(texts) + result.num_texts // 4), 1),
        "share_of_matmul_limit": _share(rate * EMBEDDING_FLOP, peak),
        "client_cpu_share": round(result.client_cpu_share, 3),
    }


def _share(flop_per_second: float, peak: float) -> float | None:
    return round(flop_per_second / peak, 4) if peak else None


def card_limits(sizes: Sizes, device: str) -> dict[str, Any]:
    """Peak fp16 products and copies of PyTorch, if it can use the device."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return {"unknown": "this PyTorch cannot use the GPU"}
    a = torch.randn(sizes.matrix, sizes.matrix, device=device).half()
    source = torch.empty(sizes.copied_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def best(work: Callable[[], Any], amount: float) -> float:
        highest = 0.0
        for _ in range(20):
            started = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            highest = max(highest, amount / (time.perf_counter() - started))
        return highest

    return {
        "name": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "fp16_matmul_flop_per_second": best(lambda: a @ a, 2 * sizes.matrix**3),
        "copied_bytes_per_second": best(lambda: target.copy_(source), sizes.copied_bytes),
    }


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__, reads_data=False)
    parser.add_argument("--smoke", action="store_true", help="run a small test on a CPU")
    return parser


def main() -> None:
    """Measure and print."""
    is_smoke: bool = build_parser().parse_args().smoke
    sizes, device = (SMOKE, "cpu") if is_smoke else (FULL, "cuda")
    limits = card_limits(sizes, device)
    words = made_up_words(NUM_COMMON_WORDS)
    bundles = Path("bundles") if is_smoke else export_bundles(words)
    # The peak applies only to the exported models.
    peak = 0.0 if is_smoke else limits.get("fp16_matmul_flop_per_second", 0.0)
    flags = (*sizes.flags, f"--bundles={bundles}")
    translation = []
    for max_rows in sizes.max_rows:
        with running_server(*flags, f"--max-rows={max_rows}") as server:
            for beam_size in (1, 4):
                found = measure_translation(server, beam_size, words, sizes, peak)
                translation.append({"max_rows": max_rows, **found})
    with running_server(*flags) as server:
        embedding = measure_embedding(server, words, sizes, peak)
    figures = {"limits": limits, "translation": translation, "embedding": embedding}
    # The figures of a smoke test are meaningless.
    report("gpu", {"is_smoke_test": is_smoke, "device": device, **figures})


if __name__ == "__main__":
    main()
