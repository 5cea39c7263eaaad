"""Heads of checkpoints for a task: those for classification and of ColBERT are imported."""

import re

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.classification import FAMILIES_WITH_HEADS, has_classification_head
from attendant_export.importers.colbert import has_projection
from attendant_export.importers.sentence_transformers import MODULES, is_sentence_transformer

TASKS = re.compile(
    r".+For(SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice)|HF_ColBERT"
)
LANGUAGE_MODEL = "ForCausalLM"
HEAD_WEIGHTS = re.compile(r"((pre_)?classifier|qa_outputs|head|linear|score)\..+")
"""The tensors of such heads in all families of embedding models."""


def check_translates(config: Config) -> None:
    """Raise CheckpointError if an encoder and decoder have the head of a task, not of tokens."""
    classes = _classes(config)
    if any(map(TASKS.fullmatch, classes)):
        raise CheckpointError(
            f"{config.path}: architectures is {', '.join(classes)}, which is not supported for "
            f"model_type {config.get('model_type')!r}; supported: encoder and decoder that write "
            "text, and heads for sequence classification of " + ", ".join(FAMILIES_WITH_HEADS)
        )


def _classes(config: Config) -> list[str]:
    stated = config.get("architectures")
    return [str(name) for name in stated] if isinstance(stated, list) else []


def leave_out_task_head(checkpoint: Checkpoint, is_wanted: bool) -> None:
    """Leave the head of a task out of the weights of a checkpoint, if that ``is_wanted``.

    Raises CheckpointError for a checkpoint with a head that is not supported otherwise, and
    ValueError if there is none to leave out.
    """
    config = checkpoint.config
    classes = _classes(config)
    if _writes_text(checkpoint):
        _check_left_out(config, is_wanted)
        return
    names: set[str] = set()
    # The weights are downloaded only if they may have such a head.
    if any(map(TASKS.fullmatch, classes)):
        names = {name for name in checkpoint.weights.shapes if HEAD_WEIGHTS.fullmatch(name)}
    if not names:
        if is_wanted:
            raise ValueError("--without-head is for models with a head of a task")
        return
    if is_wanted:
        checkpoint.weights.leave_out(names)
    elif not has_classification_head(checkpoint) and not has_projection(checkpoint):
        families = ", ".join(FAMILIES_WITH_HEADS)
        raise CheckpointError(
            f"{config.path}: architectures is {', '.join(classes)}, whose head is not supported; "
            f"supported: heads of ColBERT, and for sequence classification of {families}; the "
            "embedding part alone "
            "can be imported with --without-head"
        )


def _writes_text(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint is of a language model that no settings make an embedding model."""
    classes = _classes(checkpoint.config)
    is_language_model = any(name.endswith(LANGUAGE_MODEL) for name in classes)
    return is_language_model and not is_sentence_transformer(checkpoint)


def _check_left_out(config: Config, is_wanted: bool) -> None:
    """Raise CheckpointError unless the head of a language model is to be left out."""
    if not is_wanted:
        raise CheckpointError(
            f"{config.path}: architectures is {', '.join(_classes(config))}, and there is no "
            f"{MODULES}: language models, and rerankers that answer yes or no such as "
            "Qwen3-Reranker, are not supported; supported: embedding models with settings of "
            "sentence-transformers; with --without-head, the layers alone are imported as an "
            "embedding model that pools the last token"
        )
