import json

import pytest
from attendant_export.data.translation_data import PairSource, TranslationData
from attendant_export.models.shapes import bert, transformer
from attendant_export.models.special_tokens import EncoderTokens, TranslationTokens
from attendant_export.runs.config import BERT, TRANSLATION, RunConfig, read_config, write_config
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.translation import train_translation

from tests.support.bundles import TINY_TRANSFORMER, train_tiny_translation, write_pairs

OLD_TRANSLATION = {
    "kind": "translation",
    "vocab_size": 60,
    "d_model": 32,
    "num_heads": 2,
    "d_ff": 64,
    "num_encoder_layers": 3,
    "num_decoder_layers": 1,
    "dropout": 0.2,
    "norm_first": False,
    "pad_id": 0,
    "bos_id": 1,
    "eos_id": 2,
}
OLD_BERT = {
    "kind": "bert",
    "vocab_size": 60,
    "d_model": 32,
    "num_heads": 2,
    "d_ff": 64,
    "num_layers": 3,
    "max_positions": 20,
    "num_segments": 2,
    "dropout": 0.2,
    "norm_first": True,
    "pad_id": 0,
    "cls_id": 5,
    "sep_id": 6,
    "mask_id": 7,
}


def write(folder, content) -> None:
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")


def test_a_run_of_a_translation_model_with_sizes_instead_of_an_architecture_is_read(tmp_path):
    write(tmp_path, OLD_TRANSLATION)
    architecture = transformer(60, 32, 2, 64, 3, 1, norm_first=False)
    assert read_config(tmp_path) == RunConfig(TRANSLATION, architecture, TranslationTokens(), 0.2)


def test_a_run_of_a_bert_with_sizes_instead_of_an_architecture_is_read(tmp_path):
    write(tmp_path, OLD_BERT)
    architecture = bert(60, 32, 2, 64, 3, max_positions=20, norm_first=True)
    assert read_config(tmp_path) == RunConfig(BERT, architecture, EncoderTokens(0, 5, 6, 7), 0.2)


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(TRANSLATION, transformer(60), TranslationTokens(3, 4, 5), 0.1),
        RunConfig(BERT, bert(60), EncoderTokens(5, 6, 7, 8), 0.0),
    ],
    ids=["translation", "bert"],
)
def test_what_is_written_is_read_again(tmp_path, config):
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kind": "other"}, "'other'"),
        ({"architecture": {"width": 3}}, "width"),
        ({"width": 3}, "width"),
    ],
)
def test_a_file_that_describes_no_run_is_named(tmp_path, change, problem):
    write(tmp_path, OLD_TRANSLATION | change)
    with pytest.raises(ValueError, match=f"config.json does not describe a run: .*{problem}"):
        read_config(tmp_path)


def test_a_run_with_sizes_instead_of_an_architecture_goes_on(tmp_path):
    data, run_dir = write_pairs(tmp_path / "data"), tmp_path / "run"
    train_tiny_translation(run_dir, data, max_steps=1)
    vocab_size = read_config(run_dir).architecture.source_embeddings.vocab_size
    sizes = {"vocab_size": vocab_size, "num_encoder_layers": 2, "num_decoder_layers": 2}
    write(run_dir, OLD_TRANSLATION | sizes | {"norm_first": True, "dropout": 0.0})
    texts = TranslationData(
        (PairSource(data / "train.tsv"),), data / "valid.tsv", vocab_size=200, max_batch_tokens=1024
    )

    progress = train_translation(
        TINY_TRANSFORMER, texts, TrainingOptions(max_steps=2), run_dir, dropout=0.0, device="cpu"
    )

    assert progress.step == 2
    assert "architecture" in json.loads((run_dir / "config.json").read_text())
