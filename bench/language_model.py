"""Measures an imported language model against `transformers` with the same weights, in turn.

    python -m bench.language_model --bundle my-bundles/smollm2/1 --model MODEL_FOLDER --pairs 5

``MODEL_FOLDER`` is what the bundle was imported from, in the layout of the Hugging Face Hub. Ours
answers over gRPC; `transformers` runs in this process, in fp32, on all processors. Three loads, all
greedy and with exactly as many tokens as asked for:

- prefill: one prompt of many tokens, of which one more is wanted
- one prompt at a time, with ``--num-tokens`` tokens
- 16 prompts at a time: ours from 16 callers, those of `transformers` in one batch
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attendant.v1.language_model_pb2 import GenerateOptions, GenerateRequest
from attendant.v1.language_model_pb2_grpc import LanguageModelServiceStub
from attendant.v1.model_pb2 import TokenizeRequest
from attendant.v1.model_pb2_grpc import ModelServiceStub

from bench.arguments import add_server_flags, bench_parser
from bench.loads import in_turn
from bench.reporting import compare, report, table
from bench.servers import flags_for, open_channel, running_server

NUM_PROMPTS = 16
TIMEOUT_SECONDS = 600
PROMPT = "The history of the town begins with a mill at the river, number"
SENTENCE = " The miller told the traveller about the road over the hills."


def prompts_of(num_prompts: int) -> list[str]:
    """Short prompts that differ in their last word."""
    return [f"{PROMPT} {number}." for number in range(num_prompts)]


class Ours:
    """A server with the bundle, through the bare stub."""

    def __init__(self, channel: Any) -> None:
        self._generate = LanguageModelServiceStub(channel).Generate
        self._tokenize = ModelServiceStub(channel).Tokenize

    async def token_ids(self, prompt: str) -> list[int]:
        """The tokens of a prompt."""
        answer = await self._tokenize(TokenizeRequest(texts=[prompt]))
        return [token.id for token in answer.results[0].tokens]

    async def seconds(self, prompts: Sequence[str], num_tokens: int) -> float:
        """Time until all callers, one for each prompt, have their ``num_tokens`` tokens."""
        options = GenerateOptions(
            beam_size=1, max_output_tokens=num_tokens, min_output_tokens=num_tokens
        )
        started = time.perf_counter()
        calls = [
            self._generate(GenerateRequest(prompts=[p], options=options), timeout=TIMEOUT_SECONDS)
            for p in prompts
        ]
        answers = [await call for call in calls]
        seconds = time.perf_counter() - started
        assert all(a.token_counts.num_output_tokens == num_tokens for a in answers)
        return seconds


class Theirs:
    """`transformers` in this process."""

    def __init__(self, folder: Path) -> None:
        import transformers

        load: Any = transformers.AutoModelForCausalLM.from_pretrained
        self._model = load(folder, dtype=torch.float32).eval()

    async def seconds(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> float:
        """Time of one batch of prompts of equal lengths."""
        ids = torch.tensor(prompts)
        started = time.perf_counter()
        with torch.inference_mode():
            found = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=num_tokens,
                max_new_tokens=num_tokens,
            )
        seconds = time.perf_counter() - started
        assert found.shape[1] == ids.shape[1] + num_tokens
        return seconds


async def measure(arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """The tokens per second of both systems in each load, one value for each pair."""
    theirs = Theirs(arguments.model)
    found: dict[str, dict[str, list[float]]] = {}
    with running_server(*flags_for(arguments.bundle), *arguments.server_flags) as server:
        async with open_channel(server) as channel:
            ours = Ours(channel)
            for load, prompts, num_tokens in loads(arguments):
                ids = [await ours.token_ids(prompt) for prompt in prompts]
                shortest = min(map(len, ids))
                cut = [row[:shortest] for row in ids]
                measured = await in_turn(
                    {
                        "ours": partial(ours.seconds, prompts, num_tokens),
                        "theirs": partial(theirs.seconds, cut, num_tokens),
                    },
                    arguments.pairs,
                )
                num = shortest if num_tokens == 1 else num_tokens * len(prompts)
                label = f"{load} ({shortest} + {num_tokens} tokens)"
                found[label] = {k: [num / each for each in v] for k, v in measured.items()}
    return found


def loads(arguments: argparse.Namespace) -> list[tuple[str, list[str], int]]:
    """The name, prompts and wanted tokens of each load."""
    long = PROMPT + SENTENCE * (arguments.prompt_tokens // 12)
    return [
        ("prefill", [long], 1),
        ("one prompt at a time", prompts_of(1), arguments.num_tokens),
        (f"{NUM_PROMPTS} prompts at a time", prompts_of(NUM_PROMPTS), arguments.num_tokens),
    ]


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__, reads_data=False)
    parser.add_argument("--bundle", type=Path, required=True, help="the imported bundle")
    parser.add_argument("--model", type=Path, required=True, help="folder that was imported")
    parser.add_argument("--num-tokens", type=int, default=64, help="tokens of a continuation")
    parser.add_argument("--prompt-tokens", type=int, default=400, help="tokens of a long prompt")
    parser.add_argument("--pairs", type=int, default=5, help="measurements of each system")
    add_server_flags(parser)
    return parser


def main() -> None:
    """Run the bench and print a table."""
    measured = asyncio.run(measure(build_parser().parse_args()))
    compared = {load: compare(each["ours"], each["theirs"]) for load, each in measured.items()}
    rows = [
        {
            "tokens/s": load,
            "ours": figure.ours.median,
            "transformers": figure.theirs.median,
            "ratio of medians": f"{figure.ratio_of_medians:.2f}",
            "ratios of pairs (quartiles; extremes)": f"{figure.pair_ratios:.2f}",
        }
        for load, figure in compared.items()
    ]
    report("language-model", compared, table(rows))


if __name__ == "__main__":
    main()
