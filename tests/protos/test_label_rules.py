"""Rules for the labels of a classification head."""

from pathlib import Path

from attendant.v1.embedding_pb2 import SCORE_FUNCTION_SOFTMAX
from attendant_manifest import parse_manifest
from attendant_manifest.rules import problems

BERT = Path(__file__).parents[2] / "tests/recorded/bundles/tiny-bert/1/manifest.json"


def test_labels_need_a_head_with_as_many_scores_and_a_known_function():
    manifest = parse_manifest(BERT.read_text(encoding="utf-8"))
    manifest.architecture.classification_head.num_labels = 2
    need = "classification and architecture.classification_head need each other"
    assert list(problems(manifest)) == [need]
    manifest.classification.labels.extend(["no", "no", "yes"])
    manifest.precisions[0].embedder.outputs.append("label_scores")
    assert list(problems(manifest)) == [
        "classification.labels must have one label for each score of the head",
        "classification.labels has an empty name or a name twice",
        "classification.score_function has no value 0",
    ]
    manifest.classification.labels[:] = ["no", "yes"]
    manifest.classification.score_function = SCORE_FUNCTION_SOFTMAX
    assert not list(problems(manifest))
    manifest.precisions[0].embedder.outputs.remove("label_scores")
    [problem] = problems(manifest)
    assert problem.endswith("differ from the expected ones: label_scores")
