"""``train-translation`` of convolutional networks and mixtures of experts: options, a few steps."""

import json

import pytest
import torch
from attendant.v1.architecture_pb2 import (
    ALIGNMENT_FUNCTION_ADDITIVE,
    ALIGNMENT_FUNCTION_SCALED_DOT,
    POSITION_KIND_UNSPECIFIED,
)
from attendant_export.arguments import read_arguments
from attendant_export.commands.networks import translation_network
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.mixture_of_experts import balance_loss
from attendant_export.runs.config import read_config

from tests.export.test_recurrent_training import SOURCE, TARGET, arguments, train

pytestmark = pytest.mark.usefixtures("quiet_threads")


def network(folder, options: str):
    """The network that the options describe."""
    return translation_network(read_arguments(arguments(folder, options)))


def test_a_convolutional_model_with_experts_is_trained_and_goes_on(tmp_path):
    options = (
        "--encoder slicenet --decoder slicenet --num-decoder-layers 2 --num-experts 3 --max-steps "
    )
    run = train(tmp_path, options + "1")
    before = (run / "last" / "weights.safetensors").read_bytes()
    train(tmp_path, options + "2")
    assert (run / "last" / "weights.safetensors").read_bytes() != before
    groups = read_config(run).architecture.decoder.groups
    sizes = [[step.kernel_size for step in group.convolution.steps] for group in groups]
    assert sizes == [[3, 3], [15, 15]]
    assert [group.HasField("alignment_attention") for group in groups] == [False, True]
    function = groups[1].alignment_attention.function
    assert function == ALIGNMENT_FUNCTION_SCALED_DOT
    experts = [group.mixture_of_experts.num_experts for group in groups]
    assert (experts, groups[1].mixture_of_experts.num_selected) == ([0, 3], 2)
    recipe = json.loads((run / "run.json").read_text())["recipe"]
    kind = "SliceNet of 3 experts, 2 for each token, with pre-norm"
    assert recipe.startswith(f"Encoder: {kind}; decoder: {kind} with scaled-dot attention, ")


def test_the_decoder_of_a_bytenet_reads_its_encoder_by_position(tmp_path):
    found = network(tmp_path, "--encoder bytenet --decoder bytenet --num-decoder-layers 6")
    dilations = [group.convolution.steps[1].dilation for group in found.decoder.groups]
    assert dilations == [1, 2, 4, 8, 16, 1]
    assert [group.unfolding.length_factor for group in found.decoder.groups] == [2, 0, 0, 0, 0, 0]
    assert found.source_embeddings.positions.kind == POSITION_KIND_UNSPECIFIED
    assert len(network(tmp_path, "--decoder slicenet").decoder.groups) == 4
    mixed = network(tmp_path, "--decoder bytenet")
    assert mixed.decoder.groups[0].unfolding.length_factor == 1
    assert mixed.source_embeddings.positions.kind != POSITION_KIND_UNSPECIFIED


@pytest.mark.parametrize(
    "options",
    [
        "--encoder bytenet --decoder bytenet",
        "--encoder slicenet",
        "--encoder xception --decoder xception --alignment additive --alignment-window 2",
        "--num-experts 2 --selected-experts 1",
        "--encoder bytenet --decoder lstm",
        "--encoder lstm --decoder bytenet --num-experts 2",
    ],
)
def test_every_parameter_of_a_chosen_network_learns(options, tmp_path):
    found = network(tmp_path, options + " --num-decoder-layers 2")
    torch.manual_seed(1)
    model = EncoderDecoder(found)
    loss = model.logits(model(SOURCE, TARGET)).square().sum()
    balance = balance_loss(model)
    assert (balance is not None) == ("experts" in options)
    (loss if balance is None else loss + balance).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    if "additive" in options:
        part = found.decoder.groups[-1].alignment_attention
        assert (part.function, part.window.half_width) == (ALIGNMENT_FUNCTION_ADDITIVE, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--decoder bytenet --alignment dot", "--alignment: is for a --decoder of lstm, gru"),
        ("--decoder slicenet --alignment none", "--alignment: none is for a recurrent decoder"),
        ("--encoder bytenet --d-model 33", "--d-model: must be even for bytenet, not 33"),
        ("--encoder lstm --decoder gru --num-experts 4", "--num-experts: is for an encoder or a"),
        ("--selected-experts 2", "--selected-experts: needs --num-experts"),
        ("--num-experts 2 --selected-experts 2", "--selected-experts: must be fewer than"),
    ],
)
def test_options_that_do_not_fit_each_other_are_refused(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(tmp_path, options)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["bytenet", "slicenet"])
def test_training_in_bfloat16_follows_that_in_fp32(kind, tmp_path):
    torch.manual_seed(1)
    options = f"--encoder {kind} --decoder {kind} --num-decoder-layers 2"
    model = EncoderDecoder(network(tmp_path, options))
    expected = model.logits(model(SOURCE, TARGET))
    with torch.autocast("cpu", torch.bfloat16):
        found = model.logits(model(SOURCE, TARGET))
    found.float().sum().backward()
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0.05)
