import random
from pathlib import Path

import torch
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.runs.models import load_model
from tokenizers import Tokenizer

from bench.models.copying_transformer import (
    HEAD_DIM,
    position_channels,
    train_tokenizer,
    write_copying_run,
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


def test_one_head_is_as_wide_as_the_channels_of_positions():
    assert position_channels().sum() == HEAD_DIM


def test_the_model_copies_its_source_and_ends_where_it_ends(
    translation_bundle: Path, tmp_path: Path
):
    texts = sentences(12)
    tokenizer = train_tokenizer(translation_bundle, texts, vocab_size=80)
    write_copying_run(tmp_path, tokenizer)

    model, loaded = load_model(tmp_path)
    assert isinstance(model, EncoderDecoder)

    for text in texts:
        ids = loaded.encode(text).ids
        target_in = torch.tensor([[model.tokens.bos_id, *ids[:-1]]])
        with torch.inference_mode():
            logits = model.logits(model(torch.tensor([ids]), target_in))  # (1, target, vocab)
        assert logits.argmax(-1)[0].tolist() == ids


def test_a_larger_vocabulary_keeps_the_pipeline(translation_bundle: Path):
    texts = sentences(12)
    tokenizer = train_tokenizer(translation_bundle, texts, vocab_size=80)
    original = Tokenizer.from_file(str(translation_bundle / "tokenizer.json"))

    assert tokenizer.encode("the dog").tokens[-1] == original.encode("the dog").tokens[-1] == "</s>"
    assert tokenizer.decode(tokenizer.encode("the   dog").ids) == "the dog"
