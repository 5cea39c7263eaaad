import json
import math
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from attendant_export.bundle.manifest import BundleError, read_manifest
from attendant_export.bundle.parameters import fitting_parameters, read_parameters
from attendant_export.bundle.weights import read_weights
from attendant_export.data.pair_tokenizer import PairTokenizer
from attendant_export.data.tokenizer import load_tokenizer, train_translation_tokenizer
from attendant_export.data.translation_data import (
    ExtraPairs,
    PairSource,
    TranslationData,
    TranslationTexts,
)
from attendant_export.data.translation_pairs import PairBatch
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.shapes import transformer, with_vocab_size
from attendant_export.models.special_tokens import TranslationTokens
from attendant_export.runs.config import TRANSLATION, RunConfig, read_config
from attendant_export.runs.history import History
from attendant_export.runs.models import load_model
from attendant_export.train.loop import Task, Trainer
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.start import check_start, load_start
from attendant_export.train.translation import label_smoothed_loss, train_translation
from attendant_export.train.validation import ValidationSet
from torch import nn

from tests.support.bundles import TINY_TRANSFORMER, train_tiny_translation, write_pairs
from tests.support.graphs import tiny_transformer

OPTIONS = TrainingOptions(max_steps=1)


def tiny(vocab_size: int, **changes):
    """`TINY_TRANSFORMER` with changed sizes."""
    sizes = {"d_model": 32, "num_heads": 2, "d_feed_forward": 64, "num_encoder_layers": 2}
    return transformer(vocab_size, **(sizes | changes))


def with_heads(num_heads: int):
    return tiny(200, num_heads=num_heads)


def test_label_smoothed_loss_is_that_computed_by_hand():
    model = tiny_transformer(norm_first=True)
    source = torch.tensor([[5, 6, 2], [7, 2, 0]])
    target_in = torch.tensor([[1, 8, 9], [1, 4, 2]])
    target_out = torch.tensor([[8, 9, 2], [4, 2, 0]])

    loss = label_smoothed_loss(model, PairBatch(source, target_in, target_out, 5), 0.1)

    log_p = model.logits(model(source, target_in)).log_softmax(-1)
    terms = [
        -0.9 * log_p[row, i, target_out[row, i]] - 0.1 * log_p[row, i].mean()
        for row, i in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    ]
    torch.testing.assert_close(loss, torch.stack(terms).mean())


def test_an_untrained_model_has_the_loss_of_a_guess():
    model = tiny_transformer(norm_first=True)
    nn.init.zeros_(model.embedding.weight)
    token_ids = torch.tensor([[5, 6, 2]])
    batch = PairBatch(token_ids, token_ids, token_ids, num_targets=3)

    assert label_smoothed_loss(model, batch, 0.0).item() == pytest.approx(math.log(50))


def drawn_batch(num_rows: int, num_tokens: int) -> PairBatch:
    generator = torch.Generator().manual_seed(num_rows)
    source, target_in, target_out = torch.randint(
        3, 50, (3, num_rows, num_tokens), generator=generator
    )
    return PairBatch(source, target_in, target_out, target_out.numel())


def joined(batches) -> PairBatch:
    """The rows of all batches in one, padded to the widest."""
    width = max(batch.source.shape[1] for batch in batches)

    def rows(name):
        sides = [getattr(batch, name) for batch in batches]
        return torch.cat([F.pad(side, (0, width - side.shape[1])) for side in sides])

    num_targets = sum(batch.num_targets for batch in batches)
    return PairBatch(rows("source"), rows("target_in"), rows("target_out"), num_targets)


def test_several_batches_of_a_step_have_the_gradient_of_one_large_batch(tmp_path):
    batches = [drawn_batch(1, 3), drawn_batch(4, 9), drawn_batch(2, 5)]

    def trained(name, batches):
        model = tiny_transformer(norm_first=True).train()
        task = Task(
            lambda _: iter(batches),
            len(batches),
            lambda batch: label_smoothed_loss(model, batch, 0.1),
            lambda: {"value": 0.0},
            lambda batch: batch.num_targets,
        )
        options = TrainingOptions(max_steps=1, accumulate_steps=4, warmup_steps=1)
        Trainer(model, task, options, tmp_path / name, show_progress=False).train()
        return model, History(tmp_path / name).rows[0]["training_loss"]

    parts, loss = trained("parts", batches)
    whole, whole_loss = trained("whole", [joined(batches)])

    assert loss == pytest.approx(whole_loss, rel=1e-6)
    for part, parameter in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(part.grad, parameter.grad, rtol=1e-4, atol=1e-7)
        # The first step of Adam divides gradients by their size, also those that only round zero.
        is_real = parameter.grad.abs() > 1e-6
        torch.testing.assert_close(part[is_real], parameter[is_real], rtol=0, atol=1e-5)


def test_the_loss_of_a_validation_set_is_that_per_token_of_all_its_references():
    texts = ["the dog", "le chien", "un chien noir", "the black cat runs", "le chat noir court"]
    tokenizer = train_translation_tokenizer(texts, 50)
    model = tiny_transformer(norm_first=True, vocab_size=tokenizer.get_vocab_size())
    held_out = ValidationSet([texts[0], texts[3]], [texts[1:3], texts[4:]])

    def loss(batch):
        return label_smoothed_loss(model, batch, 0.1)

    measured = held_out.loss(loss, PairTokenizer.of_run(tokenizer), torch.device("cpu"))

    def summed(source, target):
        source_ids, target_ids = ([tokenizer.encode(text).ids] for text in (source, target))
        shifted = [[tokenizer.token_to_id("<s>"), *target_ids[0][:-1]]]
        tensors = [torch.tensor(ids) for ids in (source_ids, shifted, target_ids)]
        batch = PairBatch(tensors[0], tensors[1], tensors[2], num_targets=1)
        return loss(batch).item(), len(target_ids[0])

    pairs = [(texts[0], texts[1]), (texts[0], texts[2]), (texts[3], texts[4])]
    sums, nums = zip(*(summed(*pair) for pair in pairs), strict=True)
    assert measured == pytest.approx(sum(sums) / sum(nums), rel=1e-5)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return train_tiny_translation(folder / "run", write_pairs(folder / "data"), max_steps=10)


def test_a_translation_run_leaves_its_best_model_and_its_curve(run_dir):
    model, tokenizer = load_model(run_dir)

    assert model.architecture == with_vocab_size(TINY_TRANSFORMER, tokenizer.get_vocab_size())
    assert "bleu" in (run_dir / "history.csv").read_text().splitlines()[0]
    assert (run_dir / "history.png").stat().st_size > 0


def test_a_run_is_not_continued_as_another_model(run_dir):
    data = run_dir.parent / "data"
    texts = TranslationData((PairSource(data / "train.tsv"),), data / "valid.tsv")
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}

    problem = r"self_attention.num_heads 2, not 4; .*dropout 0.0, not 0.1"
    with pytest.raises(ValueError, match=problem):
        train_translation(with_heads(4), texts, OPTIONS, run_dir)

    after = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    assert after == before


def test_a_training_that_could_not_start_leaves_nothing_that_the_next_goes_by(run_dir, tmp_path):
    data = run_dir.parent / "data"
    texts = TranslationData((PairSource(data / "train.tsv"),), data / "valid.tsv", vocab_size=100)
    architecture = with_heads(4)

    with pytest.raises(ValueError, match="num_heads 2, not 4"):
        train_translation(architecture, texts, OPTIONS, tmp_path, device="cpu", init_from=run_dir)
    train_translation(architecture, texts, OPTIONS, tmp_path, device="cpu")

    model, _ = load_model(tmp_path)
    assert isinstance(model, EncoderDecoder)
    assert model.embedding.num_embeddings == 100


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"num_heads": 4}, "encoder.groups.0.self_attention.num_heads 2, not 4"),
        ({"norm_first": False}, "norm_position NORM_POSITION_PRE, not NORM_POSITION_POST"),
        ({"d_feed_forward": 4}, "feed_forward.d_feed_forward 64, not 4"),
    ],
)
def test_a_start_of_other_sizes_is_refused(run_dir, change, problem):
    config = read_config(run_dir)
    architecture = tiny(config.architecture.source_embeddings.vocab_size, **change)

    with pytest.raises(ValueError, match=problem):
        check_start(run_dir, replace(config, architecture=architecture))


def test_a_start_of_another_kind_is_refused(run_dir):
    with pytest.raises(ValueError, match="kind translation, not bert"):
        check_start(run_dir, replace(read_config(run_dir), kind="bert"))


def test_a_start_may_have_another_dropout(run_dir):
    check_start(run_dir, replace(read_config(run_dir), dropout=0.5))


def test_a_bundle_of_other_sizes_is_refused_as_start(translation_bundle):
    vocab_size = load_tokenizer(translation_bundle / "tokenizer.json").get_vocab_size()
    config = RunConfig(TRANSLATION, tiny(vocab_size), TranslationTokens(), dropout=0.0)
    check_start(translation_bundle, config)
    with pytest.raises(ValueError, match="NORM_POSITION_PRE, not NORM_POSITION_POST"):
        check_start(
            translation_bundle, replace(config, architecture=tiny(vocab_size, norm_first=False))
        )
    for field, value in {"num_heads": 2, "d_feed_forward": 64}.items():
        other = replace(config, architecture=tiny(vocab_size, **{field: 4}))
        with pytest.raises(ValueError, match=f"{field} {value}, not 4"):
            check_start(translation_bundle, other)


def test_training_can_start_from_the_weights_of_a_run(run_dir):
    trained, _ = load_model(run_dir)
    model = type(trained)(trained.architecture)

    load_start(run_dir, model)

    torch.testing.assert_close(model.state_dict(), trained.state_dict())


def test_training_can_start_from_the_weights_of_a_translation_bundle(translation_bundle):
    run_dir = translation_bundle.parents[1] / ".tiny-en-de-1" / "run"
    trained, _ = load_model(run_dir)
    model = type(trained)(trained.architecture)

    load_start(translation_bundle, model)

    torch.testing.assert_close(model.state_dict(), trained.state_dict())


def test_training_can_start_from_a_bundle_of_int8_weights_alone(translation_bundle, tmp_path):
    folder = tmp_path / "int8"
    shutil.copytree(translation_bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    (int8,) = (each for each in manifest["precisions"] if each["name"] == "int8")
    manifest["precisions"] = [int8]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    found = read_manifest(folder)
    weights = read_weights(folder, found.precisions[0])
    model = EncoderDecoder(found.architecture)

    load_start(folder, model)

    expected = fitting_parameters("int8", weights, found.architecture)
    torch.testing.assert_close(model.state_dict(), expected, rtol=0, atol=0)


def test_further_pairs_are_in_every_epoch_as_often_as_they_are_repeated(run_dir, tmp_path):
    data = run_dir.parent / "data"
    (tmp_path / "short.tsv").write_text("dog\tHund\nking\tKönig\n", encoding="utf-8")
    extra = (ExtraPairs(tmp_path / "short.tsv", 3),)
    texts = TranslationData(
        (PairSource(data / "train.tsv"),), data / "valid.tsv", swap=True, extra=extra
    )
    without = replace(texts, extra=())

    usual, more = (
        Counter(TranslationTexts(each, tmp_path / "cache").sample()) for each in (without, texts)
    )

    assert more - usual == {"Hund": 3, "dog": 3, "König": 3, "king": 3}


def test_a_start_for_other_languages_keeps_what_both_vocabularies_have(translation_bundle):
    texts = ("the man sees the dog", "l'homme voit le chien", "the dog runs", "le chien court")
    tokenizer = train_translation_tokenizer(texts, 60)
    start = load_tokenizer(translation_bundle / "tokenizer.json")
    model = EncoderDecoder(with_vocab_size(TINY_TRANSFORMER, tokenizer.get_vocab_size()))
    untouched = model.embedding.weight.detach().clone()

    load_start(translation_bundle, model, PairTokenizer.of_run(tokenizer))

    trained = read_parameters(translation_bundle)
    kept = {t: i for t, i in tokenizer.get_vocab().items() if start.token_to_id(t) is not None}
    new = [i for t, i in tokenizer.get_vocab().items() if t not in kept]
    assert {"</s>", "▁the"} <= kept.keys()
    assert new
    for token, token_id in kept.items():
        expected = trained["embedding.weight"][start.token_to_id(token)]
        assert torch.equal(model.embedding.weight[token_id], expected)
    assert torch.equal(model.embedding.weight[new], untouched[new])
    for name, parameter in model.named_parameters():
        assert name == "embedding.weight" or torch.equal(parameter, trained[name])


def test_a_run_for_other_languages_has_a_vocabulary_of_its_own_text(translation_bundle, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train.tsv", "valid.tsv"):
        (data / name).write_text("the dog runs\tle chien court\n" * 3, encoding="utf-8")
    texts = TranslationData((PairSource(data / "train.tsv"),), data / "valid.tsv", vocab_size=50)
    given = {"device": "cpu", "init_from": translation_bundle, "new_tokenizer": True}
    slow = replace(OPTIONS, learning_rate=1e-9)

    train_translation(TINY_TRANSFORMER, texts, slow, tmp_path / "run", **given)

    model, tokenizer = load_model(tmp_path / "run")
    trained = read_parameters(translation_bundle)
    assert "▁chien" in tokenizer.get_vocab()
    for name, parameter in model.named_parameters():
        if name != "embedding.weight":
            torch.testing.assert_close(parameter.detach(), trained[name])


def test_a_new_tokenizer_is_for_a_start_from_other_weights(tmp_path):
    texts = TranslationData((PairSource(tmp_path / "train.tsv"),), tmp_path / "valid.tsv")
    with pytest.raises(ValueError, match="new_tokenizer: is for a training that starts from"):
        train_translation(TINY_TRANSFORMER, texts, OPTIONS, tmp_path, new_tokenizer=True)


def test_training_cannot_start_from_a_damaged_bundle(translation_bundle, tmp_path):
    damaged = tmp_path / "1"
    damaged.mkdir()
    for file in translation_bundle.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / "weights.fp32.bin").write_bytes(b"something else")

    with pytest.raises(BundleError, match="weights.fp32.bin has another SHA-256"):
        load_start(damaged, tiny_transformer(norm_first=True))


def test_heads_that_no_decoder_step_can_have_are_refused_before_training(tmp_path):
    data = write_pairs(tmp_path / "data")
    texts = TranslationData((PairSource(data / "train.tsv"),), data / "valid.tsv")

    with pytest.raises(ValueError, match=r"Attention.head_dim: 4 is not supported in a decoder"):
        train_translation(tiny(200, num_heads=8), texts, OPTIONS, tmp_path / "run")
    assert not (tmp_path / "run").exists()
