"""MarianMT models of drawn configurations follow the original implementation."""

import random

import pytest
import torch
from attendant_export.bundle.importing import sample_texts
from attendant_export.bundle.manifest import read_manifest

from tests.support.checkpoints import change_json
from tests.support.drawn_seeds import seeds
from tests.support.drawn_translators import draw_weights, is_suitable
from tests.support.imports import import_
from tests.support.marian_checkpoints import write_marian

transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

pytestmark = pytest.mark.usefixtures("quiet_threads")

EOS = 0


def draw_network(draw):
    """Fields of the network that a configuration may have."""
    return {
        "d_model": 48,
        "encoder_layers": draw.randint(1, 3),
        "decoder_layers": draw.randint(1, 3),
        "encoder_attention_heads": draw.choice((2, 3, 4)),
        "decoder_attention_heads": draw.choice((2, 3)),
        "encoder_ffn_dim": draw.choice((40, 64)),
        "decoder_ffn_dim": draw.choice((40, 64)),
        "activation_function": draw.choice(("relu", "gelu", "swish", "gelu_new")),
        "scale_embedding": draw.random() < 0.5,
        "tie_word_embeddings": draw.random() < 0.6,
        "share_encoder_decoder_embeddings": draw.random() < 0.6,
    }


def draw_search(draw, token):
    """Search options that a checkpoint may state; ``token`` is a likely one."""
    options = {
        "num_beams": draw.choice((1, 3, 5)),
        "length_penalty": draw.choice((0.6, 1.0, 1.5)),
        "early_stopping": draw.random() < 0.3,
        "forced_bos_token_id": draw.choice((None, None, 25)),
        "suppress_tokens": draw.choice((None, [token])),
    }
    if draw.random() < 0.5:
        return options | {"renormalize_logits": True}
    return options | {
        "no_repeat_ngram_size": draw.choice((0, 2, 3)),
        "repetition_penalty": draw.choice((1.0, 1.2)),
        "min_length": draw.choice((0, 4)),
    }


def draw_checkpoint(folder, seed):
    """A checkpoint with a random model whose translations are varied."""
    draw = random.Random(seed)
    write_marian(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = tokenizer(sample_texts()[:16], return_tensors="pt", padding=True)
    torch.manual_seed(seed)
    for _ in range(300):
        config = transformers.AutoConfig.from_pretrained(folder)
        config.update(draw_network(draw))
        model = transformers.MarianMTModel(config).eval()
        draw_weights(draw, model, EOS)
        if is_suitable(model, texts, EOS):
            break
    else:
        raise AssertionError("no suitable model was drawn")
    with torch.inference_mode():
        tokens = model.generate(**texts, max_new_tokens=10, max_length=None)[:, 1:].flatten()
    likely = int(tokens[(tokens != EOS) & (tokens != config.pad_token_id)].mode().values)
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    model.save_pretrained(folder)
    change_json(folder / "generation_config.json", **draw_search(draw, likely))


@pytest.mark.parametrize("seed", seeds())
def test_a_drawn_model_gives_the_translations_of_the_original(seed, tmp_path):
    draw_checkpoint(tmp_path / "source", seed)
    # Compares token ids, keys and values, log-probabilities and searches, also with the options of
    # the checkpoint. Raises ParityError.
    bundle = import_(tmp_path / "source", tmp_path / "bundles", "--max-tokens", "40")
    original = read_manifest(bundle).parity.original
    assert (original.num_texts >= 3, original.num_different_token_ids) == (True, 0)
    for each in original.translations[0].tokens:
        assert each.num_identical + each.num_ties == each.num_sentences
        assert each.num_ties <= 2
