"""The card of a checkpoint: the YAML at the head of its ``README.md``, as model hubs use it."""

from dataclasses import dataclass
from typing import Any

import yaml

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError

CARD = "README.md"
FENCE = "---"


@dataclass(frozen=True, slots=True)
class Card:
    """What a card states. ``license`` is None if it states none."""

    license: str | None = None
    languages: tuple[str, ...] = ()


def read_card(checkpoint: Checkpoint) -> Card:
    """The card of a checkpoint, or an empty one. Raises CheckpointError for a damaged card."""
    if not checkpoint.has(CARD):
        return Card()
    path = checkpoint.path(CARD)
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    first, *lines = [line.rstrip() for line in text.lstrip().splitlines()] or [""]
    if first != FENCE or FENCE not in lines:
        return Card()
    head = "\n".join(lines[: lines.index(FENCE)])
    try:  # This loader keeps all values as texts, such as the language "no".
        content: Any = yaml.load(head, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its head is not YAML: {reason}") from error
    if not isinstance(content, dict):
        return Card()
    return Card(license=_license(content), languages=tuple(_strings(content.get("language"))))


def _license(content: dict[str, Any]) -> str | None:
    named = _strings(content.get("license"))
    if named == ["other"]:  # another field has the name
        named = _strings(content.get("license_name"))
    return ", ".join(named) or None


def _strings(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str) and each]
