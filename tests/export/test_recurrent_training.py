"""``train-translation`` of recurrent networks: options, a few steps, and going on."""

import json

import pytest
import torch
from attendant.v1.architecture_pb2 import (
    ALIGNMENT_FUNCTION_ADDITIVE,
    ALIGNMENT_FUNCTION_GENERAL,
    NORM_POSITION_NONE,
    POSITION_KIND_UNSPECIFIED,
    RECURRENT_CELL_GRU,
    RECURRENT_CELL_LSTM,
)
from attendant_export.__main__ import main
from attendant_export.arguments import read_arguments
from attendant_export.commands.networks import translation_network
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.shapes import transformer
from attendant_export.runs.config import read_config

from tests.support.bundles import write_pairs
from tests.support.graphs import with_recurrences

pytestmark = pytest.mark.usefixtures("quiet_threads")

TRAIN = "train-translation --data-dir {data} --run-dir {run} --train train.tsv --valid valid.tsv "
SMALL = "--vocab-size 150 --d-model 32 --num-heads 2 --d-feed-forward 64 --max-batch-tokens 512 "
FEW_STEPS = "--device cpu --precision fp32 --warmup-steps 1 --num-encoder-layers 1 "
SOURCE, TARGET = torch.tensor([[5, 9, 3, 2], [8, 2, 0, 0]]), torch.tensor([[1, 4], [1, 3]])


def arguments(folder, options: str):
    """The command line of a training in ``folder``."""
    places = {"data": folder / "data", "run": folder / "run"}
    return (TRAIN + SMALL + FEW_STEPS + options).format(**places).split()


def train(folder, options: str):
    """Train a few steps; returns the run folder."""
    if not (folder / "data").exists():
        write_pairs(folder / "data")
    main(arguments(folder, options))
    return folder / "run"


def test_a_recurrent_model_is_trained_and_goes_on(tmp_path):
    options = "--encoder lstm --decoder gru --alignment additive --max-steps "
    run = train(tmp_path, options + "1")
    before = (run / "last" / "weights.safetensors").read_bytes()
    train(tmp_path, options + "2")
    assert (run / "last" / "weights.safetensors").read_bytes() != before
    network = read_config(run).architecture
    encoder, (first, last) = network.encoder.groups[0], network.decoder.groups
    assert (encoder.recurrent.cell, encoder.recurrent.is_bidirectional) == (
        RECURRENT_CELL_LSTM,
        True,
    )
    assert first.recurrent.cell == last.recurrent.cell == RECURRENT_CELL_GRU
    assert not first.HasField("alignment_attention")
    assert last.alignment_attention.function == ALIGNMENT_FUNCTION_ADDITIVE
    assert network.encoder.norm_position == NORM_POSITION_NONE
    assert network.target_embeddings.positions.kind == POSITION_KIND_UNSPECIFIED
    recipe = json.loads((run / "run.json").read_text())["recipe"]
    assert recipe.startswith("Encoder: bidirectional LSTM; decoder: GRU with additive attention, ")


def test_a_transformer_may_be_the_encoder_of_a_recurrent_decoder(tmp_path):
    options = "--decoder lstm --alignment-window 3 --predictive-window"
    network = translation_network(read_arguments(arguments(tmp_path, options)))
    assert network.encoder.groups[0].HasField("self_attention")
    part = network.decoder.groups[-1].alignment_attention
    assert part.function == ALIGNMENT_FUNCTION_GENERAL
    assert (part.window.half_width, part.window.is_predictive) == (3, True)
    model = EncoderDecoder(network)
    model.logits(model(SOURCE, TARGET)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--alignment dot", "--alignment: is for a --decoder of lstm, gru"),
        (
            "--encoder gru --predictive-window",
            "--predictive-window: is for a --decoder of lstm, gru",
        ),
        ("--decoder gru --alignment none --alignment-window 2", "needs another --alignment"),
        ("--decoder gru --predictive-window", "--predictive-window: needs --alignment-window"),
        ("--encoder lstm --decoder gru --post-norm", "--post-norm: is for an encoder or a decoder"),
    ],
)
def test_options_that_do_not_fit_each_other_are_refused(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(tmp_path, options)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_training_in_bfloat16_follows_that_in_fp32(cell):
    torch.manual_seed(1)
    model = EncoderDecoder(with_recurrences(transformer(50, 32, 2, 64, 1, 2), cell, "general"))
    expected = model.logits(model(SOURCE, TARGET))
    with torch.autocast("cpu", torch.bfloat16):
        found = model.logits(model(SOURCE, TARGET))
    found.float().sum().backward()
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
