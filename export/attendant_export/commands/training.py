"""The commands that train models."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from attendant.v1.architecture_pb2 import Architecture

from attendant_export import __version__
from attendant_export.commands.data_files import (
    chosen_file,
    data_file,
    extra_pairs,
    extra_validation,
    pair_source,
    text_source,
)
from attendant_export.commands.networks import naming_widths, translation_network
from attendant_export.configuration import write_options
from attendant_export.corpora.teacher import Teacher
from attendant_export.data.augmentation import parse_augmentation
from attendant_export.data.bert_text import BertData
from attendant_export.data.pair_filters import LengthFilters, parse_text_filters
from attendant_export.data.tokenizer import BPE
from attendant_export.data.translation_data import TranslationData
from attendant_export.models.shapes import bert
from attendant_export.runs.config_checks import has_started
from attendant_export.runs.records import DataSource, RunRecord, write_run_record
from attendant_export.runs.tensorboard import check_installed
from attendant_export.train.bert import train_bert
from attendant_export.train.contrastive import ContrastiveOptions
from attendant_export.train.device import pick_device
from attendant_export.train.distillation import DistillationOptions
from attendant_export.train.distributed import ProcessGroup, join_processes
from attendant_export.train.masked import MlmOptions
from attendant_export.train.recipes import (
    bert_recipe,
    describe_hardware,
    describe_teacher,
    translation_recipe,
)
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.start import describe_start
from attendant_export.train.translation import train_translation
from attendant_export.training_arguments import DEFAULT_TEXTS, TATOEBA_TRAIN

DEFAULT_EPOCHS = 5
"""Epochs of a training without any limit."""
EXPORTED = ("", "contrastive_")
"""The prefixes of the options of phases whose weights are exported."""


def training_options(args: argparse.Namespace, prefix: str = "") -> TrainingOptions:
    """The options of a training, or of the phase whose options begin with ``prefix``."""
    names = (
        "max_minutes",
        "max_epochs",
        "max_steps",
        "validate_every_steps",
        "patience",
        "learning_rate",
        "warmup_steps",
        "accumulate_steps",
        "average_decay",
    )
    values = {name: getattr(args, prefix + name) for name in names}
    if values["max_minutes"] is values["max_epochs"] is values["max_steps"] is None:
        values["max_epochs"] = DEFAULT_EPOCHS
    kept = args.keep_checkpoints if prefix in EXPORTED else 0
    return TrainingOptions(**values, keep_checkpoints=kept, seed=args.seed)


def _optional_phase(args: argparse.Namespace, prefix: str) -> TrainingOptions | None:
    """The options of a phase that runs only if one of its limits is given, else None."""
    limits = [getattr(args, f"{prefix}max_{unit}") for unit in ("minutes", "epochs", "steps")]
    return None if limits == [None] * 3 else training_options(args, prefix)


@contextmanager
def recorded(
    args: argparse.Namespace, recipe: str, max_tokens: int | None = None
) -> Iterator[ProcessGroup]:
    """Join the processes of a training, each with the wanted number of threads.

    Only the first process logs, and writes the options and the record of the run. Raises ValueError
    if TensorBoard is wanted and not installed, and as `pick_device` and `join_processes`.
    """
    if args.tensorboard:
        check_installed()
    if args.num_threads is not None:
        torch.set_num_threads(args.num_threads)
    with join_processes(pick_device(args.device)) as processes:
        if processes.is_first:
            if not has_started(args.run_dir):
                write_options(args.run_dir, args.parser, args)
            write_run_record(args.run_dir, _record(args, recipe, max_tokens, processes.size))
        else:
            logging.disable(logging.INFO)
        yield processes


def _record(
    args: argparse.Namespace, recipe: str, max_tokens: int | None, num_processes: int
) -> RunRecord:
    start_data: list[DataSource] = []
    if getattr(args, "init_from", None) is not None:
        begun, start_data = describe_start(args.init_from)
        recipe += " " + begun
        if getattr(args, "new_tokenizer", False):
            recipe += " Its vocabulary is new; tokens of both kept their embeddings."
    return RunRecord(
        trainer_version=__version__,
        seed=args.seed,
        recipe=recipe,
        hardware=describe_hardware(pick_device(args.device), num_processes),
        valid_pairs=args.valid,
        swap=getattr(args, "swap", False),
        max_tokens=max_tokens,
        start_data=start_data,
    )


def _translation_data(args: argparse.Namespace, separate_vocabularies: bool) -> TranslationData:
    train = tuple(pair_source(args, text) for text in args.train or [TATOEBA_TRAIN])
    valid, valid_choice = chosen_file(args, "--valid", args.valid)
    return TranslationData(
        train,
        valid,
        valid_choice,
        swap=args.swap,
        extra=tuple(extra_pairs(args, text) for text in args.extra_pairs),
        extra_valid=tuple(extra_validation(args, text) for text in args.extra_valid),
        temperature=args.temperature,
        text_filters=parse_text_filters(args.filter),
        length_filters=LengthFilters(max_ratio=args.max_length_ratio),
        augmentation=parse_augmentation(args.augment),
        vocab_size=args.vocab_size,
        tokenizer_kind=args.tokenizer,
        separate_vocabularies=separate_vocabularies,
        max_batch_tokens=args.max_batch_tokens,
        skip_bad_lines=args.skip_bad_lines,
        cache_dir=args.cache_dir,
    )


def run_train_translation(args: argparse.Namespace) -> None:
    """Train a translation model, or resume its training."""
    architecture = translation_network(args)
    data = _translation_data(args, separate_vocabularies=not architecture.shares_embeddings)
    options = training_options(args)
    has_new_tokenizer = args.init_from is None or args.new_tokenizer
    if args.tokenizer != BPE and not has_new_tokenizer:
        raise ValueError(
            "--tokenizer: is for a new tokenizer; that of --init-from is kept unless "
            "--new-tokenizer is given"
        )
    recipe = translation_recipe(
        *(architecture, args.dropout, data, options, args.label_smoothing), has_new_tokenizer
    )
    with recorded(args, recipe) as processes:
        progress = train_translation(
            architecture,
            data,
            options,
            args.run_dir,
            dropout=args.dropout,
            device=args.device,
            precision=args.precision,
            label_smoothing=args.label_smoothing,
            init_from=args.init_from,
            new_tokenizer=args.new_tokenizer,
            processes=processes,
            tensorboard=args.tensorboard,
        )
    if processes.is_first:
        metric = "mean of both BLEU figures" if data.augmentation else "BLEU"
        print(f"{args.run_dir}: finished with best {metric} {progress.best:.2f}")


def run_train_bert(args: argparse.Namespace) -> None:
    """Train an embedding model, or resume its training."""
    with naming_widths(args):
        architecture = bert(
            vocab_size=args.vocab_size,
            d_model=args.d_model,
            num_heads=args.num_heads,
            d_feed_forward=args.d_feed_forward,
            num_layers=args.num_layers,
            norm_first=args.pre_norm,
        )
    data = BertData(
        data_file(args, args.train),
        data_file(args, args.valid),
        texts=tuple(text_source(args, text) for text in args.text or DEFAULT_TEXTS),
        vocab_size=args.vocab_size,
        max_tokens=args.max_tokens,
        teacher_texts=tuple(data_file(args, text, or_folder=True) for text in args.teacher_text),
        seed=args.seed,
        skip_bad_lines=args.skip_bad_lines,
    )
    mlm = MlmOptions(_optional_phase(args, "mlm_"), args.max_batch_tokens, args.mask_ratio)
    contrastive = ContrastiveOptions(
        training_options(args, "contrastive_"),
        args.max_pairs,
        args.temperature,
        mlm_weight=args.mlm_weight,
        embedding_training=_optional_phase(args, "embeddings_"),
    )
    recipe = bert_recipe(architecture, args.dropout, data, mlm, contrastive)
    with _teacher(args) as teacher:
        distillation = None if teacher is None else _distillation(args, teacher)
        if teacher is not None and distillation is not None:
            recipe += describe_teacher(teacher.name, teacher.license, data, distillation)
        _train_bert(args, architecture, data, mlm, contrastive, distillation, recipe)


@contextmanager
def _teacher(args: argparse.Namespace) -> Iterator[Teacher | None]:
    """The teacher of ``--teacher``, None without; ValueError for its options without it."""
    if args.teacher is None:
        for name in ("teacher_text", "distillation_weight", "hard_negatives", "cache_dir"):
            if getattr(args, name):
                raise ValueError(f"--{name.replace('_', '-')}: needs --teacher")
        yield None
        return
    with Teacher(args.teacher, args.num_threads) as teacher:
        yield teacher


def _distillation(args: argparse.Namespace, teacher: Teacher) -> DistillationOptions:
    options = DistillationOptions(teacher.embed, teacher.key, cache_dir=args.cache_dir)
    if args.distillation_weight is not None:
        options = replace(options, weight=args.distillation_weight)
    if args.hard_negatives is not None:
        options = replace(options, num_hard_negatives=args.hard_negatives)
    return options


def _train_bert(
    args: argparse.Namespace,
    architecture: Architecture,
    data: BertData,
    mlm: MlmOptions,
    contrastive: ContrastiveOptions,
    distillation: DistillationOptions | None,
    recipe: str,
) -> None:
    with recorded(args, recipe, args.max_tokens) as processes:
        progress = train_bert(
            architecture,
            data,
            mlm,
            contrastive,
            args.run_dir,
            dropout=args.dropout,
            device=args.device,
            precision=args.precision,
            init_from=args.init_from,
            distillation=distillation,
            processes=processes,
            tensorboard=args.tensorboard,
        )
    if processes.is_first:
        print(f"{args.run_dir}: finished with best mean accuracy {progress.best:.4f}")
