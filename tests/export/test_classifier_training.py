"""Files, batches and refusals of the command that trains classification heads.

tests/e2e/test_trained_classifiers.py trains each task and serves the heads.
"""

import numpy as np
import pytest
import torch
from attendant.v1.embedding_pb2 import POOLING_CLS
from attendant_export.__main__ import main
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_export.data.bad_lines import BadLines
from attendant_export.data.labelled_batches import AnswerScale, LabelledDataset, TextReader
from attendant_export.data.labelled_texts import (
    CLASSIFY,
    ENTAILMENT,
    MULTIPLE_CHOICE,
    SIMILARITY,
    labels_of,
    read_labelled,
)
from attendant_export.data.tokenizer import load_tokenizer
from attendant_export.models.encoder import Encoder
from attendant_export.runs.config import read_config
from attendant_export.runs.history import History
from attendant_export.runs.models import load_model
from attendant_export.runs.text_facts import read_facts
from attendant_export.train.classifier import ClassifierTask
from attendant_export.train.encoder_start import read_start, with_head
from attendant_export.verify.metrics import measure_answers

from tests.support.bundles import one_thread, write_tiny_bert
from tests.support.classifiers import write_classifier
from tests.support.labelled_files import write_labelled

pytestmark = pytest.mark.usefixtures("quiet_threads")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_tiny_bert(tmp_path_factory.mktemp("runs") / "bert")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_labelled(tmp_path_factory.mktemp("data"), CLASSIFY)


def train(data, run_dir, start, *options, task=CLASSIFY, max_steps=2):
    schedule = ["--max-steps", str(max_steps), "--validate-every-steps", "100"]
    schedule += ["--learning-rate", "5e-3", "--warmup-steps", "5", "--max-batch-tokens", "512"]
    files = ["--data-dir", str(data), "--train", "train.tsv", "--valid", "valid.tsv"]
    with one_thread():
        main(
            ["train-classifier", *files, "--run-dir", str(run_dir), "--init-from", str(start)]
            + ["--task", task, "--device", "cpu", "--precision", "fp32", *schedule, *options]
        )
    return run_dir


def refusal(capsys, *arguments, **options):
    with pytest.raises(SystemExit):
        train(*arguments, **options)
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "line", "inputs"),
    [
        (CLASSIFY, "a\tgood", [("a",)]),
        (ENTAILMENT, "a\tb\tno", [("a", "b")]),
        (SIMILARITY, "a\tb\t3.5", [("a", "b"), ("b", "a")]),
        (MULTIPLE_CHOICE, "a\tb\tc\td\t2", [("a", "b"), ("a", "c"), ("a", "d")]),
    ],
)
def test_the_inputs_of_a_line_are_those_of_the_task(task, line, inputs, tmp_path):
    path = tmp_path / "lines.tsv"
    path.write_text(line + "\n")
    [row] = read_labelled(path, task).rows
    assert row.inputs(task) == inputs
    assert row.answer == line.rpartition("\t")[2]


@pytest.mark.parametrize(
    ("task", "line", "problem"),
    [
        (CLASSIFY, "only a text", "not text<TAB>label"),
        (CLASSIFY, "a\tb\tc", "not text<TAB>label"),
        (CLASSIFY, "a\t ", "empty side"),
        (ENTAILMENT, " \tb\tyes", "empty side"),
        (SIMILARITY, "a\tb\tvery", "no finite number as the score"),
        (SIMILARITY, "a\tb\tnan", "no finite number as the score"),
        (MULTIPLE_CHOICE, "a\tb\tc\t3", "no number of a choice"),
        (MULTIPLE_CHOICE, "a\tb\tc\t0", "no number of a choice"),
        (MULTIPLE_CHOICE, "a\tb\t1", "not context<TAB>choice<TAB>choice"),
    ],
)
def test_lines_that_are_not_of_the_task_are_refused_with_their_place(task, line, problem, tmp_path):
    path = tmp_path / "lines.tsv"
    path.write_text(f"{line}\n")
    with pytest.raises(ValueError, match="1 line") as refused:
        read_labelled(path, task)
    assert f"{path}:1: {problem}" in str(refused.value)
    bad_lines = BadLines()
    assert read_labelled(path, task, bad_lines).rows == []
    assert bad_lines.counts.total() == 1


def dataset_of(bert, tmp_path, task, lines, scale, **options):
    path = tmp_path / "lines.tsv"
    path.write_text("".join(f"{line}\n" for line in lines))
    tokenizer = load_tokenizer(bert / "tokenizer.json")
    reader = TextReader(tokenizer, 0, tokenizer.get_vocab_size(), options.pop("max_tokens", 64))
    return LabelledDataset(read_labelled(path, task), reader, scale, **options), tokenizer


def test_batches_have_the_tokens_types_and_answers_of_their_lines(bert, tmp_path):
    lines = ["The man\tsees\tcalls the king\t2", "The old dog\ta\tb\tc\t3"]
    scale = AnswerScale([MULTIPLE_CHOICE])
    dataset, tokenizer = dataset_of(bert, tmp_path, MULTIPLE_CHOICE, lines, scale)
    [batch] = dataset.batches(np.random.default_rng(1))
    order = [1, 0] if batch.answers.tolist() == [2, 1] else [0, 1]
    assert batch.answers[order].tolist() == [1, 2]
    assert batch.is_input[order].tolist() == [[True, True, False], [True, True, True]]
    pairs = [("The man", "sees"), ("The man", "calls the king"), ("The man", "sees")]
    for place, pair in enumerate(pairs):
        encoding = tokenizer.encode(*pair)
        num_tokens = len(encoding.ids)
        row = (order[0], place)
        assert batch.token_ids[row][:num_tokens].tolist() == encoding.ids
        assert batch.token_types[row][:num_tokens].tolist() == encoding.type_ids
        assert not batch.token_ids[row][num_tokens:].any()


def test_labels_of_other_text_are_refused_with_their_place(bert, tmp_path):
    with pytest.raises(ValueError, match=r"lines.tsv:2: the label bad is none of .*: fair, good"):
        dataset_of(bert, tmp_path, CLASSIFY, ["a\tgood", "b\tbad"], AnswerScale(["fair", "good"]))


def test_long_lines_are_refused_with_their_place(bert, tmp_path):
    scale = AnswerScale(["good"])
    with pytest.raises(ValueError, match="more than 5 tokens"):
        dataset_of(bert, tmp_path, CLASSIFY, ["The old old dog\tgood"], scale, max_tokens=5)


def test_a_text_with_one_label_is_refused(tmp_path):
    path = tmp_path / "lines.tsv"
    path.write_text("a\tgood\nb\tgood\n")
    with pytest.raises(ValueError, match="has no other label than good"):
        labels_of(read_labelled(path, CLASSIFY))


def tiny_task(bert, tmp_path, task, lines, scale):
    dataset, _ = dataset_of(bert, tmp_path, task, lines, scale)
    torch.manual_seed(2)
    start = read_start(bert)
    model = Encoder(with_head(start, len(scale.labels), "mean"), start.tokens).eval()
    start.load(model)
    return ClassifierTask(model, dataset, dataset, task, seed=1), model


def alone(model, tokenizer, *texts):
    """The scores of one text or pair, in a batch of its own."""
    encoding = tokenizer.encode(*texts)
    with torch.inference_mode():
        [scores] = model.label_scores(
            torch.tensor([encoding.ids]), torch.tensor([encoding.type_ids])
        )
    return scores.double().numpy()


def test_losses_are_those_of_a_plain_reading(bert, tmp_path):
    tokenizer = load_tokenizer(bert / "tokenizer.json")
    lines = ["The old dog sees\tb", "No\ta"]
    task, model = tiny_task(bert, tmp_path, CLASSIFY, lines, AnswerScale(["a", "b"]))
    first, second = (alone(model, tokenizer, line.split("\t")[0]) for line in lines)
    expected = np.mean([np.log(np.exp(s).sum()) - s[i] for s, i in ((first, 1), (second, 0))])
    assert task.validate()["validation_loss"] == pytest.approx(expected, rel=1e-4)

    lines = ["The man\tsees\tcalls the king\t2", "The old dog\ta\tb\tc\t3"]
    scale = AnswerScale([MULTIPLE_CHOICE])
    task, model = tiny_task(bert, tmp_path, MULTIPLE_CHOICE, lines, scale)
    losses = []
    for context, *choices, answer in (line.split("\t") for line in lines):
        scores = np.array([alone(model, tokenizer, context, each)[0] for each in choices])
        losses.append(np.log(np.exp(scores).sum()) - scores[int(answer) - 1])
    assert task.validate()["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-4)

    scale = AnswerScale([SIMILARITY], (1.0, 5.0))
    task, model = tiny_task(bert, tmp_path, SIMILARITY, ["The man\tsees\t2"], scale)
    orders = [("The man", "sees"), ("sees", "The man")]
    shares = [1 / (1 + np.exp(-alone(model, tokenizer, *each)[0])) for each in orders]
    losses = [-0.25 * np.log(share) - 0.75 * np.log(1 - share) for share in shares]
    assert task.validate()["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_answers_are_measured_by_the_first_order_and_by_the_choices():
    scores = [np.array([[s], [9.0]], np.float32) for s in (0.1, 0.5, 0.5, 0.9)]
    measured = measure_answers(SIMILARITY, scores, [1, 2, 2, 5])
    assert measured["spearman"] == pytest.approx(1)
    choices = [np.array([[1.0], [3.0]], np.float32), np.array([[2.0], [1.0]], np.float32)]
    assert measure_answers(MULTIPLE_CHOICE, choices, [1, 1]) == {"accuracy": 0.5}
    labels = [np.array([[1.0, 3.0]], np.float32), np.array([[2.0, 1.0]], np.float32)]
    assert measure_answers(CLASSIFY, labels, [1, 0]) == {"accuracy": 1.0}


def test_a_run_with_a_higher_limit_continues(bert, data, tmp_path):
    run_dir = train(data, tmp_path / "run", bert, max_steps=4)
    train(data, tmp_path / "run", bert, max_steps=8)
    assert [row["step"] for row in History(run_dir).rows] == [4, 8]


def test_other_text_labels_or_heads_do_not_continue_a_run(bert, data, tmp_path, capsys):
    run_dir = train(data, tmp_path / "run", bert)
    assert "classification_head.pooling" in refusal(capsys, data, run_dir, bert, "--pooling", "cls")
    other = write_labelled(tmp_path / "other", CLASSIFY)
    text = (other / "train.tsv").read_text().replace("The", "A")
    (other / "train.tsv").write_text(text)
    assert "is a run on other training text" in refusal(capsys, other, run_dir, bert)
    assert "kind classify, not entailment" in refusal(
        capsys, write_labelled(tmp_path / "pairs", ENTAILMENT), run_dir, bert, task=ENTAILMENT
    )


def test_bad_and_long_lines_are_refused_or_skipped(bert, data, tmp_path, capsys):
    other = tmp_path / "data"
    other.mkdir()
    lines = (data / "train.tsv").read_text()
    (other / "valid.tsv").write_text((data / "valid.tsv").read_text())
    (other / "train.tsv").write_text("no label\n" + lines)
    assert "train.tsv:1: not text<TAB>label" in refusal(capsys, other, tmp_path / "run", bert)
    (other / "train.tsv").write_text("king " * 99 + "\troyal\n" + lines)
    assert "train.tsv:1: more than 64 tokens" in refusal(capsys, other, tmp_path / "run", bert)
    train(other, tmp_path / "run", bert, "--skip-bad-lines")
    assert "encoder reads at most 64" in refusal(
        capsys, data, tmp_path / "more", bert, "--max-tokens", "65"
    )


def test_other_models_than_encoders_are_refused(translation_bundle, data, tmp_path, capsys):
    error = refusal(capsys, data, tmp_path / "run", translation_bundle)
    assert "is not an embedding model" in error


def test_the_encoder_of_an_imported_classifier_gets_a_new_head(data, tmp_path, monkeypatch):
    monkeypatch.setattr("attendant_export.bundle.importing.is_original_installed", lambda _: False)
    pytest.importorskip("transformers")
    source = write_classifier(tmp_path / "source", "roberta", num_labels=3)
    with one_thread():
        bundle = import_bundle(source, tmp_path / "bundles", ImportOptions(license="mit"))
    run_dir = train(data, tmp_path / "run", bundle, "--pooling", "cls")
    head = read_config(run_dir).architecture.classification_head
    assert (head.num_labels, head.pooling) == (2, POOLING_CLS)
    facts = read_facts(run_dir)
    assert facts is not None
    assert list(facts.classification.labels) == ["common", "royal"]
    model, _ = load_model(run_dir)
    assert isinstance(model, Encoder)
    start = read_start(bundle)
    before = Encoder(with_head(start, 2, "cls"), start.tokens)
    start.load(before)
    moved = (model.embedding.weight - before.embedding.weight).abs().max()
    assert 0 < moved < 0.1
