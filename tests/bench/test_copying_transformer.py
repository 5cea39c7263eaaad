import random
from pathlib import Path

import numpy as np
import torch
from attendant_export.models.transformer import sinusoidal_positions
from attendant_export.runs.models import load_translation_model
from tokenizers import Tokenizer

from bench.models.copying_transformer import (
    D_MODEL,
    position_channels,
    positions,
    train_tokenizer,
    write_run,
)

WORDS = [
    "the",
    "a",
    "dog",
    "cat",
    "house",
    "tree",
    "runs",
    "sleeps",
    "quickly",
    "red",
    "green",
    "under",
    "over",
    "river",
]


def sentences(num_sentences: int) -> list[str]:
    rng = random.Random(1)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 50))) for _ in range(num_sentences)]


def test_positions_are_the_exporters():
    assert np.allclose(positions(64), sinusoidal_positions(64, D_MODEL).numpy(), atol=1e-5)
    assert position_channels().sum() == 64


def test_the_model_copies_its_source_and_ends_where_it_ends(
    translation_bundle: Path, tmp_path: Path
):
    texts = sentences(12)
    tokenizer = train_tokenizer(translation_bundle, texts, vocab_size=80)
    write_run(tmp_path, tokenizer)

    model, loaded = load_translation_model(tmp_path)

    for text in texts:
        ids = loaded.encode(text).ids
        target_in = torch.tensor([[model.config.bos_id, *ids[:-1]]])
        with torch.inference_mode():
            logits = model.logits(model(torch.tensor([ids]), target_in))  # (1, target, vocab)
        assert logits.argmax(-1)[0].tolist() == ids


def test_a_larger_vocabulary_keeps_the_pipeline(translation_bundle: Path):
    texts = sentences(12)
    tokenizer = train_tokenizer(translation_bundle, texts, vocab_size=80)
    original = Tokenizer.from_file(str(translation_bundle / "tokenizer.json"))

    assert tokenizer.encode("the dog").tokens[-1] == original.encode("the dog").tokens[-1] == "</s>"
    assert tokenizer.decode(tokenizer.encode("the   dog").ids) == "the dog"
