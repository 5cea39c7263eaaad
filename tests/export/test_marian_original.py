"""Imported MarianMT models give the tokens of ``transformers``, if it is installed."""

import random
from typing import Any

import pytest
import torch
from attendant_export.__main__ import main
from attendant_export.bundle.importing import sample_texts
from attendant_export.bundle.manifest import read_manifest

from tests.support.drawn_seeds import seeds
from tests.support.imports import import_
from tests.support.marian_checkpoints import tiny_vocabulary, write_marian

transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

pytestmark = pytest.mark.usefixtures("quiet_threads")

MAX_TOKENS, NUM_TEXTS = 30, 40
VOCABULARY = tiny_vocabulary()
PAD = VOCABULARY["<pad>"]
EOS_BIASES = (2.0, 4.0, 6.0, 8.0, 10.0)


def drawn_config(draw):
    """A configuration within the options of the family, small enough for exact comparisons."""
    shares = draw.random() < 0.5
    return transformers.MarianConfig(
        vocab_size=len(VOCABULARY),
        decoder_vocab_size=len(VOCABULARY),
        d_model=48,
        encoder_layers=draw.randint(1, 3),
        decoder_layers=draw.randint(1, 3),
        encoder_attention_heads=draw.choice((2, 3, 4)),
        decoder_attention_heads=draw.choice((2, 3)),
        encoder_ffn_dim=draw.choice((40, 64)),
        decoder_ffn_dim=draw.choice((40, 64)),
        activation_function=draw.choice(("swish", "relu", "gelu")),
        scale_embedding=draw.random() < 0.5,
        share_encoder_decoder_embeddings=shares,
        tie_word_embeddings=draw.random() < 0.7,
        max_position_embeddings=128,
        pad_token_id=PAD,
        decoder_start_token_id=PAD,
        eos_token_id=0,
        forced_eos_token_id=None,
    )


def drawn_model(seed, tokenizer, texts):
    """A model whose outputs have 20 different tokens and 5 different lengths at least."""
    draw = random.Random(seed)
    for attempt in range(100):
        config = drawn_config(draw)
        torch.manual_seed(1000 * seed + attempt)
        model = transformers.MarianMTModel(config).eval()
        with torch.no_grad():
            for name, tensor in model.named_parameters():
                if "embed_positions" not in name:
                    # Larger weights amplify rounding beyond the bounds that hold for trained ones.
                    std = draw.choice((0.2, 0.27, 0.35)) if tensor.dim() > 1 else 0.2
                    tensor.copy_(torch.randn(tensor.shape) * std)
                    if "norm" in name and name.endswith("weight"):
                        tensor += 1
            model.tie_weights()
            model.final_logits_bias.copy_(torch.randn(model.final_logits_bias.shape) * 0.3)
            model.final_logits_bias[0, 0] += EOS_BIASES[attempt % len(EOS_BIASES)]
        outputs = generated(model, tokenizer, texts, 1)
        different = {token for ids in outputs for token in ids}
        if len(different) >= 20 and len({len(ids) for ids in outputs}) >= 5:
            return model
    raise AssertionError("no varied model was drawn")


@torch.inference_mode()
def generated(model, tokenizer, texts, beam_size):
    """The tokens that ``generate`` gives in one batch, up to EOS."""
    found = model.generate(
        **tokenizer(texts, return_tensors="pt", padding=True),
        num_beams=beam_size,
        max_new_tokens=MAX_TOKENS,
        max_length=None,
    )
    return [until_end(ids[1:]) for ids in found.tolist()]


def until_end(ids):
    return tuple(ids[: ids.index(0) + 1] if 0 in ids else ids)


SEARCHES: list[dict[str, Any]] = [
    {},
    {"num_beams": 6, "length_penalty": 0.6, "bad_words_ids": [[PAD]]},
    {
        "num_beams": 3,
        "length_penalty": 1.5,
        "suppress_tokens": [PAD, 40],
        "renormalize_logits": True,
    },
]


@pytest.mark.parametrize("seed", seeds())
def test_a_drawn_model_gives_the_translations_of_the_original(seed, tmp_path, capsys):
    options = SEARCHES[seed % len(SEARCHES)]
    source = write_marian(tmp_path / "source", codes=True)
    tokenizer = transformers.MarianTokenizer.from_pretrained(source)
    model = drawn_model(seed, tokenizer, sample_texts()[:NUM_TEXTS])
    for name in ("config.json", "model.safetensors"):
        (source / name).unlink()
    model.generation_config.update(forced_eos_token_id=0, max_length=512, **options)
    model.save_pretrained(source)
    bundle = import_(source, tmp_path / "bundles", "--max-tokens", "60")

    parity = read_manifest(bundle).parity.original
    assert (parity.implementation, parity.num_different_token_ids) == ("transformers", 0)
    (fp32,) = parity.translations
    assert fp32.max_log_probability_difference < 1e-4
    sizes = {"greedy", "beam4", f"beam{options.get('num_beams', 4)}"}
    assert {entry.search for entry in fp32.tokens} == sizes
    assert {entry.batching for entry in fp32.tokens} == {"single", "batched", "ragged"}
    for entry in fp32.tokens:
        assert entry.num_sentences > 12
        assert entry.num_identical + entry.num_ties == entry.num_sentences
        assert entry.num_ties <= 1
    line = f"fp32 beam4 ragged: 0 of {parity.num_texts} outputs have other tokens"
    assert line in (bundle / "MODEL_CARD.md").read_text()
    main(["verify", str(bundle), "--against", str(source)])
    assert line in capsys.readouterr().out
