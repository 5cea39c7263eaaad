"""The record of a run: how its weights were trained, on which data."""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from attendant_export.runs import checkpoint
from attendant_export.runs.config_checks import has_started

logger = logging.getLogger(__name__)

RUN = "run.json"


@dataclass(frozen=True, slots=True)
class DataSource:
    """A source of training data with its licence and the credit that the licence demands."""

    name: str
    license: str
    credit: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The facts about a training that an export copies into the bundle.

    Unknown facts are empty.
    """

    trainer_version: str = ""
    seed: int | None = None
    recipe: str = ""
    hardware: str = ""
    valid_pairs: str = ""
    """Path of the validation text as given on the command line."""
    swap: bool = False
    """Whether the second column was translated into the first."""
    max_tokens: int | None = None
    """Limit of tokens of a training text, if the model cannot read longer texts."""
    start_data: list[DataSource] = field(default_factory=list)
    """The training data of the bundle that the initial weights came from."""


def write_run_record(run_dir: Path, record: RunRecord) -> None:
    """Write ``run.json``. A run that has started keeps its file; differences log a warning."""
    if has_started(run_dir):
        kept, given = asdict(read_run_record(run_dir)), asdict(record)
        if different := [name for name in given if given[name] != kept[name]]:
            names = ", ".join(different)
            logger.warning("%s is kept; this command differs from it in: %s", run_dir / RUN, names)
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(run_dir / RUN, asdict(record))


def read_run_record(run_dir: Path) -> RunRecord:
    """The record of a run folder, empty if the folder has none.

    Raises ValueError that names the file and its fault.
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
