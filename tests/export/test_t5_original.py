"""Imported T5 models give the tokens of ``transformers``, if it is installed."""

import random

import pytest
import torch
from attendant.v1.architecture_pb2 import RelativePositions
from attendant_export.__main__ import main
from attendant_export.bundle.importing import sample_texts
from attendant_export.bundle.manifest import read_manifest
from attendant_export.models.relative_positions import buckets
from attendant_export.verify.bounds import FP32_BOUND

from tests.support.drawn_seeds import seeds
from tests.support.imports import import_, read_translator
from tests.support.t5_checkpoints import TASKS, write_t5

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("quiet_threads")

MAX_TOKENS, NUM_TEXTS = 30, 12
FEED_FORWARDS = ("relu", "gated-gelu", "gated-silu", "gelu")
EOS_GAINS = (1.0, 1.5, 2.0, 3.0)


def drawn_config(draw, seed, vocab_size):
    """A configuration within the options of the family."""
    kind = transformers.MT5Config if seed % 3 == 2 else transformers.T5Config
    # The caches of the original are too small for a decoder with more layers than its encoder.
    num_decoder_layers = draw.randint(1, 3)
    return kind(
        vocab_size=vocab_size,
        d_model=draw.choice((40, 48)),
        d_kv=draw.choice((8, 16)),
        d_ff=draw.choice((40, 64)),
        num_layers=draw.randint(num_decoder_layers, 3),
        num_decoder_layers=num_decoder_layers,
        num_heads=draw.choice((2, 3)),
        relative_attention_num_buckets=draw.choice((4, 8, 32)),
        relative_attention_max_distance=draw.choice((17, 20, 128)),
        layer_norm_epsilon=draw.choice((1e-6, 1e-3)),
        feed_forward_proj=FEED_FORWARDS[seed % len(FEED_FORWARDS)],
        tie_word_embeddings=seed % 3 == 0,
        decoder_start_token_id=0,
    )


def random_model(draw, seed, vocab_size):
    """A model with random weights, tied for every third seed."""
    config = drawn_config(draw, seed, vocab_size)
    torch.manual_seed(draw.randrange(2**32))
    model = transformers.AutoModelForSeq2SeqLM.from_config(config).eval()
    if seed % 3:
        model.lm_head.weight = torch.nn.Parameter(torch.empty(vocab_size, config.d_model))
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            std = draw.choice((0.2, 0.3, 0.4)) if tensor.dim() > 1 else 0.3
            if name.endswith(".q.weight"):
                std *= config.d_kv**-0.5  # scores are not scaled, so rounding would grow in them
            tensor.copy_(torch.randn(tensor.shape) * std + ("norm" in name))
        model.shared.weight *= 2
        model.lm_head.weight[1] *= draw.choice(EOS_GAINS)
    return model


def drawn_model(seed, vocab_size, sources):
    """A model whose outputs have 15 different tokens and 2 different lengths at least."""
    draw = random.Random(seed)
    for _ in range(300):
        model = random_model(draw, seed, vocab_size)
        outputs = [generated(model, ids) for ids in sources]
        different = {token for ids in outputs for token in ids}
        if len(different) >= 15 and len({len(ids) for ids in outputs}) >= 2:
            return model
    raise AssertionError("no varied model was drawn")


def replace_model(source, model):
    """Write a model in the place of that of the checkpoint ``source``."""
    for name in ("config.json", "model.safetensors"):
        (source / name).unlink()
    model.save_pretrained(source)


@torch.inference_mode()
def generated(model, source):
    """The tokens that ``generate`` gives, up to EOS."""
    ids = model.generate(torch.tensor([source]), max_new_tokens=MAX_TOKENS)[0].tolist()[1:]
    return ids[: ids.index(1) + 1] if 1 in ids else ids


@pytest.mark.parametrize("seed", seeds())
def test_a_drawn_model_gives_the_tokens_of_the_original(seed, tmp_path):
    source = write_t5(tmp_path / "source")
    read = read_translator(source)
    vocab_size = read.model.architecture.source_embeddings.vocab_size
    sources = [read.tokenizers.source.encode(text).ids for text in sample_texts()[:NUM_TEXTS]]
    model = drawn_model(seed, vocab_size, sources)
    replace_model(source, model)
    languages = "--source-languages", "en", "--target-languages", "und"

    # Compares token ids, keys and values, log-probabilities, and greedy and beam search, alone, in
    # one batch and with sentences that join and leave. Raises ParityError.
    main(["import", str(source), "--bundles-dir", str(tmp_path / "bundles"), *languages])

    manifest = read_manifest(tmp_path / "bundles" / "source" / "1")
    assert manifest.provenance.imported_from.family == model.config.model_type
    original = manifest.parity.original
    assert original.num_texts >= NUM_TEXTS
    (found,) = original.translations
    assert found.max_log_probability_difference < FP32_BOUND
    assert {(each.search, each.batching) for each in found.tokens} == {
        (search, batching)
        for search in ("greedy", "beam4")
        for batching in ("single", "batched", "ragged")
    }
    for each in found.tokens:
        assert each.num_identical + each.num_ties == each.num_sentences
        assert each.num_ties <= 2


@pytest.mark.parametrize("seed", seeds())
def test_hidden_states_are_those_of_the_original(seed, tmp_path):
    source = write_t5(tmp_path / "source")
    size = read_translator(source).model.architecture.source_embeddings.vocab_size
    original = random_model(random.Random(seed), seed, size)
    replace_model(source, original)
    model = read_translator(source).model
    sources, targets = torch.randint(3, size, (3, 40)), torch.randint(3, size, (3, 35))
    sources[1, 25:] = sources[2, 3:] = 0
    with torch.inference_mode():
        expected = original(
            input_ids=sources,
            attention_mask=(sources != 0).long(),
            decoder_input_ids=targets,
            output_hidden_states=True,
        )
        torch.testing.assert_close(
            model(sources, targets), expected.decoder_hidden_states[-1], atol=1e-4, rtol=1e-4
        )
        log_probabilities = model.logits(model(sources, targets)).log_softmax(-1)
    torch.testing.assert_close(
        log_probabilities, expected.logits.log_softmax(-1), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("is_unidirectional", [False, True])
def test_buckets_are_those_of_the_original(is_unidirectional):
    attention = transformers.models.t5.modeling_t5.T5Attention
    distances = torch.arange(-700, 701)
    for num_buckets, max_distance in ((32, 128), (32, 256), (64, 500), (8, 17), (4, 3)):
        part = RelativePositions(
            num_buckets=num_buckets,
            max_distance=max_distance,
            is_unidirectional=is_unidirectional,
        )
        expected = attention._relative_position_bucket(
            distances, not is_unidirectional, num_buckets, max_distance
        )
        assert torch.equal(buckets(part, distances), expected)


def test_texts_after_the_prefixes_of_tasks_have_the_tokens_of_the_original(tmp_path, capsys):
    source = write_t5(tmp_path / "source", task_specific_params=TASKS)
    bundle = import_(source, tmp_path / "bundles", "--max-tokens", "60")
    original = read_manifest(bundle).parity.original
    assert (original.num_texts > 5, original.num_different_token_ids) == (True, 0)
    main(["verify", str(bundle), "--against", str(source)])
    assert "0 of" in capsys.readouterr().out


def test_an_import_without_room_for_the_tokens_of_languages_is_not_compared(tmp_path, caplog):
    tasks = {"translation_en_to_de": {"prefix": "translate English to German: "}}
    source = write_t5(tmp_path / "source", task_specific_params=tasks)
    options = ["--bundles-dir", str(tmp_path / "bundles"), "--name", "tiny", "--max-tokens", "8"]
    main(["import", str(source), *options])
    assert not read_manifest(tmp_path / "bundles" / "tiny" / "1").parity.HasField("original")
    assert "every reference text has more than 8 tokens, the limit of sources" in caplog.text
