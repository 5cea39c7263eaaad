"""Classification heads that the command trains, behind a real server."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from attendant.v1.embedding_pb2 import (
    SCORE_FUNCTION_SIGMOID,
    SCORE_FUNCTION_SOFTMAX,
    ClassifyRequest,
    RerankRequest,
)
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.data.labelled_texts import (
    CLASSIFY,
    ENTAILMENT,
    MULTIPLE_CHOICE,
    SIMILARITY,
    TASKS,
    read_labelled,
)
from attendant_export.models.encoder import Encoder
from attendant_export.runs.history import History
from attendant_export.runs.models import load_model
from attendant_export.verify.metrics import correlation

from tests.support.bundles import data_card, one_thread, write_tiny_bert
from tests.support.labelled_files import write_labelled
from tests.support.serving import running_server

STEPS = {CLASSIFY: 40, ENTAILMENT: 100, SIMILARITY: 50, MULTIPLE_CHOICE: 40}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Runs and bundles of all tasks, from an encoder with random weights."""
    root = tmp_path_factory.mktemp("classifiers")
    write_tiny_bert(root / "bert")
    card = asdict(data_card("en")) | {"examples": ["The old king."]}
    (root / "card.json").write_text(json.dumps(card))
    with one_thread():
        for task in TASKS:
            write_labelled(root / task, task)
            train(root, task, "--max-steps", str(STEPS[task]))
            main(
                ["export", f"--run-dir={root / 'runs' / task}", f"--data-card={root / 'card.json'}"]
                + [f"--data-dir={root / task}", f"--bundles-dir={root / 'bundles'}"]
                + ["--test=valid.tsv", f"--precisions=fp32{',int8' * (task == ENTAILMENT)}"]
            )
    return root


def train(root, task, *options):
    main(
        ["train-classifier", f"--data-dir={root / task}", f"--init-from={root / 'bert'}"]
        + [f"--run-dir={root / 'runs' / task}", f"--task={task}", "--device=cpu", "--dropout=0"]
        + ["--train=train.tsv", "--valid=valid.tsv", "--learning-rate=5e-3", "--warmup-steps=10"]
        + ["--max-batch-tokens=1024", "--validate-every-steps=1000", *options]
    )


@pytest.fixture(scope="module")
def server(root, loop, settings):
    with running_server(loop, settings(bundles=root / "bundles", precision="fp32")) as running:
        yield running


def valid(root, task):
    return read_labelled(root / task / "valid.tsv", task).rows


def classify(server, task, rows, **options):
    sides = [[row.texts[side] for row in rows] for side in range(len(rows[0].texts))]
    pairs = sides[1] if len(sides) > 1 else []
    request = ClassifyRequest(model=task, texts=sides[0], text_pairs=pairs, **options)
    response = server.embedding.Classify(request)
    assert not any(result.error.message for result in response.results)
    return response


@pytest.mark.parametrize("task", [CLASSIFY, ENTAILMENT])
def test_served_labels_are_those_of_held_out_texts(server, root, task):
    rows = valid(root, task)
    response = classify(server, task, rows)
    found = [result.labels[0].label for result in response.results]
    right = np.mean([label == row.answer for label, row in zip(found, rows, strict=True)])
    assert right > 0.9
    assert response.score_function == SCORE_FUNCTION_SOFTMAX


def test_served_similarities_follow_the_scores_of_held_out_pairs(server, root):
    rows = valid(root, SIMILARITY)
    response = classify(server, SIMILARITY, rows)
    found = np.array([result.labels[0].score for result in response.results])
    assert correlation(found, np.array([float(row.answer) for row in rows])) > 0.9
    assert response.score_function == SCORE_FUNCTION_SIGMOID
    assert found.min() > 0
    assert found.max() < 1


def test_rerank_puts_the_right_choice_first(server, root):
    rows = valid(root, MULTIPLE_CHOICE)
    right = 0
    for context, *choices, answer in ([*row.texts, row.answer] for row in rows):
        request = RerankRequest(model=MULTIPLE_CHOICE, query=context, documents=choices)
        right += server.embedding.Rerank(request).results[0].index + 1 == int(answer)
    assert right / len(rows) > 0.9


@pytest.mark.parametrize("task", [CLASSIFY, ENTAILMENT, SIMILARITY])
def test_served_scores_are_those_of_the_trained_model(server, root, task):
    model, tokenizer = load_model(root / "runs" / task)
    assert isinstance(model, Encoder)
    rows = valid(root, task)[:5]
    response = classify(server, task, rows, raw_scores=True)
    labels = read_manifest(root / "bundles" / task / "1").classification.labels
    for row, result in zip(rows, response.results, strict=True):
        encoding = tokenizer.encode(*row.texts)
        with torch.inference_mode():
            [expected] = model.label_scores(
                torch.tensor([encoding.ids]), torch.tensor([encoding.type_ids])
            )
        found = {each.label: each.score for each in result.labels}
        scores = [found[label] for label in labels]
        np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_cards_and_manifests_tell_quality_and_labels(root):
    manifest = read_manifest(root / "bundles" / ENTAILMENT / "1")
    assert list(manifest.classification.labels) == ["both", "first", "none", "second"]
    figures = {(f.metric, f.precision): f.value for f in manifest.quality}
    assert figures["accuracy", "fp32"] > 0.9
    assert figures["accuracy", "int8"] > 0.9
    similarity = read_manifest(root / "bundles" / SIMILARITY / "1")
    assert {f.metric for f in similarity.quality} == {"spearman", "pearson"}
    card = (root / "bundles" / CLASSIFY / "1" / "MODEL_CARD.md").read_text()
    assert "| The old king. | royal" in card
    assert "pairs of a context and each choice" in (
        read_manifest(root / "bundles" / MULTIPLE_CHOICE / "1").provenance.recipe
    )
    assert manifest.limits.max_tokens == 64


def test_the_history_has_the_figures_of_the_validation_text(root):
    for task, figure in ((CLASSIFY, "accuracy"), (SIMILARITY, "spearman")):
        row = History(root / "runs" / task).rows[-1]
        assert row[figure] > 0.9
        assert row["validation_loss"] < 0.6
