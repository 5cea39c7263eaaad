"""Manifests of models of late interaction are checked."""

from pathlib import Path

from attendant_manifest import parse_manifest
from attendant_manifest.rules import problems

BERT = Path(__file__).parents[2] / "tests/recorded/bundles/tiny-bert/1/manifest.json"


def test_vectors_of_tokens_need_layers_and_their_output():
    manifest = parse_manifest(BERT.read_text(encoding="utf-8"))
    part = manifest.architecture.token_vectors
    part.SetInParent()
    assert "architecture.token_vectors.dense_layers must have one or more" in problems(manifest)
    part.dense_layers.add(d_output=0)
    assert list(problems(manifest)) == [
        "architecture.token_vectors: d_output must be between 1 and 1048576",
        "the fp32 precision: the embedder's outputs differ from the expected ones: token_vectors",
    ]
    part.dense_layers[0].d_output = 12
    manifest.precisions[0].embedder.outputs.append("token_vectors")
    assert not list(problems(manifest))
