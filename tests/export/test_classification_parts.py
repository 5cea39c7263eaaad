"""The head of a random classifier gives the same values in PyTorch and in a graph."""

import numpy as np
import pytest
import torch
from attendant.v1.architecture_pb2 import Architecture, ClassificationHead, Dense, Stack
from attendant.v1.embedding_pb2 import POOLING_CLS, POOLING_MAX, POOLING_MEAN
from attendant_export.graphs.classification import label_scores
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.text_vectors import text_vectors
from attendant_export.models.classification import (
    ClassificationHead as HeadModule,
)
from attendant_export.models.classification import check_classification
from hypothesis import given
from hypothesis import strategies as st

from tests.support import architectures as some
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

HEADS = st.builds(
    ClassificationHead,
    num_labels=st.integers(1, 5),
    pooling=st.sampled_from([POOLING_CLS, POOLING_MEAN]),
    transform=some.DENSE_LAYERS,
    has_norm=st.booleans(),
)


@some.random_parts
@given(HEADS, WIDTHS, some.norm_kinds, SEEDS, st.sampled_from([np.float32, np.float16]))
def test_classification_heads(part, d_model, norm_kind, seed, dtype):
    network = Architecture(
        d_model=d_model,
        encoder=Stack(norm_epsilon=1e-5, norm_kind=norm_kind),
        classification_head=part,
    )
    module = part_of(HeadModule, seed, part, network)
    hidden = random_states(seed, *SHAPE, d_model)

    def build(g: Layers) -> None:
        x = g.input("x", np.float32, *SHAPE, d_model)
        lengths = g.input("lengths", np.int64, 3)
        vectors = text_vectors(g, network, "", x, g.integers(*SHAPE), lengths)
        g.dtype = dtype  # heads compute in fp32 in every precision
        scores = label_scores(g, network, vectors)
        g.output("scores", g.op("Identity", scores), np.float32, 3, part.num_labels)

    found = run_graph(build, named(module, "classifier"), x=hidden.numpy(), lengths=LENGTHS)
    assert_close(found["scores"], module(hidden, torch.from_numpy(IS_REAL)))


def test_a_pooling_that_heads_do_not_have_is_named():
    part = ClassificationHead(num_labels=2, pooling=POOLING_MAX, transform=Dense(d_output=4))
    with pytest.raises(ValueError, match=r"ClassificationHead\.pooling"):
        HeadModule(part, Architecture(d_model=4))


def test_a_head_does_not_go_with_dense_layers_of_vectors():
    network = Architecture(classification_head=ClassificationHead(num_labels=2))
    network.text_vectors.dense_layers.add(d_output=3)
    with pytest.raises(ValueError, match="does not go with dense layers"):
        check_classification(network)
