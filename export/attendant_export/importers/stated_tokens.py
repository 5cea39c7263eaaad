"""Special tokens and classes of tokenizers that the files of a checkpoint state."""

from typing import Any

from attendant_export.importers.checkpoint import TOKENIZER_CONFIG, Checkpoint, CheckpointError

SPECIAL_TOKENS = "special_tokens_map.json"


def stated_token(checkpoint: Checkpoint, key: str, default: str | None = None) -> str:
    """The token that the checkpoint states as ``key``; raises CheckpointError without a default."""
    for file in (SPECIAL_TOKENS, TOKENIZER_CONFIG):
        value: Any = checkpoint.options(file).get(key)
        if isinstance(value, dict):  # a token with options for splitting
            value = value.get("content")
        if isinstance(value, str):
            return value
    if default is not None:
        return default
    raise CheckpointError(
        f"{checkpoint.folder}: neither {SPECIAL_TOKENS} nor {TOKENIZER_CONFIG} has a {key}"
    )


def check_tokenizer_class(checkpoint: Checkpoint, *classes: str) -> None:
    """Raise CheckpointError if a class is stated that reads the files of a tokenizer otherwise.

    ``classes`` are those that read them as the import does, also with ``Fast`` at their end.
    """
    known = {name: None for each in classes for name in (each, f"{each}Fast")}
    config = checkpoint.tokenizer_class
    if "tokenizer_class" in config:
        config.choice("tokenizer_class", known)
