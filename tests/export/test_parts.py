"""Each part of a random network gives the same values in PyTorch and in a graph."""

from functools import partial

import numpy as np
import torch
from attendant.v1.architecture_pb2 import Architecture, LayerGroup, Stack
from attendant.v1.architecture_pb2 import Embeddings as EmbeddingsPart
from attendant_export.graphs import attention as graph_attention
from attendant_export.graphs import embeddings as graph_embeddings
from attendant_export.graphs import head as graph_head
from attendant_export.graphs import stack as graph_stack
from attendant_export.graphs import text_vectors as graph_text_vectors
from attendant_export.graphs.feed_forward import feed_forward
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.packing import Packing
from attendant_export.graphs.parameters import graph_parameters
from attendant_export.models.embeddings import SOURCE, Embeddings, embedding_width
from attendant_export.models.feed_forward import FeedForward
from attendant_export.models.head import Head
from attendant_export.models.norm import final_norm
from attendant_export.models.relative_positions import relative_positions
from attendant_export.models.stack import Stack as StackModule
from attendant_export.models.text_vectors import DenseLayers, pool, poolings_of
from attendant_manifest.sizes import text_dimension
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.support import architectures as some
from tests.support.graphs import MAX_LENGTH, unsettle
from tests.support.parts import (
    IS_REAL,
    LENGTHS,
    SEEDS,
    SHAPE,
    WIDTHS,
    assert_close,
    named,
    part_of,
    random_states,
    run_graph,
)


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
@given(WIDTHS, some.feed_forwards(), SEEDS)
def test_feed_forward(d_model, part, seed):
    module = part_of(FeedForward, seed, part, d_model)
    x = random_states(seed, 7, d_model)

    def build(g: Layers) -> None:
        inputs = g.input("x", np.float32, "rows", d_model)
        found = feed_forward(g, part, "f", inputs)
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
        arguments = (g, part, "h", inputs, "table", epsilon)
        if has_list:
            chosen = g.constant(listed)
            found = graph_head.listed_scores(*arguments, chosen)
            bias = graph_head.listed_bias(g, part, "h", chosen)
            found = g.op("Add", found, bias) if bias else found
        else:
            found = graph_head.vocabulary_scores(*arguments)
        g.output("found", found, np.float32, "rows", len(listed))

    parameters = named(module, "h") | {"table": table.numpy()}
    found = run_graph(build, parameters, x=x.numpy())["found"]
    assert_close(found, module(x, table)[:, listed])


@some.random_parts
@given(WIDTHS, some.text_vectors(), st.integers(0, 6), st.booleans(), SEEDS)
def test_text_vectors(d_model, part, num_prompt_tokens, has_layers, seed):
    module = part_of(DenseLayers, seed, part, d_model)
    groups = [LayerGroup()] * has_layers
    network = Architecture(d_model=d_model, text_vectors=part, encoder=Stack(groups=groups))
    hidden, skipped = random_states(seed, *SHAPE, d_model), np.full(3, num_prompt_tokens)
    poolings = poolings_of(network)
    token_ids = np.random.default_rng(seed).integers(0, 4, SHAPE)
    is_excluded = None
    if part.HasField("excluded_token_id"):
        is_excluded = torch.from_numpy(token_ids == part.excluded_token_id)

    def build(g: Layers) -> None:
        x = g.input("x", np.float32, *SHAPE, d_model)
        lengths = g.input("lengths", np.int64, 3)
        tokens = g.input("token_ids", np.int64, *SHAPE)
        shape = g.integers(*SHAPE)
        found = graph_text_vectors.text_vectors(g, network, tokens, x, shape, lengths)
        for name, value in found.items():
            g.output(name, g.op("Identity", value), np.float32, 3, text_dimension(network))

    inputs = {"num_prompt_tokens": skipped} if part.excludes_prompt else {}
    parameters = named(module, "dense")
    inputs |= {"token_ids": token_ids, "x": hidden.numpy(), "lengths": LENGTHS}
    found = run_graph(build, parameters, **inputs)
    mask, first = torch.from_numpy(IS_REAL), num_prompt_tokens if part.excludes_prompt else 0
    assert set(found) == set(poolings)
    for name in poolings:
        assert_close(found[name], module(pool(hidden, mask, name, first, is_excluded)))
