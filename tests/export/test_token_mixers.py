"""Random attentions and SSRUs give the same values in PyTorch and in graphs."""

import numpy as np
import pytest
import torch
from attendant.v1.architecture_pb2 import Attention, HeadNorm, LayerGroup, Stack
from attendant_export.graphs import attention as graph_attention
from attendant_export.graphs import ssru as graph_ssru
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.text_positions import TextPositions
from attendant_export.models.attention import MultiHeadAttention, projection_widths
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.relative_positions import RelativePositions, relative_positions
from attendant_export.models.shapes import transformer
from attendant_export.models.ssru import Ssru
from hypothesis import given
from hypothesis import strategies as st

from tests.support import architectures as some
from tests.support.graphs import unsettle
from tests.support.parts import (
    IS_REAL,
    LENGTHS,
    SEEDS,
    SHAPE,
    WIDTHS,
    Parameters,
    assert_close,
    named,
    part_of,
    random_states,
    run_graph,
)


@some.random_parts
@given(WIDTHS, some.encoder_attentions(), SEEDS)
def test_attention_of_whole_texts(d_model, part, seed):
    module = part_of(MultiHeadAttention, seed, part, d_model)
    x = random_states(seed, *SHAPE, d_model)

    def build(g: Layers) -> None:
        fused = g.linear(g.input("x", np.float32, "rows", d_model), "a.query_key_value")
        fused = graph_attention.norm_queries_and_keys(g, part, "a", fused)
        lengths = g.input("lengths", np.int64, 3)
        batch = g.integers(*SHAPE)
        positions = TextPositions(g, batch)
        projected = g.split_into(fused, projection_widths(part), axis=1)
        weighted = graph_attention.attend_sequence(
            g, part, projected, batch, lengths, positions=positions
        )
        g.output("found", g.linear(weighted, "a.output"), np.float32, "rows", d_model)

    with torch.inference_mode():
        expected, _ = module(x, torch.from_numpy(IS_REAL)[:, None, None, :])
    rows = x.flatten(0, 1).numpy()
    found = run_graph(build, named(module, "a"), x=rows, lengths=LENGTHS)["found"]
    assert_close(found.reshape(*SHAPE, d_model)[IS_REAL], expected[torch.from_numpy(IS_REAL)])


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("window", [1, 2, 5, 7, 8, 22, 40])
def test_local_attention_of_texts_of_one_and_of_several_blocks(window, is_causal):
    part = Attention(num_heads=2, head_dim=4, window=window, is_causal=is_causal)
    part.rotary_positions.theta = 100.0
    module, shape = part_of(MultiHeadAttention, 1, part, 8), (4, 23)
    lengths = np.array([23, 1, 22, 8])
    is_real = np.arange(23) < lengths[:, None]
    x = random_states(1, *shape, 8)

    def build(g: Layers) -> None:
        fused = g.linear(g.input("x", np.float32, "rows", 8), "a.query_key_value")
        batch = g.input("batch", np.int64, 2)
        inputs = (g.input("lengths", np.int64, 4), "", TextPositions(g, batch))
        projected = g.split_into(fused, projection_widths(part), axis=1)
        weighted = graph_attention.attend_sequence(g, part, projected, batch, *inputs)
        g.output("found", g.linear(weighted, "a.output"), np.float32, "rows", 8)

    with torch.inference_mode():
        expected, _ = module(x, torch.from_numpy(is_real)[:, None, None, :])
    rows, batch = x.flatten(0, 1).numpy(), np.array(shape)
    found = run_graph(build, named(module, "a"), x=rows, lengths=lengths, batch=batch)["found"]
    assert_close(found.reshape(*shape, 8)[is_real], expected[torch.from_numpy(is_real)])


@some.random_parts
@given(WIDTHS, some.encoder_attentions(is_local=False), some.relative_positions(), SEEDS)
def test_attention_with_relative_positions(d_model, part, relative, seed):
    stack = Stack(groups=[LayerGroup(self_attention=part)], relative_positions=relative)
    module = part_of(MultiHeadAttention, seed, part, d_model)
    positions = part_of(RelativePositions, seed, stack)
    x = random_states(seed, *SHAPE, d_model)

    def build(g: Layers) -> None:
        fused = g.linear(g.input("x", np.float32, "rows", d_model), "a.query_key_value")
        fused = graph_attention.norm_queries_and_keys(g, part, "a", fused)
        lengths, batch = g.input("lengths", np.int64, 3), g.integers(*SHAPE)
        bias = graph_attention.relative_bias(g, stack, "r", batch)
        positions = TextPositions(g, batch)
        projected = g.split_into(fused, projection_widths(part), axis=1)
        inputs = (projected, batch, lengths, bias, positions)
        weighted = graph_attention.attend_sequence(g, part, *inputs)
        g.output("found", g.linear(weighted, "a.output"), np.float32, "rows", d_model)

    mask = torch.from_numpy(IS_REAL)[:, None, None, :]
    with torch.inference_mode():
        expected, _ = module(x, mask, bias=positions.bias(SHAPE[1]))
    rows = x.flatten(0, 1).numpy()
    parameters = named(module, "a") | named(positions, "r")
    found = run_graph(build, parameters, x=rows, lengths=LENGTHS)["found"]
    assert_close(found.reshape(*SHAPE, d_model)[IS_REAL], expected[torch.from_numpy(IS_REAL)])


@some.random_parts
@given(
    WIDTHS,
    some.attentions(is_causal=True, is_cached=True),
    st.none() | some.relative_positions(),
    SEEDS,
)
def test_attention_to_a_cached_past(d_model, part, relative, seed):
    stack = Stack(groups=[LayerGroup(self_attention=part)], relative_positions=relative)
    module, positions = part_of(MultiHeadAttention, seed, part, d_model), relative_positions(stack)
    bias = None if positions is None else unsettle(positions).bias(SHAPE[1])
    x = random_states(seed, *SHAPE, d_model)
    cache = ("rows", part.num_heads, 5, part.head_dim)

    def build(g: Layers) -> None:
        fused = g.linear(g.input("x", np.float32, "rows", d_model), "a.query_key_value")
        keys, values = (g.input(name, np.float32, *cache) for name in ("keys", "values"))
        lengths, total = g.input("lengths", np.int32, "rows"), g.input("total", np.int32, 1)
        bias = graph_attention.relative_bias_of_past(g, stack, "r", lengths, total)
        weighted, presents = graph_attention.attend_past(
            g, part, (fused, "", ""), (keys, values), lengths, total, bias
        )
        g.output("found", g.linear(weighted, "a.output"), np.float32, "rows", d_model)
        for name, present in zip(("new_keys", "new_values"), presents, strict=True):
            g.output(name, present, np.float32, *cache)

    with torch.inference_mode():
        expected, _ = module(x, bias=bias)
    parameters = named(module, "a") | ({} if positions is None else named(positions, "r"))
    keys = values = np.zeros((3, *cache[1:]), np.float32)
    for i in range(5):
        found = run_graph(
            build,
            parameters,
            x=x[:, i].numpy(),
            keys=keys,
            values=values,
            lengths=np.full(3, i, np.int32),
            total=np.array([i + 1], np.int32),
        )
        keys, values = found["new_keys"], found["new_values"]
        assert_close(found["found"], expected[:, i])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_key_value_heads": 3}, "Attention.num_key_value_heads: 3 does not divide 4 heads"),
        ({"query_key_norm": HeadNorm()}, "HeadNorm.epsilon: 0.0 is not positive"),
    ],
)
def test_an_attention_names_the_field_that_it_does_not_support(fields, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(Attention(num_heads=4, head_dim=8, **fields), 8)


@pytest.mark.parametrize("name", ["self_attention", "cross_attention"])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_key_value_heads": 1}, "num_key_value_heads: 1 is not supported in a decoder"),
        ({"query_key_norm": HeadNorm(epsilon=1)}, "query_key_norm: is not supported in a decoder"),
    ],
)
def test_a_decoder_has_neither_grouped_heads_nor_their_norms(name, fields, message):
    network = transformer(20, d_model=16, num_heads=2)
    getattr(network.decoder.groups[0], name).MergeFrom(Attention(**fields))
    with pytest.raises(ValueError, match=message):
        EncoderDecoder(network)


@some.random_parts
@given(WIDTHS, SEEDS)
def test_an_ssru_of_whole_texts_and_of_one_token_at_a_time(d_model, seed):
    module = part_of(Ssru, seed, d_model)
    x = 3 * random_states(seed, *SHAPE, d_model)
    weights = torch.cat([module.forget.weight, module.candidate.weight])
    bias = torch.cat([module.forget.bias, torch.zeros(d_model)])
    parameters: Parameters = {
        "s.gates.weight": weights.detach().numpy(),
        "s.gates.bias": bias.detach().numpy(),
    }

    def build_whole(g: Layers) -> None:
        gates = g.linear(g.input("x", np.float32, "rows", d_model), "s.gates")
        states = graph_ssru.states_of_sequence(g, gates, g.integers(*SHAPE), d_model)
        g.output("found", graph_ssru.output(g, states), np.float32, "rows", d_model)

    def build_step(g: Layers) -> None:
        gates = g.linear(g.input("x", np.float32, "rows", d_model), "s.gates")
        state = graph_ssru.next_state(g, gates, g.input("state", np.float32, "rows", d_model))
        g.output("next", state, np.float32, "rows", d_model)
        g.output("found", graph_ssru.output(g, state), np.float32, "rows", d_model)

    with torch.inference_mode():
        expected, last = module(x)
        first, state = module(x[:, :2])
        rest, _ = module(x[:, 2:], state)
    assert_close(torch.cat([first, rest], dim=1).numpy(), expected)
    whole = run_graph(build_whole, parameters, x=x.flatten(0, 1).numpy())["found"]
    assert_close(whole, expected.flatten(0, 1))
    state = np.zeros((3, d_model), np.float32)
    for i in range(SHAPE[1]):
        found = run_graph(build_step, parameters, x=x[:, i].numpy(), state=state)
        state = found["next"]
        assert_close(found["found"], expected[:, i])
    assert_close(state, last)


@some.random_parts
@given(WIDTHS, some.attentions(), SEEDS)
def test_attention_to_the_encoder(d_model, part, seed):
    module = part_of(MultiHeadAttention, seed, part, d_model)
    x, encoded = random_states(seed, 3, 2, d_model), random_states(seed + 1, *SHAPE, d_model)
    inner = part.num_heads * part.head_dim
    parameters = {name: value[:inner] for name, value in named(module, "q").items()}
    parameters |= named(module, "a")

    def build(g: Layers) -> None:
        query = g.linear(g.input("x", np.float32, "rows", d_model), "q.query_key_value")
        keys, values = (
            g.input(name, np.float32, 3, part.num_heads, 5, part.head_dim)
            for name in ("keys", "values")
        )
        lengths = g.input("lengths", np.int64, 3)
        weighted = graph_attention.attend_memory(g, part, query, keys, values, lengths)
        g.output("found", g.linear(weighted, "a.output"), np.float32, "rows", d_model)

    with torch.inference_mode():
        keys, values = module.project_memory(encoded)
        mask = torch.from_numpy(IS_REAL)[:, None, None, :]
        expected = module.attend(x, (keys, values), mask)
    found = run_graph(
        build,
        parameters,
        x=x.flatten(0, 1).numpy(),
        keys=keys.contiguous().numpy(),
        values=values.contiguous().numpy(),
        lengths=LENGTHS,
    )
    assert_close(found["found"], expected.flatten(0, 1))
