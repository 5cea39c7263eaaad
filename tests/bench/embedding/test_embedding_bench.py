"""The embedding bench: batches, workers and figures."""

import asyncio
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from bench.embedding import worker as embedding_worker
from bench.embedding.__main__ import build_parser
from bench.embedding.bare_loop import sorted_batches
from bench.embedding.contest import cosines
from bench.embedding.worker import running_worker

ENGINE = """
import sys
import numpy as np
from bench.embedding.worker import serve

class LengthEngine:
    async def embed(self, texts):
        print("libraries print things")
        return np.array([[len(text), 1.0] for text in texts], np.float32)

serve(LengthEngine().embed)
"""
"""Program of an engine that runs in an environment of its own."""


def test_batches_hold_texts_of_similar_length_within_the_budget():
    lengths = [5, 30, 6, 29, 7, 100]
    batches = list(sorted_batches(lengths, max_batch_tokens=60))
    assert [[lengths[i] for i in batch] for batch in batches] == [[5, 6, 7], [29, 30], [100]]


def test_a_text_longer_than_the_budget_is_a_batch_of_its_own():
    assert list(sorted_batches([50, 40], max_batch_tokens=10)) == [[1], [0]]


def test_no_texts_make_no_batches():
    assert list(sorted_batches([], max_batch_tokens=10)) == []


def test_cosines_ignore_lengths_and_name_the_worst():
    reference = np.array([[1, 0], [0, 2]], np.float32)
    mean, least = cosines(np.array([[3, 0], [1, 1]], np.float32), reference)
    assert least == pytest.approx(np.sqrt(0.5))
    assert mean == pytest.approx((1 + np.sqrt(0.5)) / 2)


def ask_worker(texts: Sequence[str]):
    async def run():
        async with running_worker([sys.executable, "-c", ENGINE]) as worker:
            vectors = await worker.vectors(texts)
            loop = await worker.measure([[text] for text in texts], concurrency=2)
            arrivals = await worker.measure([list(texts)], calls_per_second=1000)
            return vectors, loop, arrivals

    return asyncio.run(run())


def test_a_worker_embeds_and_measures_in_its_own_process():
    vectors, loop, arrivals = ask_worker(["a", "bbb", "cc"])
    assert vectors[:, 0].tolist() == [1, 3, 2]
    assert (loop.num_texts, loop.num_outputs, len(loop.latencies)) == (3, 3, 3)
    assert (arrivals.num_texts, len(arrivals.latencies)) == (3, 1)


def test_a_worker_that_dies_ends_the_bench():
    async def run():
        async with running_worker([sys.executable, "-c", "raise SystemExit(3)"]):
            pass

    with pytest.raises(SystemExit, match="process ended"):
        asyncio.run(run())


def test_an_engine_whose_threads_never_end_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedding_worker, "END_SECONDS", 0.2)
    endless = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"

    async def run():
        async with running_worker([sys.executable, "-c", endless + ENGINE]) as worker:
            await worker.vectors(["a"])

    asyncio.run(asyncio.wait_for(run(), 60))


def test_an_unknown_rival_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--data-dir=x", "--rivals=infinity,nobody"])
    assert "nobody" in capsys.readouterr().err
