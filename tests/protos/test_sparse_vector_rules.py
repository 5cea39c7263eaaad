"""Manifests of models with sparse vectors are checked."""

from pathlib import Path

from attendant_manifest import parse_manifest
from attendant_manifest.rules import problems
from attendant_manifest.sizes import embedding_sizes

BERT = Path(__file__).parents[2] / "tests/recorded/bundles/tiny-bert/1/manifest.json"


def test_sparse_vectors_need_a_head_and_its_graph():
    manifest = parse_manifest(BERT.read_text(encoding="utf-8"))
    network, graphs = manifest.architecture, manifest.precisions[0]
    manifest.embedding.max_active_dims = 7
    assert list(problems(manifest)) == [
        "embedding.max_active_dims is set without architecture.sparse_vectors"
    ]
    assert not embedding_sizes(network).HasField("sparse_dimension")
    network.sparse_vectors.num_logarithms = 1
    assert list(problems(manifest)) == ["the fp32 precision has no graph sparse_head"]
    graphs.sparse_head.CopyFrom(graphs.mlm_head)
    assert not list(problems(manifest))
    assert embedding_sizes(network).sparse_dimension == network.source_embeddings.vocab_size
    network.ClearField("head")
    assert list(problems(manifest)) == [
        "architecture.head is missing, but there are sparse_vectors"
    ]
