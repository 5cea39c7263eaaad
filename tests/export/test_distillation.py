"""What a student learns from a teacher. tests/e2e/test_taught_embeddings.py has a real teacher."""

import csv
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from attendant_export.data import teacher_vectors
from attendant_export.data.bert_text import BertData, read_teacher_texts
from attendant_export.data.hard_negatives import find_neighbours, followed_by_neighbours
from attendant_export.data.teacher_vectors import TeacherVectors, read_or_embed
from attendant_export.models.shapes import bert
from attendant_export.train.bert import train_bert
from attendant_export.train.bert_losses import (
    contrastive_loss,
    distillation_loss,
    same_meaning,
)
from attendant_export.train.contrastive import ContrastiveOptions
from attendant_export.train.distillation import (
    DistillationOptions,
    fit_projection,
    read_projection,
)
from attendant_export.train.masked import MlmOptions
from attendant_export.train.schedule import TrainingOptions

from tests.support.made_pairs import write_training_pairs

TEACHER_WIDTH = 24
TEXTS = [f"text {i}" for i in range(10)]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def drawn(rng, *shape):
    return unit(rng.standard_normal(shape)).astype(np.float32)


def embed(texts):
    """A teacher whose vectors are the sums of random vectors of the words."""

    def vector(word):
        return np.random.default_rng(list(word.encode())).standard_normal(TEACHER_WIDTH)

    sums = [sum(vector(word) for word in text.split()) for text in texts]
    return unit(np.array(sums)).astype(np.float16)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> BertData:
    folder = tmp_path_factory.mktemp("data")
    train, valid = write_training_pairs(folder, num_times=3)
    (folder / "more.txt").write_text("Mary waits.\n\nA dog sings.\n" + "The dog " * 20 + "\n")
    return BertData(
        train,
        valid,
        teacher_texts=(folder / "more.txt",),
        vocab_size=150,
        max_tokens=16,
    )


def train(data, run_dir, steps, teacher=embed, key="teacher", **options):
    return train_bert(
        bert(1, d_model=32, num_heads=2, d_feed_forward=64, num_layers=1),
        data,
        MlmOptions(max_batch_tokens=128),
        ContrastiveOptions(
            TrainingOptions(
                max_steps=steps, learning_rate=5e-3, warmup_steps=5, validate_every_steps=20
            ),
            max_pairs=16,
        ),
        run_dir,
        dropout=0.0,
        device="cpu",
        precision="fp32",
        distillation=DistillationOptions(teacher, key, **options),
    )


def history(run_dir):
    with (run_dir / "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_vectors_of_a_killed_computation_are_kept_and_the_others_computed(tmp_path, monkeypatch):
    program = f"""
        import os, signal
        import numpy as np
        from pathlib import Path
        from attendant_export.data import teacher_vectors
        teacher_vectors.BLOCK_TEXTS = 4
        def embed(texts):
            if {TEXTS[8]!r} in texts:
                os.kill(os.getpid(), signal.SIGKILL)
            return np.full((len(texts), 2), 7, np.float16)
        teacher_vectors.read_or_embed({TEXTS!r}, Path({str(tmp_path)!r}), embed)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True)
    assert killed.returncode == -9, killed.stderr
    asked = []

    def embed_rest(texts):
        asked.extend(texts)
        return np.full((len(texts), 2), 8, np.float16)

    monkeypatch.setattr(teacher_vectors, "BLOCK_TEXTS", 4)
    vectors = read_or_embed(TEXTS, tmp_path, embed_rest)

    assert asked == TEXTS[8:]
    assert vectors[np.arange(10)][:, 0].tolist() == [7] * 8 + [8] * 2
    assert vectors[np.array([9, 0, 9])].tolist() == [[8, 8], [7, 7], [8, 8]]


def test_the_same_texts_of_another_order_of_blocks_are_not_mixed_up(tmp_path):
    first = read_or_embed(["a b", "c"], tmp_path, embed)
    other = read_or_embed(["a", "b c"], tmp_path, embed)
    both = np.arange(2)
    np.testing.assert_allclose(first[both], embed(["a b", "c"]), atol=1e-6)
    np.testing.assert_allclose(other[both], embed(["a", "b c"]), atol=1e-6)


def test_a_teacher_needs_texts(tmp_path):
    with pytest.raises(ValueError, match="no text for a teacher"):
        read_or_embed([], tmp_path, embed)


def test_neighbours_are_the_most_similar_texts_but_not_those_that_mean_the_same():
    angles = np.radians([0, 10, 40, 60, 180])
    vectors = TeacherVectors([np.stack([np.cos(angles), np.sin(angles)], axis=1)])

    found = find_neighbours(vectors, np.arange(5), [5, 4, 3, 2, 1], 2)

    assert found.tolist() == [[2, 3], [2, 3], [1, 0], [1, 0], [3, 2]]


def test_a_text_without_others_of_similar_length_has_no_neighbours(monkeypatch):
    monkeypatch.setattr("attendant_export.data.hard_negatives.SEARCHED_TEXTS", 2)
    vectors = TeacherVectors([np.eye(3, dtype=np.float16)])
    found = find_neighbours(vectors, np.array([0, 1, 2, 2, 1]), [1, 1, 2, 2, 3], 2)
    assert found.tolist() == [[1, -1], [0, -1], [-1, -1], [-1, -1], [-1, -1]]


def test_neighbours_follow_their_item_and_nothing_is_repeated(rng):
    neighbours = np.array([[2, 4], [0, -1], [1, 3], [-1, -1], [5, 0], [4, 2]], np.int32)
    order = np.array([3, 0, 1, 2, 4, 5])
    assert followed_by_neighbours(order, neighbours).tolist() == [3, 0, 2, 4, 1, 5]


def test_a_projection_keeps_cosines_and_rotates_to_the_student(rng):
    students = drawn(rng, 200, 8)
    basis, _ = np.linalg.qr(rng.standard_normal((20, 8)))
    teachers = (students @ basis.T).astype(np.float32)  # the same vectors in 20 dimensions

    projection = fit_projection(teachers, students)

    np.testing.assert_allclose(teachers @ projection, students, atol=1e-5)


def test_a_teacher_may_be_narrower_than_the_student(rng):
    teachers, students = drawn(rng, 100, 4), drawn(rng, 100, 8)
    projected = teachers @ fit_projection(teachers, students)
    np.testing.assert_allclose(projected @ projected.T, teachers @ teachers.T, atol=1e-5)


def test_pairs_of_the_same_meaning_are_no_negatives():
    targets = torch.eye(4)[[0, 1, 1, 3]]
    vectors = torch.eye(4)[[0, 1, 1, 3]]
    is_same = same_meaning(targets, targets)
    assert is_same.nonzero().tolist() == [[1, 2], [2, 1]]
    assert contrastive_loss(vectors, vectors, 0.05) > 0.1
    assert contrastive_loss(vectors, vectors, 0.05, is_same) < 1e-6


def test_the_distillation_loss_is_the_mean_distance_in_direction():
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert distillation_loss(3 * targets, targets, 2) == 0
    assert distillation_loss(targets.flip(0), targets, 2) == 1
    assert distillation_loss(-targets[:1], targets[:1], 2) == 1  # a share of one of two rows


def test_a_student_comes_closer_to_its_teacher(data, tmp_path):
    asked = []

    def listening(texts):
        asked.extend(texts)
        return embed(texts)

    train(data, tmp_path, 60, listening)

    first, *_, last = history(tmp_path)
    assert last["teacher_cosine"] > max(0.8, first["teacher_cosine"])
    assert last["training_loss"] < first["training_loss"]
    assert last["retrieval_accuracy"] > 0.8
    # Both sides of the pairs have the vector of the first one, and long texts are left out.
    assert not any("Hund" in text or text.startswith("The dog The dog") for text in asked)
    assert {"Mary waits.", "A dog sings."} < set(asked)


def test_a_resumed_student_keeps_its_targets_and_asks_its_teacher_nothing(data, tmp_path):
    def silent(texts):
        raise AssertionError("the vectors are there")

    train(data, tmp_path, 20)
    before = read_projection(tmp_path)
    progress = train(data, tmp_path, 40, silent)
    assert progress.step == 40
    np.testing.assert_array_equal(read_projection(tmp_path), before)


def test_a_run_is_not_continued_with_another_teacher(data, tmp_path):
    train(data, tmp_path, 1)
    with pytest.raises(ValueError, match="filters, languages or controls: the teacher"):
        train(data, tmp_path, 2, key="other")


def test_runs_share_the_vectors_of_a_cache_folder(data, tmp_path):
    def silent(texts):
        raise AssertionError("the vectors are there")

    train(data, tmp_path / "one", 1, cache_dir=tmp_path / "cache")
    train(data, tmp_path / "two", 1, silent, cache_dir=tmp_path / "cache", num_hard_negatives=0)
    assert not (tmp_path / "two" / "data").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\n \n", "has no texts"), (b"good\n\xff\n", r"more\.txt:2: not UTF-8")],
)
def test_bad_teacher_texts_are_refused(data, tmp_path: Path, content, message):
    (tmp_path / "more.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_teacher_texts(replace(data, teacher_texts=(tmp_path / "more.txt",)))


def test_bad_teacher_texts_may_be_skipped(data, tmp_path):
    (tmp_path / "more.txt").write_bytes(b"good\n\xff\ngood\n")
    skipping = replace(data, teacher_texts=(tmp_path,), skip_bad_lines=True)
    assert read_teacher_texts(skipping) == ["good"]
