"""Imported MarianMT models give the tokens of ``transformers``, if it is installed."""

import random
import shutil

import pytest
import torch
from attendant_export.__main__ import main
from attendant_export.bundle.importing import sample_texts
from attendant_export.bundle.manifest import read_manifest
from attendant_export.verify.graph_search import search_all
from attendant_export.verify.graph_sessions import TranslationGraphs
from tokenizers import Tokenizer

from tests.support.bundles import one_thread
from tests.support.marian_checkpoints import tiny_vocabulary, write_marian

transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

MAX_TOKENS, NUM_TEXTS = 30, 40
VOCABULARY = tiny_vocabulary()
PAD = VOCABULARY["<pad>"]
TIE = 1e-4
EOS_BIASES = (2.0, 4.0, 6.0, 8.0, 10.0)


@pytest.fixture(autouse=True)
def quiet_threads():
    with one_thread():
        yield


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
                    std = draw.choice((0.25, 0.35, 0.45)) if tensor.dim() > 1 else 0.2
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


@torch.inference_mode()
def log_probabilities(model, tokenizer, text, ids):
    encoded = tokenizer(text, return_tensors="pt")
    logits = model(**encoded, decoder_input_ids=torch.tensor([[PAD, *ids[:-1]]])).logits[0]
    return logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].tolist()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_drawn_model_gives_the_tokens_of_the_original(seed, tmp_path):
    source = write_marian(tmp_path / "source", codes=True)
    tokenizer = transformers.MarianTokenizer.from_pretrained(source)
    texts = sample_texts()[:NUM_TEXTS]
    texts[:2] = [f">>fra<< {texts[0]}", "\U0001f633 \U0001f633\U0001f633 e\u0301\u0323"]
    model = drawn_model(seed, tokenizer, texts)
    for name in ("config.json", "model.safetensors"):
        (source / name).unlink()
    model.save_pretrained(source)
    shutil.rmtree(tmp_path / "bundles", ignore_errors=True)
    main(["import", str(source), "--bundles-dir", str(tmp_path / "bundles")])

    folder = tmp_path / "bundles" / "source" / "1"
    manifest = read_manifest(folder)
    graphs = TranslationGraphs(folder, manifest.precisions[0], manifest)
    ours = Tokenizer.from_file(str(folder / "tokenizer.json"))
    sources = [known_ids(ours.encode(text).ids) for text in texts]
    assert sources == [tokenizer(text).input_ids for text in texts]
    for beam_size in (1, 4):
        alone = [generated(model, tokenizer, [text], beam_size)[0] for text in texts]
        together = generated(model, tokenizer, texts, beam_size)
        for max_running, max_joining in ((1, 1), (8, 1), (NUM_TEXTS, NUM_TEXTS)):
            found = search_all(
                *(graphs, sources, [MAX_TOKENS] * NUM_TEXTS),
                beam_size=beam_size,
                max_running=max_running,
                max_joining=max_joining,
            )
            for text, trace, *expected in zip(texts, found, alone, together, strict=True):
                ids = trace.hypotheses[0].token_ids
                assert ids in expected or is_tie(model, tokenizer, text, ids, expected[0])
    expected = [
        log_probabilities(model, tokenizer, *pair) for pair in zip(texts, alone, strict=True)
    ]
    for scored, values in zip(graphs.score(sources, alone), expected, strict=True):
        assert scored == pytest.approx(values, abs=2e-4)


def known_ids(ids):
    return [i if i < len(VOCABULARY) else VOCABULARY["<unk>"] for i in ids]


def is_tie(model, tokenizer, text, ids, other):
    """Whether the two translations have nearly the same score."""
    means = [
        sum(log_probabilities(model, tokenizer, text, each)) / len(each) for each in (ids, other)
    ]
    return abs(means[0] - means[1]) < TIE
