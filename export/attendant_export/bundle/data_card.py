"""The data card: facts about a model that a person must state."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from attendant.v1.bundle_pb2 import Manifest, TrainingData

from attendant_export.runs import checkpoint
from attendant_export.runs.records import DataSource, RunRecord


@dataclass(frozen=True, slots=True)
class DataCard:
    """Facts about a model that cannot be computed: description, data, licence, weaknesses."""

    description: str
    license: str
    languages: list[str]
    """BCP 47 tags. A translation model has two, source and target, or all that it has tokens for.
    """
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


def training_data(card: DataCard) -> list[TrainingData]:
    """The data of a card, as a manifest states them."""
    return [TrainingData(**asdict(source)) for source in card.data]


def data_of(manifest: Manifest) -> list[DataSource]:
    """The data that a manifest states, as a card states them."""
    return [DataSource(d.name, d.license, d.credit) for d in manifest.provenance.data]


def read_data_card(path: Path) -> DataCard:
    """Read a data card. Raises ValueError that names the file and its fault."""
    try:
        content: dict[str, Any] = checkpoint.read_json(path)
        sources = [DataSource(**source) for source in content.pop("data")]
        return DataCard(data=sources, **content)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not a data card: {error}") from error
