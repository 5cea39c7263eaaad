"""The data card: facts about a model that people state and nothing computes."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from attendant_export.runs import checkpoint
from attendant_export.runs.records import DataSource, RunRecord


@dataclass(frozen=True, slots=True)
class DataCard:
    """What people must know about a model and cannot be computed: its data, licence, limits."""

    description: str
    license: str
    languages: list[str]
    """BCP 47 tags; of a translation model source and target."""
    data: list[DataSource]
    intended_use: str
    weaknesses: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    """Texts whose outputs the model card shows, those that go wrong above all."""


def check_credits(card: DataCard, record: RunRecord) -> None:
    """ValueError that lists the data behind the start of a run that ``card`` leaves out."""
    missing = [asdict(source) for source in record.start_data if source not in card.data]
    if missing:
        raise ValueError(f"the data card must name what the start was trained on: {missing}")


def read_data_card(path: Path) -> DataCard:
    """Read a data card; raises ValueError that names the file and what is wrong with it."""
    try:
        content: dict[str, Any] = checkpoint.read_json(path)
        sources = [DataSource(**source) for source in content.pop("data")]
        return DataCard(data=sources, **content)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not a data card: {error}") from error
