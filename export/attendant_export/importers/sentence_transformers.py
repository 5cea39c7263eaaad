"""Folders of sentence-transformers: an encoder, its pooling and normalization.

``modules.json`` lists the modules that a text passes, in order. Without it, a checkpoint is an
encoder only, and the defaults are those that sentence-transformers then uses: mean pooling.
"""

from dataclasses import dataclass, replace
from typing import Any

from attendant.v1 import embedding_pb2
from attendant.v1.embedding_pb2 import POOLING_CLS, POOLING_MAX, POOLING_MEAN

from attendant_export.importers.checkpoint import (
    Checkpoint,
    CheckpointError,
    Config,
    is_plain_name,
)
from attendant_export.importers.imported import ImportedEncoder

PACKAGE = "sentence_transformers."
MODULES = "modules.json"
ENCODER_SETTINGS = "sentence_bert_config.json"
PROMPTS = "config_sentence_transformers.json"
POOLINGS = {
    "pooling_mode_mean_tokens": POOLING_MEAN,
    "pooling_mode_cls_token": POOLING_CLS,
    "pooling_mode_max_tokens": POOLING_MAX,
}
POOLING_NAMES = {"mean": POOLING_MEAN, "cls": POOLING_CLS, "max": POOLING_MAX}
KNOWN_MODULES = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])


def is_sentence_transformer(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint lists the modules of sentence-transformers."""
    return checkpoint.has(MODULES)


def with_defaults(encoder: ImportedEncoder, checkpoint: Checkpoint) -> ImportedEncoder:
    """``encoder`` with the defaults of its folder. Raises CheckpointError for other modules."""
    modules = _modules(checkpoint)
    names = [module.name for module in modules]
    if names not in KNOWN_MODULES:
        known = " or ".join(", ".join(each) for each in KNOWN_MODULES)
        raise CheckpointError(
            f"{checkpoint.folder / MODULES}: the modules {', '.join(names)} are not supported; "
            f"supported: {known}"
        )
    if modules[0].path:
        raise CheckpointError(
            f"{checkpoint.folder / MODULES}: the path of Transformer is {modules[0].path!r}, "
            "want ''"
        )
    _check_prompts(checkpoint)
    return replace(
        encoder,
        max_tokens=min(encoder.max_tokens, _max_tokens(checkpoint, encoder.max_tokens)),
        pooling=_pooling(checkpoint, modules[1].path),
        normalize=names[-1] == "Normalize",
    )


@dataclass(frozen=True, slots=True)
class _Module:
    name: str
    path: str


def _modules(checkpoint: Checkpoint) -> list[_Module]:
    entries: Any = checkpoint.json(MODULES)
    try:
        modules = [_Module(_class_name(entry["type"]), entry["path"]) for entry in entries]
    except (TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{checkpoint.folder / MODULES} is no list of modules") from error
    for module in modules:
        if module.path != "" and not is_plain_name(module.path):
            raise CheckpointError(
                f"{checkpoint.folder / MODULES}: the path {module.path!r} is not a folder's name"
            )
    return modules


def _class_name(type_: str) -> str:
    """The name of a class of sentence-transformers; the whole path of any other class."""
    return type_.rpartition(".")[2] if type_.startswith(PACKAGE) else type_


def _max_tokens(checkpoint: Checkpoint, default: int) -> int:
    if not checkpoint.has(ENCODER_SETTINGS):
        return default
    settings = Config(
        checkpoint.folder / ENCODER_SETTINGS, checkpoint.json_object(ENCODER_SETTINGS)
    )
    settings.require(do_lower_case=False)
    return settings.integer("max_seq_length", default)


def _pooling(checkpoint: Checkpoint, path: str) -> embedding_pb2.Pooling.ValueType:
    name = f"{path}/config.json"
    content = checkpoint.json_object(name)
    config = Config(checkpoint.folder / name, content)
    config.require(include_prompt=True)
    if "pooling_mode" in config:
        return config.choice("pooling_mode", POOLING_NAMES)  # type: ignore[no-any-return]
    modes = sorted(k for k, v in content.items() if k.startswith("pooling_mode_") and v)
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise CheckpointError(
            f"{config.path}: {', '.join(modes) or 'no pooling mode'} is not supported; supported: "
            f"one of {', '.join(POOLINGS)}"
        )
    return POOLINGS[modes[0]]


def _check_prompts(checkpoint: Checkpoint) -> None:
    """Refuse prompts, which this version cannot apply."""
    if not checkpoint.has(PROMPTS):
        return
    config = Config(checkpoint.folder / PROMPTS, checkpoint.json_object(PROMPTS))
    prompts = config.get("prompts", {})
    if not isinstance(prompts, dict) or not all(isinstance(p, str) for p in prompts.values()):
        raise CheckpointError(f"{config.path}: prompts is {prompts!r}, want texts by name")
    if config.get("default_prompt_name") or any(prompts.values()):
        names = ", ".join(prompts)
        raise CheckpointError(f"{config.path}: prompts ({names}) are not supported yet")
