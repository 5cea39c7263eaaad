"""The bench of the event loop counts its processor time and the bytes of answers."""

import asyncio
import sys

import pytest

from bench.loads import LoadResult
from bench.servers import RunningServer, free_port, running_program
from bench.serving.event_loop import ANSWERS, cost, measure
from tests.support.application import TINY_BUNDLES
from tests.support.processes import MODULE

TEXTS = ["The dog sees the king."]


def test_tokens_make_answers_larger_and_the_event_loop_is_a_part_of_the_process():
    port = free_port()
    command = [sys.executable, *MODULE, "--bundles", str(TINY_BUNDLES), "--num-threads", "1"]
    command += ["--models", "tiny-en-de", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--metrics-port=-1", "--lame-duck-seconds", "0", "--log-level", "warning"]
    answers = {name: ANSWERS[name] for name in ("small", "tokens")}
    with running_program(command) as pid:
        server = RunningServer(f"127.0.0.1:{port}", pid=pid)
        found = asyncio.run(measure(server, answers, TEXTS, num_callers=8, seconds=0.5, rounds=1))
    [small], [tokens] = found["small"], found["tokens"]
    assert 0 < small.answer_bytes < tokens.answer_bytes
    for each in (small, tokens):
        assert 0 < each.event_loop_ms < each.process_ms


def test_a_failed_call_ends_the_bench():
    failed = LoadResult(num_texts=1)
    failed.failures["UNAVAILABLE"] += 1
    with pytest.raises(SystemExit, match="UNAVAILABLE"):
        cost(failed, 1.0, 1.0)
