"""How fast our models are on a GPU, through the server, beside what the card can do at most.

    python -m bench.gpu                 # needs `make test DEVICE=gpu`'s environment and a GPU
    python -m bench.gpu --smoke         # the same on a CPU with the built-in bundles: no figures

Transformer base (6+6 layers, d 512, vocabulary of 32,000) and BERT base in fp16, weights made by
hand or random, texts of made-up words. Translations are as long as their sources. Bundles are
exported on the first run, which takes minutes. Prints JSON.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from attendant.v1.embedding_pb2 import EmbedRequest
from attendant.v1.embedding_pb2_grpc import EmbeddingServiceStub
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest
from attendant.v1.translation_pb2_grpc import TranslationServiceStub

from bench.loads import LoadResult, closed_loop, in_calls
from bench.models import copying_transformer, encoders
from bench.serving import ONE_OF_EACH_KIND, RunningServer, running_server

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
# Products with weights only, 2 operations for each weight that a token meets.
TRANSLATION_FLOP = 2 * (6 * 12 * 512**2 + 12 * 512**2 + 6 * 14 * 512**2 + 32_000 * 512)
"""Of one output token and the source token that it copies: encoder, its projection to keys and
values, decoder, vocabulary."""
EMBEDDING_FLOP = 2 * 12 * 12 * 768**2 * EMBEDDED_TOKENS
"""Of one text."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

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
    """Different words of two to four syllables, in no order."""
    rng = random.Random(1)
    words = {"".join(rng.choices(SYLLABLES, k=rng.randint(2, 4))): None for _ in range(2 * count)}
    return list(words)[:count]


def texts_of(words: Sequence[str], count: int, num_words: int = 0) -> list[str]:
    """Texts of so many words each, or else of 3 to 60, most of them short."""
    rng = random.Random(2)
    lengths = [num_words or min(3 + int(rng.expovariate(1 / 18)), 60) for _ in range(count)]
    return [" ".join(rng.choices(words, k=length)) for length in lengths]


def export_bundles(words: Sequence[str]) -> Path:
    """The folder of both bundles, exported by ``attendant-export`` if it is not there yet."""
    bundles = FOLDER / "bundles"
    # Common words become tokens of their own; the others fill the vocabularies.
    training = [*made_up_words(40_000), *(" ".join(words) for _ in range(20))]
    if not (bundles / "transformer-base/1").exists():
        run_dir = FOLDER / "runs/transformer-base"
        built_in = Path("bundles/en-de/1")
        tokenizer = copying_transformer.train_tokenizer(built_in, training)
        copying_transformer.write_run(run_dir, tokenizer)
        _export(run_dir, bundles, "transformer-base", words, ["en", "en"])
    if not (bundles / "bert-base/1").exists():
        run_dir = FOLDER / "runs/bert-base"
        sizes = encoders.SIZES["bert-base"]
        tokenizer = encoders.train_tokenizer(training, sizes.vocab_size)
        encoders.write_run(run_dir, encoders.random_weights(sizes), sizes, tokenizer)
        _export(run_dir, bundles, "bert-base", words, ["en"])
    return bundles


def _export(
    run_dir: Path, bundles: Path, name: str, words: Sequence[str], languages: list[str]
) -> None:
    card = {
        "description": "Made for measuring speed.",
        "license": "Apache-2.0",
        "languages": languages,
        "data": [],
        "intended_use": "Measuring speed.",
    }
    (run_dir / "card.json").write_text(json.dumps(card))
    pairs = run_dir / "valid.tsv"
    pairs.write_text("".join(f"{text}\t{text}\n" for text in texts_of(words, 32)))
    command = [sys.executable, "-m", "attendant_export", "export", f"--run-dir={run_dir}"]
    command += [f"--bundles-dir={bundles}", f"--name={name}", "--precisions=fp16"]
    command += [f"--valid={pairs.resolve()}", f"--data-card={run_dir / 'card.json'}"]
    subprocess.run(command, check=True, stdout=sys.stderr)


async def translate(
    server: RunningServer, texts: Sequence[str], beam_size: int, sizes: Sizes
) -> LoadResult:
    """All texts, many a call and many calls at once; outputs are tokens of best hypotheses."""
    async with _channel(server) as channel:
        stub, options = TranslationServiceStub(channel), TranslateOptions(beam_size=beam_size)

        async def send(call: Sequence[str]) -> int:
            response = await stub.Translate(TranslateRequest(texts=call, options=options))
            _check(response.translations)
            return int(response.token_counts.num_output_tokens)

        return await _measured(send, texts, sizes)


async def embed(server: RunningServer, texts: Sequence[str], sizes: Sizes) -> LoadResult:
    """All texts, many a call and many calls at once; outputs are texts."""
    async with _channel(server) as channel:
        stub = EmbeddingServiceStub(channel)

        async def send(call: Sequence[str]) -> int:
            response = await stub.Embed(EmbedRequest(texts=call))
            _check(response.results)
            return len(response.results)

        return await _measured(send, texts, sizes)


def _check(results: Sequence[Any]) -> None:
    for result in results:
        if result.HasField("error"):
            raise SystemExit(f"a text failed: {result.error.message}")


async def _measured(send: Any, texts: Sequence[str], sizes: Sizes) -> LoadResult:
    calls = in_calls(texts, sizes.texts_per_call)
    await closed_loop(send, calls[: len(calls) // 4], sizes.concurrency)  # warms up
    return await closed_loop(send, calls, sizes.concurrency)


def _channel(server: RunningServer) -> grpc.aio.Channel:
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
    return grpc.aio.insecure_channel(server.target, options=options)


def measure_translation(
    bundles: Path, words: Sequence[str], sizes: Sizes, peak: float
) -> list[dict[str, Any]]:
    """Greedy search and beam 4 with several numbers of rows."""
    found = []
    for max_rows in sizes.max_rows:
        flags = (*sizes.flags, f"--bundles={bundles}", f"--max-rows={max_rows}")
        with running_server(*flags) as server:
            for beam_size in (1, 4):
                texts = texts_of(words, sizes.num_texts // beam_size)
                result = asyncio.run(translate(server, texts, beam_size, sizes))
                rate = result.outputs_per_second
                found.append(
                    {
                        "beam_size": beam_size,
                        "max_rows": max_rows,
                        "best_hypothesis_tokens_per_second": round(rate),
                        "tokens_per_text": round(result.num_outputs / result.num_texts, 1),
                        "share_of_matmul_limit": _share(rate * beam_size * TRANSLATION_FLOP, peak),
                        "client_cpu_share": round(result.client_cpu_share, 3),
                    }
                )
    return found


def measure_embedding(
    bundles: Path, words: Sequence[str], sizes: Sizes, peak: float
) -> dict[str, Any]:
    """Texts of 128 tokens, with the two at their ends; a quarter of them once more as warm-up."""
    with running_server(*sizes.flags, f"--bundles={bundles}") as server:
        texts = texts_of(words, sizes.num_texts, sizes.words_to_embed)
        result = asyncio.run(embed(server, texts, sizes))
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
    """fp16 products and copies as fast as PyTorch does them, if it is there for this device."""
    try:
        import torch
    except ImportError:
        return {"unknown": "PyTorch is not installed"}
    if device == "cuda" and not torch.cuda.is_available():
        return {"unknown": "this PyTorch cannot use the GPU"}
    a = torch.randn(sizes.matrix, sizes.matrix, device=device).half()
    flop = _best(lambda: a @ a, torch, device, 2 * sizes.matrix**3)
    source = torch.empty(sizes.copied_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = _best(lambda: target.copy_(source), torch, device, sizes.copied_bytes)
    return {
        "name": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "fp16_matmul_flop_per_second": flop,
        "copied_bytes_per_second": copied,
    }


def _best(work: Any, torch: Any, device: str, amount: float) -> float:
    """The highest rate of several runs."""
    best = 0.0
    for _ in range(20):
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, amount / (time.perf_counter() - started))
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="run it all on a CPU, small")
    is_smoke = parser.parse_args().smoke
    sizes, device = (SMOKE, "cpu") if is_smoke else (FULL, "cuda")
    limits = card_limits(sizes, device)
    peak = limits.get("fp16_matmul_flop_per_second", 0.0)
    words = made_up_words(NUM_COMMON_WORDS)
    bundles = Path("bundles") if is_smoke else export_bundles(words)
    # The shares hold for the exported models only.
    peak = 0.0 if is_smoke else peak
    figures = {
        "is_smoke_test": is_smoke,
        "device": device,
        "limits": limits,
        "translation": measure_translation(bundles, words, sizes, peak),
        "embedding": measure_embedding(bundles, words, sizes, peak),
    }
    if is_smoke:
        figures["note"] = "Shows that the command works; the figures mean nothing."
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
