import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gpu import FULL, card_limits, made_up_words, texts_of

ROOT = Path(__file__).parents[2]


def test_words_are_different_and_texts_are_as_long_as_asked():
    words = made_up_words(100)
    assert len(set(words)) == 100
    assert {len(text.split()) for text in texts_of(words, 20, num_words=7)} == {7}
    assert texts_of(words, 20) == texts_of(words, 20)
    assert {len(text.split()) for text in texts_of(words, 200)} <= set(range(3, 61))


def test_limits_that_cannot_be_measured_are_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert card_limits(FULL, "cuda") == {"unknown": "this PyTorch cannot use the GPU"}


@pytest.mark.slow
def test_the_measurement_runs_on_a_cpu_and_says_that_its_figures_mean_nothing():
    command = [sys.executable, "-m", "bench.gpu", "--smoke"]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    figures = json.loads(shown)
    assert figures["is_smoke_test"]
    assert figures["device"] == "cpu"
    assert [found["beam_size"] for found in figures["translation"]] == [1, 4]
    assert all(found["best_hypothesis_tokens_per_second"] > 0 for found in figures["translation"])
    assert figures["embedding"]["tokens_per_sequence"] > 2
