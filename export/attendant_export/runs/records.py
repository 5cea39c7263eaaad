"""Where weights come from: what a run records about itself, and what its data asks for."""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from attendant_export.runs import checkpoint
from attendant_export.runs.sizes import has_started

logger = logging.getLogger(__name__)

RUN = "run.json"


@dataclass(frozen=True, slots=True)
class DataSource:
    """One source of training data and what its licence asks for."""

    name: str
    license: str
    credit: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a training writes into its run folder, so that an export need not be told.

    What is not known is left empty.
    """

    trainer_version: str = ""
    seed: int | None = None
    recipe: str = ""
    hardware: str = ""
    valid_pairs: str = ""
    """Path of the validation text as it was given."""
    swap: bool = False
    """Whether the second column was translated into the first."""
    max_tokens: int | None = None
    """The most tokens of a text that the model saw, if it cannot read longer ones."""
    start_data: list[DataSource] = field(default_factory=list)
    """What the bundle was trained on whose weights were the start."""


def write_run_record(run_dir: Path, record: RunRecord) -> None:
    """Write ``run.json`` of a run folder; a run that has started keeps its own, with a warning."""
    if has_started(run_dir):
        kept, given = asdict(read_run_record(run_dir)), asdict(record)
        if others := [name for name in given if given[name] != kept[name]]:
            logger.warning("%s is kept, but has another %s", run_dir / RUN, ", ".join(others))
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(run_dir / RUN, asdict(record))


def read_run_record(run_dir: Path) -> RunRecord:
    """The record of a run folder; an empty one if the run made none.

    Raises ValueError that names the file and what is wrong with it.
    """
    path = run_dir / RUN
    if not path.exists():
        return RunRecord()
    try:
        content: dict[str, Any] = checkpoint.read_json(path)
        sources = [DataSource(**source) for source in content.pop("start_data", [])]
        return RunRecord(start_data=sources, **content)
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not the record of a run: {error}") from error
