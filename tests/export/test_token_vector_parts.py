"""Random dense layers of tokens give the same vectors in PyTorch and in a graph."""

import numpy as np
import pytest
from attendant.v1.architecture_pb2 import Architecture, TokenVectors
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.token_vectors import token_vectors
from attendant_export.models import token_vectors as module
from hypothesis import given
from hypothesis import strategies as st

from tests.support import architectures as some
from tests.support.parts import (
    SEEDS,
    SHAPE,
    WIDTHS,
    assert_close,
    named,
    part_of,
    random_states,
    run_graph,
)

PARTS = st.builds(TokenVectors, dense_layers=st.lists(some.DENSE_LAYERS, min_size=1, max_size=2))


@some.random_parts
@given(PARTS, WIDTHS, SEEDS, st.sampled_from([np.float32, np.float16]))
def test_vectors_of_tokens(part, d_model, seed, dtype):
    network = Architecture(d_model=d_model, token_vectors=part)
    dense = part_of(module.token_dense, seed, network)
    hidden = random_states(seed, *SHAPE, d_model)
    width = part.dense_layers[-1].d_output

    def build(g: Layers) -> None:
        x = g.input("x", np.float32, *SHAPE, d_model)
        g.dtype = dtype  # the vectors compute in fp32 in every precision
        found = token_vectors(g, network, x, g.integers(*SHAPE))
        g.output("vectors", g.op("Identity", found), np.float32, *SHAPE, width)

    found = run_graph(build, named(dense, "token_dense"), x=hidden.numpy())
    assert_close(found["vectors"], module.token_vectors(dense, hidden))


def test_a_part_without_layers_is_named():
    network = Architecture(d_model=4, token_vectors=TokenVectors())
    with pytest.raises(ValueError, match=r"TokenVectors\.dense_layers: at least one is needed"):
        module.token_dense(network)
