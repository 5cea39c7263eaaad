"""Heads for sequence classification of encoders, as ``transformers`` writes them.

Cross-encoders of sentence-transformers are such models; their configuration names the function of
the scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attendant.v1 import embedding_pb2
from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU,
    ACTIVATION_RELU,
    ACTIVATION_TANH,
    ClassificationHead,
    Dense,
)
from attendant.v1.bundle_pb2 import Classification
from attendant.v1.embedding_pb2 import (
    POOLING_CLS,
    POOLING_MEAN,
    SCORE_FUNCTION_IDENTITY,
    SCORE_FUNCTION_SIGMOID,
    SCORE_FUNCTION_SOFTMAX,
)
from attendant_manifest.rules import MAX_DIMENSION

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.post_norm_encoder import (
    ActivationNumber,
    FieldNames,
    read_activation,
)

CLASS_SUFFIX = "ForSequenceClassification"
MODERNBERT = "modernbert"
FUNCTIONS = {
    "torch.nn.modules.linear.Identity": SCORE_FUNCTION_IDENTITY,
    "torch.nn.modules.activation.Sigmoid": SCORE_FUNCTION_SIGMOID,
}
"""The functions of a cross-encoder's scores, by the names in its configuration."""
PROBLEM_TYPES = {
    "regression": SCORE_FUNCTION_IDENTITY,
    "multi_label_classification": SCORE_FUNCTION_SIGMOID,
    "single_label_classification": SCORE_FUNCTION_SOFTMAX,
}
MODERNBERT_FIELDS = FieldNames(activation="classifier_activation")
MODERNBERT_POOLINGS = {"cls": POOLING_CLS, "mean": POOLING_MEAN}


@dataclass(frozen=True, slots=True)
class _Names:
    """The layers of a family's head, and the activation after the first one."""

    transform: str
    output: str
    activation: ActivationNumber = ACTIVATION_TANH
    norm: str = ""


_ROBERTA = _Names("classifier.dense", "classifier.out_proj")
_HEADS: Mapping[str, _Names] = {
    "albert": _Names("pooler", "classifier"),
    "bert": _Names("pooler.dense", "classifier"),
    "camembert": _ROBERTA,
    "distilbert": _Names("pre_classifier", "classifier", ACTIVATION_RELU),
    "electra": _Names("classifier.dense", "classifier.out_proj", ACTIVATION_GELU),
    MODERNBERT: _Names("head.dense", "classifier", norm="head.norm"),
    "mpnet": _ROBERTA,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}

FAMILIES_WITH_HEADS = tuple(_HEADS)
"""The values of ``model_type`` whose heads for classification are supported."""


def has_classification_head(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint is of a model for classification and has the head's weights."""
    names = _HEADS.get(checkpoint.config.get("model_type"))
    classes = checkpoint.config.get("architectures")
    is_stated = isinstance(classes, list) and any(
        isinstance(name, str) and name.endswith(CLASS_SUFFIX) for name in classes
    )
    return bool(names and is_stated and f"{names.output}.weight" in checkpoint.weights.shapes)


def head_weights(family: str) -> dict[str, str]:
    """The checkpoint's names of the layers of a head, by ours."""
    names = _HEADS[family]
    weights = {"classifier.transform.linear": names.transform, "classifier.output": names.output}
    return weights | ({"classifier.norm": names.norm} if names.norm else {})


def read_head(config: Config, d_model: int) -> ClassificationHead:
    """The head of a checkpoint; raises CheckpointError for a field that is not supported."""
    family = config.get("model_type")
    names = _HEADS[family]
    transform = Dense(d_output=d_model, has_bias=True, activation=names.activation)
    pooling = POOLING_CLS
    if family == MODERNBERT:
        transform.activation = read_activation(config, MODERNBERT_FIELDS)
        transform.has_bias = config.flag("classifier_bias", default=False)
        pooling = config.choice("classifier_pooling", MODERNBERT_POOLINGS, default="cls")
    return ClassificationHead(
        num_labels=len(_labels(config)),
        pooling=pooling,
        transform=transform,
        has_norm=bool(names.norm),
    )


def read_classification(config: Config) -> Classification:
    """The labels of a checkpoint and the function of their scores; raises CheckpointError."""
    labels = _labels(config)
    return Classification(labels=labels, score_function=_score_function(config, len(labels)))


def _labels(config: Config) -> Sequence[str]:
    """The names in ``id2label``, or LABEL_0 and so on for ``num_labels``, which is 2 by default."""
    by_id = config.get("id2label")
    if by_id is None:
        num_labels = config.integer("num_labels", default=2)
        if num_labels > MAX_DIMENSION:
            raise CheckpointError(
                f"{config.path}: num_labels is {num_labels}, want at most {MAX_DIMENSION}"
            )
        return [f"LABEL_{i}" for i in range(num_labels)]
    try:
        labels = [by_id[str(i)] for i in range(len(by_id))]
    except (TypeError, KeyError):
        labels = []
    if not labels or not all(isinstance(label, str) and label for label in labels):
        raise CheckpointError(f"{config.path}: id2label does not name the labels 0, 1 and so on")
    if len(set(labels)) < len(labels):
        raise CheckpointError(f"{config.path}: id2label has a name twice")
    return labels


def _score_function(config: Config, num_labels: int) -> embedding_pb2.ScoreFunction.ValueType:
    """That of the cross-encoder, if one is stated, else that of the kind of problem.

    Without both, it is the one that ``transformers`` applies.
    """
    settings = config.get("sentence_transformers", {})
    stated = settings.get("activation_fn") if isinstance(settings, dict) else settings
    older = "sbert_ce_default_activation_function"
    for name, function in (
        ("sentence_transformers.activation_fn", stated),
        (older, config.get(older)),
    ):
        if function is not None:
            found = Config(config.path, {name: function})
            return found.choice(name, FUNCTIONS)  # type: ignore[no-any-return]
    default = "multi_label_classification" if num_labels == 1 else "single_label_classification"
    function = config.choice("problem_type", PROBLEM_TYPES, default=default)
    if num_labels == 1 and function == SCORE_FUNCTION_SOFTMAX:
        return SCORE_FUNCTION_SIGMOID  # The softmax of one score is always 1.
    return function  # type: ignore[no-any-return]
