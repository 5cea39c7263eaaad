"""Checkpoints of ByT5 have a tokenizer of bytes, without a file for it."""

import random

import pytest
import torch
from attendant_export.importers.byte_tokenizer import byte_tokenizer
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from safetensors.torch import save_file

from tests.support.checkpoints import change_json, random_tensors, write_json
from tests.support.imports import read_translator
from tests.support.t5_checkpoints import END, FIELDS, WIDTH, t5_shapes

TEXTS = ("", "a", " a ", "Ünï 文 😀", "\x00\n\t\r\x7f", "a" * 3000)


@pytest.fixture
def byt5(tmp_path):
    folder = tmp_path / "byt5"
    folder.mkdir()
    config = {**FIELDS, "vocab_size": 384, "tokenizer_class": "ByT5Tokenizer"}
    write_json(folder / "config.json", config)
    special = {"eos_token": END, "pad_token": "<pad>", "extra_ids": 125}
    write_json(folder / "tokenizer_config.json", special | {"tokenizer_class": "ByT5Tokenizer"})
    save_file(random_tensors(t5_shapes(config)), folder / "model.safetensors")
    return folder


def drawn_texts(count):
    draw = random.Random(5)
    planes = (range(0x300), range(0x300, 0xD800), range(0xE000, 0x110000))
    for _ in range(count):
        yield "".join(chr(draw.choice(draw.choice(planes))) for _ in range(draw.randrange(20)))


def test_tokens_are_those_of_the_original_and_decode_to_the_text(byt5):
    transformers = pytest.importorskip("transformers")
    original = transformers.ByT5Tokenizer.from_pretrained(byt5)
    tokenizer = byte_tokenizer(Checkpoint(byt5))
    for text in (*TEXTS, *drawn_texts(2000)):
        ids = tokenizer.encode(text).ids
        assert ids == original(text)["input_ids"]
        assert tokenizer.decode(ids) == text
    assert tokenizer.get_vocab_size() == 384


def test_a_checkpoint_is_a_translation_model_of_bytes(byt5):
    translator = read_translator(byt5)
    special = translator.tokenizers.source_tokens
    assert (special.pad_id, special.eos_id, special.unk_id) == (0, 1, 2)
    assert translator.model.architecture.d_model == WIDTH
    with torch.inference_mode():
        assert translator.model.embedding.weight.shape[0] == 384


@pytest.mark.parametrize("num_extra", [126, 10**9])
def test_more_extra_tokens_than_the_model_has_are_refused(num_extra, byt5):
    change_json(byt5 / "tokenizer_config.json", extra_ids=num_extra)
    message = f"vocab_size is 384, want at least {259 + num_extra}"
    with pytest.raises(CheckpointError, match=message):
        byte_tokenizer(Checkpoint(byt5))


def test_other_special_tokens_are_refused(byt5):
    change_json(byt5 / "tokenizer_config.json", pad_token="[PAD]")
    with pytest.raises(CheckpointError, match=r"pad_token is '\[PAD\]', which is not supported"):
        byte_tokenizer(Checkpoint(byt5))
