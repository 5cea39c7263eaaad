"""``config.json`` of a run, which describes its model."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from attendant.v1.architecture_pb2 import Architecture
from google.protobuf import json_format

from attendant_export.data.labelled_texts import TASKS
from attendant_export.models.shapes import bert, transformer
from attendant_export.models.special_tokens import (
    EncoderTokens,
    LanguageModelTokens,
    TranslationTokens,
)
from attendant_export.runs import checkpoint

TRANSLATION, BERT, LANGUAGE_MODEL = "translation", "bert", "language-model"
SKIP_GRAM, GLOVE = "skip-gram", "glove"
"""Word vectors, by the objective of their training. Classifiers have the names of `TASKS`."""
Tokens: TypeAlias = TranslationTokens | EncoderTokens | LanguageModelTokens
_TOKENS: dict[str, type[Tokens]] = {
    TRANSLATION: TranslationTokens,
    BERT: EncoderTokens,
    LANGUAGE_MODEL: LanguageModelTokens,
    SKIP_GRAM: EncoderTokens,
    GLOVE: EncoderTokens,
    **dict.fromkeys(TASKS, EncoderTokens),
}
_SHAPES: dict[str, Callable[..., Architecture]] = {TRANSLATION: transformer, BERT: bert}


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Kind, architecture, special tokens and training dropout of a model."""

    kind: str
    architecture: Architecture
    tokens: Tokens
    dropout: float

    def as_json(self) -> dict[str, Any]:
        """The content of ``config.json``."""
        network = json_format.MessageToDict(self.architecture, preserving_proto_field_name=True)
        return {
            "kind": self.kind,
            "architecture": network,
            **asdict(self.tokens),
            "dropout": self.dropout,
        }

    def values(self) -> dict[str, Any]:
        """Every value by its path, such as ``encoder.groups.0.num_layers``."""
        content = self.as_json()
        return dict(_leaves(content.pop("architecture"))) | content


def read_config(run_dir: Path) -> RunConfig:
    """The model of a run. Raises ValueError that names the file if it is invalid."""
    path = run_dir / checkpoint.CONFIG
    try:
        return _parse(upgrade(checkpoint.read_json(path)))
    except (json_format.ParseError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not describe a run: {error}") from error


def write_config(run_dir: Path, config: RunConfig) -> None:
    """Write ``config.json``."""
    checkpoint.write_json(run_dir / checkpoint.CONFIG, config.as_json())


def upgrade(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``config.json`` in the current format.

    Older files have the sizes of one of two fixed shapes instead of an architecture.
    """
    sizes = dict(content)
    if "architecture" in sizes:
        return sizes
    kind, dropout = sizes.pop("kind"), sizes.pop("dropout")
    ids = {name: sizes.pop(name) for name in asdict(_TOKENS[kind]()) if name in sizes}
    sizes["d_feed_forward"] = sizes.pop("d_ff")
    architecture = _SHAPES[kind](**sizes)
    return RunConfig(kind, architecture, _TOKENS[kind](**ids), dropout).as_json()


def _parse(content: dict[str, Any]) -> RunConfig:
    kind, dropout = content.pop("kind"), content.pop("dropout")
    architecture = json_format.ParseDict(content.pop("architecture"), Architecture())
    return RunConfig(kind, architecture, _TOKENS[kind](**content), dropout)


def _leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs of the path and the value of each leaf of nested objects and lists."""
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, Mapping):
        yield path, content
        return
    for name, value in content.items():
        yield from _leaves(value, f"{path}.{name}" if path else str(name))
