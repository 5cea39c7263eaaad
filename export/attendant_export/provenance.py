"""Where weights come from: what a run records about itself, and what its data asks for."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from attendant_export import checkpoint
from attendant_export.training import TrainingOptions

RUN, DATA_CARD = "run.json", "data_card.json"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a training writes into its run folder, so that an export need not be told."""

    trainer_version: str = ""
    seed: int = 1
    recipe: str = ""
    hardware: str = ""
    valid_pairs: str = ""
    """Path of the validation text as it was given."""
    swap: bool = False
    """Whether the second column was translated into the first."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """One source of training data and what its licence asks for."""

    name: str
    license: str
    credit: str


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


def write_run_record(run_dir: Path, record: RunRecord) -> None:
    """Write ``run.json`` of a run folder."""
    run_dir.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(run_dir / RUN, asdict(record))


def read_run_record(run_dir: Path) -> RunRecord:
    """The record of a run folder; an empty one if the run made none."""
    path = run_dir / RUN
    return RunRecord(**checkpoint.read_json(path)) if path.exists() else RunRecord()


def read_data_card(path: Path) -> DataCard:
    """Read a data card; raises ValueError that names the file and what is wrong with it."""
    try:
        content: dict[str, Any] = checkpoint.read_json(path)
        sources = [DataSource(**source) for source in content.pop("data")]
        return DataCard(data=sources, **content)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not a data card: {error}") from error


def describe_hardware(device: torch.device) -> str:
    """Such as "2 CPU cores" or the name of a GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores"


def describe_schedule(options: TrainingOptions) -> str:
    """The optimizer and its learning rate in one clause."""
    return (
        f"AdamW, learning rate {options.learning_rate:g} after {options.warmup_steps} steps of "
        f"warm-up, decayed linearly to {options.final_learning_rate_ratio:.0%} of it"
    )
