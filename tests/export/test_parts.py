"""Each part of a random network gives the same values in PyTorch and in a graph."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from attendant.v1.architecture_pb2 import Architecture, LayerGroup, Stack
from attendant.v1.architecture_pb2 import Embeddings as EmbeddingsPart
from attendant_export.graphs import attention as graph_attention
from attendant_export.graphs import embeddings as graph_embeddings
from attendant_export.graphs import head as graph_head
from attendant_export.graphs import ssru as graph_ssru
from attendant_export.graphs import stack as graph_stack
from attendant_export.graphs import text_vectors as graph_text_vectors
from attendant_export.graphs.builder import WeightFile
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.packing import Packing
from attendant_export.graphs.parameters import graph_parameters
from attendant_export.graphs.text_positions import TextPositions
from attendant_export.models.attention import MultiHeadAttention
from attendant_export.models.embeddings import SOURCE, Embeddings, embedding_width
from attendant_export.models.feed_forward import FeedForward
from attendant_export.models.head import Head
from attendant_export.models.norm import final_norm
from attendant_export.models.relative_positions import RelativePositions, relative_positions
from attendant_export.models.ssru import Ssru
from attendant_export.models.stack import Stack as StackModule
from attendant_export.models.text_vectors import DenseLayers, pool, poolings_of
from attendant_manifest.sizes import text_dimension
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.support import architectures as some
from tests.support.graphs import MAX_LENGTH, open_session, run, unsettle

LENGTHS = np.array([5, 1, 3])
SHAPE = (3, 5)
IS_REAL = np.arange(5) < LENGTHS[:, None]
SEEDS = st.integers(0, 2**16)
WIDTHS = st.sampled_from(some.WIDTHS)

Parameters = dict[str, np.ndarray]


def part_of(kind, seed: int, *arguments):
    """A part with random parameters."""
    torch.manual_seed(seed)
    return unsettle(kind(*arguments))


def run_graph(build: Callable[[Layers], None], parameters: Parameters, **inputs: np.ndarray):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with WeightFile(folder / "weights.bin") as weights:
            g = Layers("part", weights, parameters, np.float32)
            build(g)
            graph = g.write(folder / "part.onnx")
        return run(open_session(folder, graph), **inputs)


def named(module: nn.Module, prefix: str) -> Parameters:
    return {f"{prefix}.{name}": value.numpy() for name, value in module.state_dict().items()}


def random_states(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def assert_close(found: np.ndarray, expected: torch.Tensor) -> None:
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=2e-5, rtol=2e-5)


@some.random_parts
@given(st.data(), WIDTHS, some.EPSILONS, SEEDS)
def test_embeddings(data, d_model, epsilon, seed):
    part = data.draw(some.embeddings(d_model, is_alone=True))
    torch.manual_seed(seed)
    stack = Stack(norm_epsilon=epsilon, norm_kind=data.draw(some.norm_kinds))
    embed, model = Embeddings(part, d_model, stack, nn.Dropout(0)), nn.Module()
    embed.add_to(model, SOURCE)
    unsettle(model)
    network = Architecture(d_model=d_model, source_embeddings=part, encoder=stack)
    token_ids = np.random.default_rng(seed).integers(0, part.vocab_size, SHAPE)
    width = embedding_width(part, d_model)

    def build(g: Layers) -> None:
        twin = graph_embeddings.source_embeddings(network)
        tokens = g.flat(g.input("token_ids", np.int64, *SHAPE))
        batch = g.integers(*SHAPE)
        packing = Packing(g, batch, g.input("lengths", np.int64, 3))
        places = g.constant(np.tile(np.arange(5), 3))
        found = {
            "packed": twin.run(g, packing.pack(tokens), packing.add_positions),
            "whole": twin.run(
                g,
                tokens,
                lambda x, table: graph_embeddings.add_first_positions(g, x, batch, table, width),
            ),
            "indexed": twin.run(
                g,
                tokens,
                lambda x, table: g.op("Add", x, g.op("Gather", g.parameter(table), places)),
            ),
        }
        for name, value in found.items():
            g.output(name, g.op("Identity", value), np.float32, name, d_model)

    with torch.inference_mode():
        expected = embed(torch.from_numpy(token_ids))
    parameters = graph_parameters(model, network, MAX_LENGTH)
    found = run_graph(build, parameters, token_ids=token_ids, lengths=LENGTHS)
    assert_close(found["packed"], expected[torch.from_numpy(IS_REAL)])
    assert_close(found["whole"], expected.flatten(0, 1))
    assert_close(found["indexed"], expected.flatten(0, 1))


@some.random_parts
@given(WIDTHS, some.encoder_attentions(), SEEDS)
def test_attention_of_whole_texts(d_model, part, seed):
    module = part_of(MultiHeadAttention, seed, part, d_model)
    x = random_states(seed, *SHAPE, d_model)

    def build(g: Layers) -> None:
        fused = g.linear(g.input("x", np.float32, "rows", d_model), "a.query_key_value")
        lengths = g.input("lengths", np.int64, 3)
        batch = g.integers(*SHAPE)
        positions = TextPositions(g, batch)
        weighted = graph_attention.attend_sequence(
            g, part, fused, batch, lengths, positions=positions
        )
        g.output("found", g.linear(weighted, "a.output"), np.float32, "rows", d_model)

    with torch.inference_mode():
        expected, _ = module(x, torch.from_numpy(IS_REAL)[:, None, None, :])
    rows = x.flatten(0, 1).numpy()
    found = run_graph(build, named(module, "a"), x=rows, lengths=LENGTHS)["found"]
    assert_close(found.reshape(*SHAPE, d_model)[IS_REAL], expected[torch.from_numpy(IS_REAL)])


@some.random_parts
@given(WIDTHS, some.encoder_attentions(), some.relative_positions(), SEEDS)
def test_attention_with_relative_positions(d_model, part, relative, seed):
    stack = Stack(groups=[LayerGroup(self_attention=part)], relative_positions=relative)
    module = part_of(MultiHeadAttention, seed, part, d_model)
    positions = part_of(RelativePositions, seed, stack)
    x = random_states(seed, *SHAPE, d_model)

    def build(g: Layers) -> None:
        fused = g.linear(g.input("x", np.float32, "rows", d_model), "a.query_key_value")
        lengths, batch = g.input("lengths", np.int64, 3), g.integers(*SHAPE)
        bias = graph_attention.relative_bias(g, stack, "r", batch)
        positions = TextPositions(g, batch)
        weighted = graph_attention.attend_sequence(g, part, fused, batch, lengths, bias, positions)
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


@some.random_parts
@given(WIDTHS, some.feed_forwards(), SEEDS)
def test_feed_forward(d_model, part, seed):
    module = part_of(FeedForward, seed, part, d_model)
    x = random_states(seed, 7, d_model)

    def build(g: Layers) -> None:
        inputs = g.input("x", np.float32, "rows", d_model)
        found = graph_stack.feed_forward(g, part, "f", inputs)
        g.output("found", found, np.float32, "rows", d_model)

    found = run_graph(build, named(module, "f"), x=x.numpy())["found"]
    assert_close(found, module(x))


@some.random_parts
@given(WIDTHS, some.stacks(), SEEDS)
def test_stack(d_model, part, seed):
    torch.manual_seed(seed)
    model = nn.Module()
    model.encoder, model.encoder_norm = StackModule(part, d_model, 0.0), final_norm(part, d_model)
    relative = relative_positions(part)
    model.add_module("relative_positions", relative)
    unsettle(model)
    bias = None if relative is None else relative.bias(SHAPE[1])
    x = random_states(seed, *SHAPE, d_model)

    def build(g: Layers) -> None:
        rows = g.input("x", np.float32, "rows", d_model)
        batch = g.integers(*SHAPE)
        packing = Packing(g, batch, g.input("lengths", np.int64, 3))
        bias = graph_attention.relative_bias(g, part, "relative_positions", batch)
        attend = partial(packing.attend, bias=bias)
        *_, last = graph_stack.run_stack(g, part, "encoder", packing.pack(rows), attend)
        last = graph_stack.final_norm(g, part, "encoder", last)
        g.output("found", g.op("Identity", last), np.float32, "packed", d_model)

    expected = x
    with torch.inference_mode():
        for layer in model.encoder.layers:
            expected, _ = layer(expected, torch.from_numpy(IS_REAL)[:, None, None, :], bias=bias)
        expected = model.encoder_norm(expected)
    parameters = {name: value.numpy() for name, value in model.state_dict().items()}
    found = run_graph(build, parameters, x=x.flatten(0, 1).numpy(), lengths=LENGTHS)["found"]
    assert_close(found, expected[torch.from_numpy(IS_REAL)])


@some.random_parts
@given(st.data(), WIDTHS, some.EPSILONS, st.booleans(), SEEDS)
def test_head(data, d_model, epsilon, has_list, seed):
    width = data.draw(WIDTHS)
    part = data.draw(some.heads(needs_transform=width != d_model))
    embeddings = EmbeddingsPart(vocab_size=21, d_embedding=width)
    stack = Stack(norm_epsilon=epsilon, norm_kind=data.draw(some.norm_kinds))
    module = part_of(Head, seed, part, d_model, embeddings, stack)
    x, table = random_states(seed, 7, d_model), random_states(seed + 1, 21, width)
    listed = np.array([3, 4, 20]) if has_list else np.arange(21)

    def build(g: Layers) -> None:
        inputs = g.input("x", np.float32, "rows", d_model)
        chosen = g.constant(listed) if has_list else ""
        found = graph_head.vocabulary_scores(g, part, "h", inputs, "table", epsilon, chosen)
        g.output("found", found, np.float32, "rows", len(listed))

    parameters = named(module, "h") | {"table": table.numpy()}
    found = run_graph(build, parameters, x=x.numpy())["found"]
    assert_close(found, module(x, table)[:, listed])


@some.random_parts
@given(WIDTHS, some.text_vectors(), st.integers(0, 6), SEEDS)
def test_text_vectors(d_model, part, num_prompt_tokens, seed):
    module = part_of(DenseLayers, seed, part, d_model)
    network = Architecture(d_model=d_model, text_vectors=part)
    hidden, skipped = random_states(seed, *SHAPE, d_model), np.full(3, num_prompt_tokens)
    poolings = poolings_of(network)

    def build(g: Layers) -> None:
        x = g.input("x", np.float32, *SHAPE, d_model)
        lengths = g.input("lengths", np.int64, 3)
        found = graph_text_vectors.text_vectors(g, network, x, g.integers(*SHAPE), lengths)
        for name, value in found.items():
            g.output(name, g.op("Identity", value), np.float32, 3, text_dimension(network))

    inputs = {"num_prompt_tokens": skipped} if part.excludes_prompt else {}
    parameters = named(module, "dense")
    found = run_graph(build, parameters, x=hidden.numpy(), lengths=LENGTHS, **inputs)
    mask, first = torch.from_numpy(IS_REAL), num_prompt_tokens if part.excludes_prompt else 0
    assert set(found) == set(poolings)
    for name in poolings:
        assert_close(found[name], module(pool(hidden, mask, name, first)))
