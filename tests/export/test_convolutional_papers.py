"""Convolutions, unfolding and experts against the equations of their papers, in plain NumPy."""

import numpy as np
import pytest
import torch
from attendant.v1.architecture_pb2 import (
    ACTIVATION_RELU,
    NORM_POSITION_PRE,
    Convolution,
    FeedForward,
    MixtureOfExperts,
    Stack,
    Unfolding,
)
from attendant_export.models import mixture_of_experts, unfolding
from attendant_export.models.convolution import Convolution as ConvolutionModule
from attendant_export.models.convolutional_shapes import CONVOLUTIONS
from attendant_export.models.mixture_of_experts import BALANCE_WEIGHT

from tests.support.parts import IS_REAL, LENGTHS, SHAPE, part_of, random_states

D = 6
NORMS = Stack(norm_position=NORM_POSITION_PRE, norm_epsilon=1e-5)


def array(tensor):
    return tensor.detach().double().numpy()


def norm(module, x):
    if not list(module.parameters()):
        return x
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return scaled * array(module.weight) + array(module.bias)


def convolve(step, module, x, num_before):
    """y_t = sum over i of W_i x_(t - num_before + i dilation), with 0 outside of the text."""
    size, dilation = step.kernel_size, step.dilation or 1
    weight, bias = array(module.linear.weight), array(module.linear.bias)
    found = []
    for t in range(len(x)):
        places = [t - num_before + i * dilation for i in range(size)]
        tokens = [x[p] if 0 <= p < len(x) else np.zeros(x.shape[1]) for p in places]
        if step.is_separable:
            mixed = sum(w * token for w, token in zip(array(module.depthwise), tokens, strict=True))
        else:
            mixed = np.concatenate(tokens)
        found.append(weight @ mixed + bias)
    return np.array(found)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_blocks_are_chains_of_norm_activation_and_convolution(kind, is_causal):
    steps = CONVOLUTIONS[kind](1, D)
    part = Convolution(steps=steps, activation=ACTIVATION_RELU, is_causal=is_causal)
    module = part_of(ConvolutionModule, 1, part, NORMS, D)
    x = random_states(1, *SHAPE, D)
    with torch.inference_mode():
        found = module.mix_texts(x, torch.from_numpy(IS_REAL)).numpy()
    for i, length in enumerate(LENGTHS):
        y = array(x[i, :length])
        for step, weights, its_norm in zip(steps, module.steps, module.norms, strict=True):
            whole = (step.kernel_size - 1) * (step.dilation or 1)
            num_before = whole if is_causal else whole // 2
            y = convolve(step, weights, np.maximum(norm(its_norm, y), 0), num_before)
        np.testing.assert_allclose(found[i, :length], y, atol=1e-5)


def test_dilations_double_and_begin_again_after_five_layers():
    dilations = [CONVOLUTIONS["bytenet"](number, D)[1].dilation for number in range(7)]
    assert dilations == [1, 2, 4, 8, 16, 1, 2]


def test_an_unfolding_reads_the_output_at_its_own_position_and_then_0():
    module = part_of(unfolding.Unfolding, 2, Unfolding(length_factor=1), D)
    outputs, x = random_states(3, 1, 3, D), random_states(4, 1, 4, D)
    mask = torch.tensor([True, True, False])[None, None, None]
    with torch.inference_mode():
        found = module.attend(x, module.project_memory(outputs), mask, first_position=1)
    read = np.zeros((4, D))
    read[0] = outputs[0, 1]
    both = np.concatenate([read, array(x[0])], axis=1)
    expected = both @ array(module.output.weight).T + array(module.output.bias)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.fixture
def experts():
    expert = FeedForward(d_feed_forward=5, activation=ACTIVATION_RELU, has_bias=True)
    part = MixtureOfExperts(num_experts=4, num_selected=2, expert=expert)
    module = part_of(mixture_of_experts.MixtureOfExperts, 5, part, D)
    torch.nn.init.normal_(module.gate.weight)
    return module


def test_each_token_takes_the_experts_with_the_largest_values(experts):
    x = random_states(6, *SHAPE, D)
    with torch.inference_mode():
        found = experts(x).numpy()
        outputs = [array(expert(x)) for expert in experts.experts]
    assert experts.balance_loss is None
    for place in np.ndindex(*SHAPE):
        values = array(experts.gate.weight) @ array(x[place])
        chosen = np.argsort(-values)[:2]
        gates = np.exp(values[chosen]) / np.exp(values[chosen]).sum()
        expected = sum(g * outputs[e][place] for g, e in zip(gates, chosen, strict=True))
        np.testing.assert_allclose(found[place], expected, atol=1e-5)


def test_training_is_penalized_for_experts_that_are_used_unequally(experts):
    """Appendix A: the squared coefficients of variation of importance and load."""
    x = random_states(7, 1, 500, D)
    experts.train()
    experts(x)
    before = experts.balance_loss
    before.backward()
    assert experts.gate.weight.grad.abs().sum() > 0
    assert experts.noise.weight.grad.abs().sum() > 0
    with torch.no_grad():  # All tokens prefer the same two experts.
        experts.gate.weight.zero_()
        experts.gate.weight[:2, 0] = 1000.0
        x[..., 0] = x[..., 0].abs() + 1
        experts(x)
    # Half of the experts have everything: both coefficients are 1.
    assert experts.balance_loss.item() == pytest.approx(2 * BALANCE_WEIGHT, rel=0.1)
    assert before < experts.balance_loss
