"""Where weights come from: what a run records about itself, and what its data asks for."""

import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from attendant_export import checkpoint
from attendant_export.bert import BertConfig
from attendant_export.bert_data import BertData
from attendant_export.bert_training import ContrastiveOptions, MlmOptions
from attendant_export.manifest import MANIFEST, read_manifest
from attendant_export.model_sizes import has_started
from attendant_export.training import TrainingOptions
from attendant_export.transformer import TransformerConfig
from attendant_export.translation_training import TranslationData

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


def describe_start(folder: Path) -> tuple[str, list[DataSource]]:
    """A sentence on the run folder or bundle that a training starts from, and its bundle's data."""
    if not (folder / MANIFEST).exists():
        name = folder.resolve().name
        return f"Started from the weights of the run {name}.", read_run_record(folder).start_data
    manifest = read_manifest(folder)
    sources = [DataSource(d.name, d.license, d.credit) for d in manifest.provenance.data]
    credits = "; ".join(f"{source.credit} ({source.license})" for source in sources)
    return (
        f"Started from the weights of the bundle {manifest.name}/{manifest.version}, licence "
        f"{manifest.license}, trained on: {credits}."
    ), sources


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


def describe_hardware(device: torch.device, num_processes: int = 1) -> str:
    """Such as "2 CPU cores", or how many GPUs of which name: each process has one."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return name if num_processes == 1 else f"{num_processes} {name}"
    return f"{os.cpu_count()} CPU cores"


def describe_schedule(options: TrainingOptions) -> str:
    """The optimizer and its learning rate in one clause."""
    return (
        f"AdamW, learning rate {options.learning_rate:g} after {options.warmup_steps} steps of "
        f"warm-up, decayed linearly to {options.final_learning_rate_ratio:.0%} of it"
    )


def translation_recipe(
    config: TransformerConfig,
    data: TranslationData,
    options: TrainingOptions,
    label_smoothing: float,
) -> str:
    """How a translation model is trained, for the manifest and the model card."""
    norm = "pre" if config.norm_first else "post"
    return (
        f"Transformer with {norm}-norm, dropout {config.dropout:g} and one embedding for source, "
        f"target and output; joint BPE. {describe_schedule(options)}; batches of "
        f"{data.max_batch_tokens:,} padded tokens, label smoothing {label_smoothing:g}. The "
        f"checkpoint with the best greedy BLEU on {data.num_valid_sources} sentences of "
        f"{data.valid.name}, measured every {options.validate_every_steps:,} steps."
    )


def bert_recipe(
    config: BertConfig, data: BertData, mlm: MlmOptions, contrastive: ContrastiveOptions
) -> str:
    """How an embedding model is trained, for the manifest and the model card."""
    norm = "pre" if config.norm_first else "post"
    phases = [
        f"BERT with {norm}-norm, dropout {config.dropout:g} and WordPiece, on texts of at most "
        f"{data.max_tokens} tokens."
    ]
    if contrastive.embedding_training is not None:
        phases.append(
            "Contrastive learning of the token embeddings alone (batches of at most "
            f"{contrastive.max_embedding_pairs} pairs): "
            f"{describe_schedule(contrastive.embedding_training)}."
        )
    if mlm.training is not None:
        phases.append(f"Masked language model alone: {describe_schedule(mlm.training)}.")
    phases.append(
        "Contrastive learning of translation and paraphrase pairs (batches of at most "
        f"{contrastive.max_pairs} pairs, temperature {contrastive.temperature:g}, "
        f"{contrastive.pooling} pooling) with {contrastive.mlm_weight:g} times the loss of a "
        f"masked language model ({mlm.mask_ratio:.0%} masked, batches of "
        f"{mlm.max_batch_tokens:,} padded tokens): {describe_schedule(contrastive.training)}. The "
        "checkpoint with the best mean of retrieval accuracy and masked accuracy on "
        f"{data.valid_pairs.name} and held-out documents."
    )
    return " ".join(phases)
