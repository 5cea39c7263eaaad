"""The command that trains language models: from text files to a verified bundle."""

import json
import math

import numpy as np
import pytest
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.data.bad_lines import BadLines
from attendant_export.data.language_text import LanguageData, LanguageDataset
from attendant_export.data.text_corpus import open_stream
from attendant_export.models.causal_language_model import CausalLanguageModel
from attendant_export.runs.history import History
from attendant_export.runs.models import load_model
from attendant_export.verify.reference_search import greedy

from tests.support.bundles import data_card, one_thread, sentence_pairs
from tests.support.language_models import tiny_tokenizer

SIZES = ["--d-model", "64", "--num-heads", "4", "--num-key-value-heads", "2", "--num-layers", "2"]
SIZES += ["--d-feed-forward", "96", "--vocab-size", "300", "--max-tokens", "32", "--dropout", "0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with ``train.txt`` and ``valid.txt``, one sentence on each line."""
    folder = tmp_path_factory.mktemp("text")
    texts = [english for english, _ in sentence_pairs()]
    (folder / "train.txt").write_text("\n".join(texts[:-20]) + "\n\n")
    (folder / "valid.txt").write_text("\n".join(texts[-20:]))
    return folder


def train(data, run_dir, *options, max_steps=60):
    arguments = ["--data-dir", str(data), "--run-dir", str(run_dir), "--device", "cpu"]
    files = ["--train", "train.txt", "--valid", "valid.txt"]
    schedule = ["--max-steps", str(max_steps), "--validate-every-steps", "30"]
    schedule += ["--learning-rate", "5e-3", "--warmup-steps", "10", "--max-batch-tokens", "1024"]
    with one_thread():
        main(["train-language-model", *arguments, *files, *schedule, *SIZES, *options])
    return run_dir


@pytest.fixture(scope="module")
def run_dir(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("runs") / "tiny")


def history(run_dir):
    return History(run_dir).rows


def test_training_lowers_the_perplexity_of_other_text(run_dir):
    model, tokenizer = load_model(run_dir)
    assert isinstance(model, CausalLanguageModel)
    first, last = (row["perplexity"] for row in (history(run_dir)[0], history(run_dir)[-1]))
    assert last < first < tokenizer.get_vocab_size()
    [found] = greedy(model, [[1, *tokenizer.encode("The good king sees").ids]], 8)
    assert tokenizer.decode(list(found.token_ids)).startswith(" the ")


def test_a_run_becomes_a_verified_bundle(run_dir, data, tmp_path, capsys):
    card = tmp_path / "card.json"
    content = data_card("en")
    card.write_text(
        json.dumps(
            {
                "description": content.description,
                "license": content.license,
                "languages": content.languages,
                "data": [{"name": "sentences", "license": "CC0-1.0", "credit": "Tests."}],
                "intended_use": content.intended_use,
                "weaknesses": content.weaknesses,
                "examples": ["The old man"],
            }
        )
    )
    bundles = tmp_path / "bundles"
    options = ["--data-card", str(card), "--bundles-dir", str(bundles), "--precisions", "fp32,int8"]
    with one_thread():
        main(["export", "--run-dir", str(run_dir), "--data-dir", str(data), *options])
        main(["verify", str(bundles / "tiny" / "1")])
    manifest = read_manifest(bundles / "tiny" / "1")
    assert (manifest.limits.max_tokens, list(manifest.languages)) == (32, ["en"])
    assert manifest.decoding.start_token_id == 1
    assert "Causal language model of 2 layers" in manifest.provenance.recipe
    assert "greedy continuation" in (bundles / "tiny" / "1" / "MODEL_CARD.md").read_text()
    assert "int8 beam4: 7 of 7 reference texts get the same tokens" in capsys.readouterr().out


def test_a_run_with_a_higher_limit_continues(data, tmp_path):
    whole = train(data, tmp_path / "whole", max_steps=40)
    parts = train(data, tmp_path / "parts", "--max-epochs", "1", max_steps=40)
    assert history(parts)[-1]["step"] < 40
    train(data, tmp_path / "parts", max_steps=40)
    ends = [history(run)[-1] for run in (whole, parts)]
    assert ends[0]["step"] == ends[1]["step"] == 40
    assert ends[0]["perplexity"] == pytest.approx(ends[1]["perplexity"], rel=0.2)


def test_a_training_may_start_from_a_run(run_dir, data, tmp_path):
    started = train(data, tmp_path / "more", "--init-from", str(run_dir), max_steps=30)
    assert history(started)[0]["perplexity"] < history(run_dir)[0]["perplexity"]


def test_other_text_does_not_continue_a_run(run_dir, data, tmp_path, capsys):
    other = tmp_path / "data"
    other.mkdir()
    for name in ("train.txt", "valid.txt"):
        (other / name).write_text((data / name).read_text().upper())
    with pytest.raises(SystemExit):
        train(other, run_dir)
    assert "is a run on other training text" in capsys.readouterr().err


def test_lines_and_files_are_documents(data, tmp_path):
    lines = LanguageData((data / "train.txt",), data / "valid.txt")
    files = LanguageData((data,), data / "valid.txt", are_documents=True)
    texts = [english for english, _ in sentence_pairs()]
    assert list(lines.documents(lines.train)) == texts[:-20]
    assert list(files.documents(files.train)) == [
        "\n".join(texts[:-20]) + "\n",
        "\n".join(texts[-20:]),
    ]


def test_a_bad_line_is_refused_or_skipped(data, tmp_path, capsys):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"good\n\xff\xfe\nalso good\n")
    strict = LanguageData((path,), path)
    with pytest.raises(ValueError, match="bad.txt"):
        list(strict.documents([path]))
    lenient = LanguageData((path,), path, skip_bad_lines=True)
    assert list(lenient.documents([path])) == ["good", "also good"]
    assert BadLines().counts == {}


def test_a_stream_has_every_document_between_its_marks(data, tmp_path):
    tokenizer = tiny_tokenizer()
    text = LanguageData((data / "train.txt",), data / "valid.txt")
    stream, again = (
        open_stream(text, [text.valid], tokenizer, ([1], [2]), tmp_path / "cache") for _ in range(2)
    )
    assert np.array_equal(stream, again)
    ends = np.flatnonzero(stream == 2)
    documents = np.split(stream, ends + 1)[:-1]
    expected = list(text.documents([text.valid]))
    assert [tokenizer.decode(ids[1:-1].tolist()) for ids in documents] == expected
    assert all(ids[0] == 1 for ids in documents)


def test_an_epoch_has_each_token_once(tmp_path):
    stream = np.arange(103, dtype=np.uint16)
    dataset = LanguageDataset(stream, 10, 30)
    in_order = [batch.targets for batch in dataset.batches()]
    assert np.concatenate([each.numpy().ravel() for each in in_order]).tolist() == list(
        range(1, 101)
    )
    shuffled = list(dataset.batches(np.random.default_rng(3)))
    assert len(shuffled) == dataset.num_batches() == 4
    targets = np.sort(np.concatenate([each.targets.numpy().ravel() for each in shuffled]))
    assert (np.diff(targets) == 1).all()
    assert len(targets) == 100
    for batch in shuffled:
        assert (batch.targets - batch.token_ids == 1).all()
        assert batch.num_targets == batch.targets.numel()


def test_a_text_that_is_shorter_than_a_sequence_is_one_sequence():
    [batch] = LanguageDataset(np.array([5, 6, 7]), 10, 100).batches()
    assert (batch.token_ids.tolist(), batch.targets.tolist()) == ([[5, 6]], [[6, 7]])


def test_files_without_text_are_refused(tmp_path):
    path = tmp_path / "empty.txt"
    path.write_text("\n\n")
    data = LanguageData((path,), path)
    with pytest.raises(ValueError, match="empty.txt: there is no text"):
        open_stream(data, [path], tiny_tokenizer(), ([1], [2]), tmp_path / "cache")


def test_widths_that_steps_do_not_support_are_refused(data, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(data, tmp_path / "run", "--d-model", "48")
    error = capsys.readouterr().err
    assert "--d-model 48, --num-heads 4: Attention.head_dim: 12 is not supported" in error


def test_the_perplexity_is_that_of_the_mean_log_probability(run_dir):
    row = history(run_dir)[-1]
    assert row["perplexity"] == pytest.approx(math.exp(-row["log_probability"]), rel=1e-3)
