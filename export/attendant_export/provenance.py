"""Where weights come from: what a run records about itself, and what its data asks for."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from attendant_export import checkpoint
from attendant_export.bert import BertConfig
from attendant_export.bert_data import BertData
from attendant_export.bert_training import ContrastiveOptions, MlmOptions
from attendant_export.training import TrainingOptions
from attendant_export.transformer import TransformerConfig
from attendant_export.translation_training import TranslationData

RUN = "run.json"


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
    max_tokens: int | None = None
    """The most tokens of a text that the model saw, if it cannot read longer ones."""


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
    embedding_phase = ""
    if contrastive.embedding_training is not None:
        embedding_phase = (
            "First contrastive learning of the token embeddings alone (batches of at most "
            f"{contrastive.max_embedding_pairs} pairs): "
            f"{describe_schedule(contrastive.embedding_training)}. "
        )
    return (
        f"BERT with {norm}-norm, dropout {config.dropout:g} and WordPiece, on texts of at most "
        f"{data.max_tokens} tokens. {embedding_phase}Masked language model "
        f"({mlm.mask_ratio:.0%} masked, batches of {mlm.max_batch_tokens:,} padded tokens): "
        f"{describe_schedule(mlm.training)}. "
        "Then contrastive learning of translation and paraphrase pairs (batches of at most "
        f"{contrastive.max_pairs} pairs, temperature {contrastive.temperature:g}, "
        f"{contrastive.pooling} pooling), with {contrastive.mlm_weight:g} times the masked loss: "
        f"{describe_schedule(contrastive.training)}. The checkpoint with the best retrieval "
        f"accuracy on {data.valid_pairs.name}."
    )
