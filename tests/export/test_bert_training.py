import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from attendant_export.bundle.manifest import read_manifest
from attendant_export.bundle.parameters import read_parameters
from attendant_export.data.bert_text import BertData, TextSource, read_mlm_text
from attendant_export.models.encoder import Encoder
from attendant_export.models.shapes import bert
from attendant_export.models.special_tokens import EncoderTokens
from attendant_export.runs import checkpoint
from attendant_export.runs.config import BERT, RunConfig
from attendant_export.runs.models import load_model
from attendant_export.stopping import Stopped
from attendant_export.train.bert import train_bert
from attendant_export.train.bert_losses import contrastive_loss
from attendant_export.train.contrastive import ContrastiveOptions
from attendant_export.train.masked import MlmOptions, MlmTask
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.sentence_vectors import embed_texts
from attendant_export.train.start import check_start, load_start
from attendant_export.verify.metrics import retrieval_accuracy
from attendant_manifest.sizes import embedding_sizes

from tests.support.made_pairs import write_training_pairs

SIZES: dict[str, Any] = {"d_model": 32, "num_heads": 2, "d_feed_forward": 64, "num_layers": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> BertData:
    folder = tmp_path_factory.mktemp("data")
    train, valid = write_training_pairs(folder, num_times=4)
    documents = [f"Number {i} waits.\nThe dog sees number {i}.\n\n" for i in range(20)]
    (folder / "text.txt").write_text("".join(documents))
    source = TextSource(folder / "text.txt", max_characters=300, held_out_documents=0.3)
    return BertData(train, valid, (source,), vocab_size=150, max_tokens=16)


def options(max_steps: int) -> TrainingOptions:
    return TrainingOptions(
        max_steps=max_steps, learning_rate=5e-3, warmup_steps=5, validate_every_steps=20
    )


def train(
    data: BertData,
    run_dir,
    mlm_steps: int = 40,
    steps: int = 80,
    embedding_training: TrainingOptions | None = None,
    num_heads: int = 2,
    **changes,
):
    return train_bert(
        bert(1, **(SIZES | {"num_heads": num_heads})),
        data,
        MlmOptions(options(mlm_steps), max_batch_tokens=256),
        ContrastiveOptions(options(steps), max_pairs=32, embedding_training=embedding_training),
        run_dir,
        dropout=0.0,
        device="cpu",
        **changes,
    )


@pytest.fixture(scope="module")
def run_dir(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    train(data, run_dir)
    return run_dir


def history(folder) -> list[dict[str, float]]:
    header, *rows = (folder / "history.csv").read_text().split()
    return [dict(zip(header.split(","), map(float, row.split(",")), strict=True)) for row in rows]


def test_both_phases_learn_what_can_be_learned(run_dir):
    masked, last = history(run_dir / "mlm"), history(run_dir)[-1]
    assert masked[-1]["training_loss"] < masked[0]["training_loss"]
    assert masked[-1]["masked_accuracy"] > 0.1
    assert last["retrieval_accuracy"] > 0.8


def test_the_loaded_model_finds_translations(run_dir):
    model, tokenizer = load_model(run_dir)
    assert isinstance(model, Encoder)
    assert not model.training
    first = embed_texts(model, tokenizer, ["The dog sleeps now.", "Mary sings today."], 16)
    second = embed_texts(model, tokenizer, ["Der Hund schläft jetzt.", "Maria singt heute."], 16)
    assert retrieval_accuracy(first, second) == 1


def test_embeddings_do_not_depend_on_the_batch(run_dir):
    model, tokenizer = load_model(run_dir)
    assert isinstance(model, Encoder)
    texts = ["Mary sings.", "A much longer text about the dog that sleeps here.", "The cat."]
    alone = torch.cat([embed_texts(model, tokenizer, [text], 16) for text in texts])
    torch.testing.assert_close(embed_texts(model, tokenizer, texts, 16), alone)


def test_validation_reads_no_more_of_a_sentence_than_training_does(data, tmp_path):
    lines = data.valid_pairs.read_text().replace("The dog", "The dog" + " often" * 20)
    (tmp_path / "valid.tsv").write_text(lines)
    longer = replace(data, valid_pairs=tmp_path / "valid.tsv")
    network = bert(1, **SIZES, max_positions=data.max_tokens)

    train_bert(
        *(network, longer, MlmOptions(), ContrastiveOptions(options(1)), tmp_path / "run"),
        device="cpu",
    )

    assert "retrieval_accuracy" in history(tmp_path / "run")[-1]


def test_the_run_folder_says_what_it_holds(run_dir):
    config = checkpoint.read_json(run_dir / "config.json")
    assert config["kind"] == "bert"
    assert config["architecture"]["source_embeddings"]["vocab_size"] == 150
    assert (config["pad_id"], config["cls_id"], config["sep_id"], config["mask_id"]) == (0, 2, 3, 4)


def test_a_finished_run_is_not_repeated(data, run_dir):
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    train(data, run_dir)
    after = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    assert after == before


def test_a_finished_first_phase_is_kept_when_the_second_goes_on(data, tmp_path):
    train(data, tmp_path, mlm_steps=20, steps=20)
    mlm = (tmp_path / "mlm/last/weights.safetensors").read_bytes()
    progress = train(data, tmp_path, mlm_steps=20, steps=40)
    assert progress.step == 40
    assert (tmp_path / "mlm/last/weights.safetensors").read_bytes() == mlm


def test_a_stopped_phase_is_not_followed_by_the_next(data, tmp_path, monkeypatch):
    def stopped(task, batch):
        signal.raise_signal(signal.SIGTERM)
        return loss(task, batch)

    loss = MlmTask.loss
    monkeypatch.setattr(MlmTask, "loss", stopped)

    with pytest.raises(Stopped):
        train(data, tmp_path, mlm_steps=1, steps=1)

    assert (tmp_path / "mlm/last").exists()
    assert not (tmp_path / "last").exists()


def test_a_run_is_not_continued_as_another_model(data, run_dir):
    before = (run_dir / "config.json").read_bytes()
    with pytest.raises(ValueError, match="num_heads 2, not 4"):
        train(data, run_dir, num_heads=4)
    assert (run_dir / "config.json").read_bytes() == before


def test_token_embeddings_are_learned_first_where_asked_for(data, tmp_path):
    train(data, tmp_path, mlm_steps=1, steps=1, embedding_training=options(60))
    assert history(tmp_path / "embeddings")[-1]["retrieval_accuracy"] > 0.8
    assert history(tmp_path)[-1]["retrieval_accuracy"] > 0.3


def test_training_starts_from_another_run(data, run_dir, tmp_path):
    train(data, tmp_path, mlm_steps=1, steps=1, init_from=run_dir)
    assert (tmp_path / "tokenizer.json").read_text() == (run_dir / "tokenizer.json").read_text()
    assert history(tmp_path)[-1]["retrieval_accuracy"] > 0.8


def test_training_may_start_from_a_bundle_whose_manifest_is_of_version_1():
    bundle = Path(__file__).parents[1] / "recorded/bundles/tiny-bert/1"
    assert json.loads((bundle / "manifest.json").read_text())["manifest_version"] == 1
    manifest = read_manifest(bundle)
    sizes = embedding_sizes(manifest.architecture)
    network = bert(
        *(sizes.vocab_size, sizes.d_model, sizes.num_heads, sizes.d_feed_forward),
        *(sizes.num_layers, manifest.limits.max_tokens),
    )
    model = Encoder(network)

    check_start(bundle, RunConfig(BERT, network, EncoderTokens(), dropout=0.1))
    load_start(bundle, model)

    assert not model.state_dict()["segment_embedding.weight"].any()
    torch.testing.assert_close(model.state_dict(), read_parameters(bundle))


def test_held_out_documents_are_never_trained_on(data):
    text = read_mlm_text(data)
    assert not set(text.train) & set(text.valid)
    assert any("Number" in passage for passage in text.valid)
    assert 300 <= sum(len(p) for p in text.train if "umber" in p) < 350


def test_a_source_without_held_out_documents_is_all_trained_on(data):
    source = replace(data.texts[0], held_out_documents=0.0, max_characters=10_000)
    text = read_mlm_text(replace(data, texts=(source,)))
    assert sum("Number" in passage for passage in text.train) == 20
    assert not any("Number" in passage for passage in text.valid)


def test_contrastive_loss_is_lowest_for_partners():
    rows = torch.eye(4)
    assert contrastive_loss(rows, 3 * rows, 0.05) < 1e-6
    assert contrastive_loss(rows, rows.roll(1, 0), 0.05) > 10


def test_retrieval_accuracy_is_the_mean_of_both_directions():
    first = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    second = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert retrieval_accuracy(first, first) == 1
    assert retrieval_accuracy(first, second) == pytest.approx(2 / 3)
