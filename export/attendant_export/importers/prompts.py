"""Prompts of sentence-transformers: texts that it puts before the texts to embed."""

from collections.abc import Mapping
from dataclasses import dataclass

from attendant.v1.bundle_pb2 import EmbeddingDefaults
from tokenizers import Tokenizer

from attendant_export.data.batches import special_tokens_as_text
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config

SETTINGS = "config_sentence_transformers.json"


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of a model by name."""

    texts: dict[str, str]
    default: str = ""
    """Name of the prompt of texts for which none is chosen. Empty for no prompt."""


def read_prompts(checkpoint: Checkpoint, tokenizer: Tokenizer) -> Prompts:
    """The prompts of a checkpoint; none if all are empty. Raises CheckpointError."""
    config = checkpoint.options(SETTINGS)
    texts, default = config.get("prompts", {}), config.get("default_prompt_name", "")
    if isinstance(texts, dict):
        texts = {name: "" if text is None else text for name, text in texts.items()}
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise CheckpointError(f"{config.path}: prompts is {texts!r}, want texts by name")
    if default and default not in texts:
        raise CheckpointError(
            f"{config.path}: default_prompt_name is {default!r}, which is not among the prompts "
            f"({', '.join(texts)})"
        )
    if not any(texts.values()):
        return Prompts({})
    _check_plain(config, texts, tokenizer)
    return Prompts(texts, default if texts.get(default) else "")


def count_prompt_tokens(tokenizer: Tokenizer, prompt: str) -> int:
    """Number of tokens of a prompt and of the special tokens before it; 0 without a prompt."""
    if not prompt:
        return 0
    encoding = tokenizer.encode(prompt)
    return len(encoding.ids) - encoding.special_tokens_mask[-1]


def check_room(tokenizer: Tokenizer, defaults: EmbeddingDefaults, max_tokens: int) -> None:
    """Raise ValueError if a default prompt leaves no room for a text within ``max_tokens``."""
    prompt = defaults.prompts.get(defaults.default_prompt, "")
    least = count_prompt_tokens(tokenizer, prompt) + 2  # a token of the text and [SEP]
    if prompt and max_tokens < least:
        raise ValueError(
            f"the limit of {max_tokens} tokens leaves no room for a text after the default prompt "
            f"{prompt!r}; it must be at least {least}"
        )


def _check_plain(config: Config, texts: Mapping[str, str], tokenizer: Tokenizer) -> None:
    """Raise CheckpointError if a prompt spells a special token, which the server reads as text."""
    ids = {name: tokenizer.encode(text).ids for name, text in texts.items()}
    with special_tokens_as_text(tokenizer):
        plain_ids = {name: tokenizer.encode(text).ids for name, text in texts.items()}
    for name, text in texts.items():
        if ids[name] != plain_ids[name]:
            raise CheckpointError(
                f"{config.path}: the prompt {name} is {text!r}: its special token is not supported"
            )
