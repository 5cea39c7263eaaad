"""The data card: facts about a model that a person must state."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from attendant_export.runs import checkpoint
from attendant_export.runs.records import DataSource, RunRecord


@dataclass(frozen=True, slots=True)
class DataCard:
    """Facts about a model that cannot be computed: description, data, licence, weaknesses."""

    description: str
    license: str
    languages: list[str]
    """BCP 47 tags. A translation model has two: source and target."""
    data: list[DataSource]
    intended_use: str
    weaknesses: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    """Texts whose outputs the model card shows. Include texts with bad outputs."""


def check_credits(card: DataCard, record: RunRecord) -> None:
    """Raise ValueError that lists data sources of the run's initial weights not in ``card``."""
    missing = [asdict(source) for source in record.start_data if source not in card.data]
    if missing:
        raise ValueError(f"the data card must name the data of the initial weights: {missing}")


def read_data_card(path: Path) -> DataCard:
    """Read a data card. Raises ValueError that names the file and its fault."""
    try:
        content: dict[str, Any] = checkpoint.read_json(path)
        sources = [DataSource(**source) for source in content.pop("data")]
        return DataCard(data=sources, **content)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not a data card: {error}") from error
