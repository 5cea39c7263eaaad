"""GRU, LSTM and alignment functions against the equations of their papers, in plain NumPy."""

import numpy as np
import pytest
import torch
from attendant.v1.architecture_pb2 import (
    ALIGNMENT_FUNCTION_ADDITIVE,
    ALIGNMENT_FUNCTION_DOT,
    ALIGNMENT_FUNCTION_GENERAL,
    ALIGNMENT_FUNCTION_SCALED_DOT,
    RECURRENT_CELL_GRU,
    RECURRENT_CELL_LSTM,
    AlignmentAttention,
    AlignmentWindow,
    Recurrent,
    Stack,
)
from attendant_export.models import alignment_attention, recurrent

from tests.support.parts import IS_REAL, LENGTHS, SHAPE, part_of, random_states

D = 6
BATCH, SOURCE = SHAPE
TARGET = 4
PAPERS = {
    ALIGNMENT_FUNCTION_DOT: "dot",
    ALIGNMENT_FUNCTION_SCALED_DOT: "scaled dot",
    ALIGNMENT_FUNCTION_GENERAL: "general",
    ALIGNMENT_FUNCTION_ADDITIVE: "additive",
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(x, h, w, u, b, d):
    """Equations of `RECURRENT_CELL_GRU`; gates are reset, update and new."""
    (w_r, w_z, w_n), (u_r, u_z, u_n) = np.split(w, 3), np.split(u, 3)
    (b_r, b_z, b_n), (d_r, d_z, d_n) = np.split(b, 3), np.split(d, 3)
    reset = sigmoid(w_r @ x + u_r @ h + b_r + d_r)
    update = sigmoid(w_z @ x + u_z @ h + b_z + d_z)
    new = np.tanh(w_n @ x + b_n + reset * (u_n @ h + d_n))
    return (1 - update) * new + update * h, None


def lstm(x, h, c, w, u, b, d):
    """Equations of `RECURRENT_CELL_LSTM`; gates are input, forget, new and output."""
    write, keep, new, show = np.split(w @ x + u @ h + b + d, 4)
    c = sigmoid(keep) * c + sigmoid(write) * np.tanh(new)
    return sigmoid(show) * np.tanh(c), c


def read(cell, x, weights):
    """The vectors (length, width) after each token of ``x`` (length, d_model)."""
    h = c = np.zeros(weights[1].shape[1])
    vectors = []
    for token in x:
        if cell == RECURRENT_CELL_LSTM:
            h, c = lstm(token, h, c, *weights)
        else:
            h, _ = gru(token, h, *weights)
        vectors.append(h)
    return np.array(vectors)


def weights_of(module, suffix=""):
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [getattr(module.cells, f"{n}_l0{suffix}").detach().double().numpy() for n in names]


@pytest.mark.parametrize("cell", [RECURRENT_CELL_GRU, RECURRENT_CELL_LSTM])
def test_a_bidirectional_recurrence_reads_each_text_from_both_ends(cell):
    module = part_of(recurrent.Recurrent, 1, Recurrent(cell=cell, is_bidirectional=True), D)
    x = random_states(1, *SHAPE, D)
    with torch.inference_mode():
        found = module.mix_texts(x, torch.from_numpy(IS_REAL)).numpy()
    for i, length in enumerate(LENGTHS):
        text = x[i, :length].double().numpy()
        forward = read(cell, text, weights_of(module))
        backward = read(cell, text[::-1], weights_of(module, "_reverse"))[::-1]
        expected = np.concatenate([forward, backward], axis=1)
        np.testing.assert_allclose(found[i, :length], expected, atol=1e-6)


@pytest.mark.parametrize("cell", [RECURRENT_CELL_GRU, RECURRENT_CELL_LSTM])
def test_a_decoder_begins_with_the_final_state_of_both_directions(cell):
    part = Recurrent(cell=cell, starts_from_source=True)
    module = part_of(recurrent.Recurrent, 2, part, D)
    encoder = Stack()
    encoder.groups.add(num_layers=1).recurrent.is_bidirectional = True
    x = random_states(2, *SHAPE, D)
    with torch.inference_mode():
        final = recurrent.final_state(encoder, x, torch.from_numpy(IS_REAL))
        state = module.first_state(final)
    half = D // 2
    ends = np.stack([np.r_[x[i, n - 1, :half], x[i, 0, half:]] for i, n in enumerate(LENGTHS)])
    start = module.start
    expected = np.tanh(ends @ start.weight.detach().numpy().T + start.bias.detach().numpy())
    found = state.numpy() if cell == RECURRENT_CELL_GRU else torch.cat(state, dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def softmax(scores):
    exponents = np.exp(scores - scores.max())
    return exponents / exponents.sum()


def score(function, h, e, weights):
    """Luong et al. (2015), section 3.1, and Bahdanau et al. (2014), appendix A.1.2."""
    if function == ALIGNMENT_FUNCTION_DOT:
        return h @ e
    if function == ALIGNMENT_FUNCTION_SCALED_DOT:
        return h @ e / np.sqrt(D)
    if function == ALIGNMENT_FUNCTION_GENERAL:
        return (weights["query.weight"] @ h) @ e
    hidden = np.tanh(weights["query.weight"] @ h + weights["key.weight"] @ e)
    return (weights["score.weight"] @ hidden)[0]


def aligned(part, weights, t, h, source):
    """The weights of one target token ``t`` with the state ``h``: Luong et al., 3.1 and 3.2."""
    length, places = len(source), np.arange(len(source))
    scores = np.array([score(part.function, h, e, weights) for e in source])
    if not part.HasField("window"):
        return softmax(scores)
    half, middle = part.window.half_width, min(t, length - 1)
    if part.window.is_predictive:
        hidden = np.tanh(weights["position.weight"] @ h)
        middle = length * sigmoid((weights["position_score.weight"] @ hidden)[0])
    scores[np.abs(places - middle) > half] = -np.inf
    found = softmax(scores)
    if part.window.is_predictive:
        found = found * np.exp(-((places - middle) ** 2) / (2 * (half / 2) ** 2))
    return found


@pytest.mark.parametrize(
    "window",
    [
        None,
        AlignmentWindow(half_width=1),
        AlignmentWindow(half_width=1, is_predictive=True),
        AlignmentWindow(half_width=3, is_predictive=True),
    ],
    ids=["global", "monotonic", "predictive", "wide predictive"],
)
@pytest.mark.parametrize("function", PAPERS, ids=PAPERS.values())
def test_alignment_functions_follow_their_papers(function, window):
    part = AlignmentAttention(function=function, window=window)
    module = part_of(alignment_attention.AlignmentAttention, 3, part, D)
    weights = {name: value.double().numpy() for name, value in module.state_dict().items()}
    states, encoded = random_states(3, BATCH, TARGET, D), random_states(4, *SHAPE, D)
    mask = torch.from_numpy(IS_REAL)[:, None, None, :]
    recorded: list[torch.Tensor] = []
    module.on_weights = recorded.append
    with torch.inference_mode():
        found = module.attend(states, module.project_memory(encoded), mask).numpy()
    for i, length in enumerate(LENGTHS):
        source = encoded[i, :length].double().numpy()
        for t in range(TARGET):
            h = states[i, t].double().numpy()
            expected = aligned(part, weights, t, h, source)
            observed = recorded[0][i, 0, t, :length].numpy()
            np.testing.assert_allclose(observed, expected / expected.sum(), atol=1e-5)
            both = np.concatenate([expected @ source, h])
            output = np.tanh(weights["output.weight"] @ both)
            np.testing.assert_allclose(found[i, t], output, atol=1e-5)
