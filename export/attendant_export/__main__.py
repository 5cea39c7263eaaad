"""The ``attendant-export`` command: turns arguments into trainings, bundles and messages."""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from attendant_export import __version__
from attendant_export.arguments import build_parser
from attendant_export.bundle.controls import read_control
from attendant_export.bundle.data_card import check_credits, read_data_card
from attendant_export.bundle.description import describe_manifest
from attendant_export.bundle.export import ExportOptions, export_bundle
from attendant_export.bundle.glossaries import read_glossaries
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_export.bundle.manifest import BundleError, read_manifest
from attendant_export.bundle.original import verify_against
from attendant_export.bundle.rebuild import rebuild_bundle
from attendant_export.bundle.signing import sign_bundle
from attendant_export.bundle.upgrade import upgrade_bundle
from attendant_export.bundle.verify import verify_bundle
from attendant_export.data.augmentation import parse_augmentation
from attendant_export.data.bert_text import BertData
from attendant_export.data.pair_filters import LengthFilters, parse_text_filters
from attendant_export.data.translation_data import TranslationData
from attendant_export.data_arguments import data_file, extra_pairs, pair_source, text_source
from attendant_export.graphs.attention import check_decoder_heads
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.models.shapes import bert, transformer
from attendant_export.runs.records import DataSource, RunRecord, read_run_record, write_run_record
from attendant_export.train.bert import ContrastiveOptions, MlmOptions, train_bert
from attendant_export.train.device import pick_device
from attendant_export.train.distributed import ProcessGroup, join_processes
from attendant_export.train.loop import TrainingOptions, TrainingStopped
from attendant_export.train.recipes import bert_recipe, describe_hardware, translation_recipe
from attendant_export.train.start import describe_start
from attendant_export.train.translation import train_translation
from attendant_export.training_arguments import DEFAULT_TEXTS, TATOEBA_TRAIN, TATOEBA_VALID
from attendant_export.verify.graph_sessions import GraphError, ParityError

DEFAULT_EPOCHS = 5
"""Epochs of a training without any limit."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. An expected error prints one line and sets the exit code.

    1: a bundle is damaged or cannot be written, or its graphs differ from the model; 2: any other
    error of the input; 130 or 143: SIGINT or SIGTERM stopped a training.
    """
    args = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    commands = {
        "train-translation": _train_translation,
        "train-bert": _train_bert,
        "export": _export,
        "import": _import,
        "verify": _verify,
        "inspect": _inspect,
        "sign": _sign,
        "upgrade": _upgrade,
        "rebuild": _rebuild,
    }
    try:
        commands[args.command](args)
    except TrainingStopped as stopped:
        sys.exit(_fail(stopped, 128 + stopped.stopped_by))
    except (BundleError, GraphError, ParityError) as error:
        sys.exit(_fail(error, 1))
    except (CheckpointError, ValueError, OSError) as error:
        sys.exit(_fail(error, 2))


def _fail(error: Exception, code: int) -> int:
    message = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        message = f"{error.filename}: {error.strerror}"
    print(f"attendant-export: {message}", file=sys.stderr)
    return code


def _training_options(args: argparse.Namespace, prefix: str = "") -> TrainingOptions:
    names = (
        "max_minutes",
        "max_epochs",
        "max_steps",
        "validate_every_steps",
        "patience",
        "learning_rate",
        "warmup_steps",
    )
    values = {name: getattr(args, prefix + name) for name in names}
    if values["max_minutes"] is values["max_epochs"] is values["max_steps"] is None:
        values["max_epochs"] = DEFAULT_EPOCHS
    return TrainingOptions(**values, seed=args.seed)


def _optional_phase(args: argparse.Namespace, prefix: str) -> TrainingOptions | None:
    """The options of a phase that runs only if one of its limits is given, else None."""
    limits = [getattr(args, f"{prefix}max_{unit}") for unit in ("minutes", "epochs", "steps")]
    return None if limits == [None] * 3 else _training_options(args, prefix)


@contextmanager
def _recorded(
    args: argparse.Namespace, recipe: str, max_tokens: int | None = None
) -> Iterator[ProcessGroup]:
    """Join the processes of a training. Only the first one writes the run record and logs."""
    with join_processes(pick_device(args.device)) as processes:
        if processes.is_first:
            write_run_record(args.run_dir, _record(args, recipe, max_tokens, processes.size))
        else:
            logging.disable(logging.INFO)
        yield processes


def _record(
    args: argparse.Namespace, recipe: str, max_tokens: int | None, num_processes: int
) -> RunRecord:
    start_data: list[DataSource] = []
    if args.init_from is not None:
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


@contextmanager
def _naming_widths(args: argparse.Namespace) -> Iterator[None]:
    """Add the options that determine the width of heads to the error for a bad width."""
    try:
        yield
    except ValueError as error:
        widths = f"--d-model {args.d_model}, --num-heads {args.num_heads}"
        raise ValueError(f"{widths}: {error}") from error


def _train_translation(args: argparse.Namespace) -> None:
    with _naming_widths(args):
        architecture = transformer(
            vocab_size=args.vocab_size,
            d_model=args.d_model,
            num_heads=args.num_heads,
            d_feed_forward=args.d_feed_forward,
            num_encoder_layers=args.num_encoder_layers,
            num_decoder_layers=args.num_decoder_layers,
            norm_first=not args.post_norm,
        )
        check_decoder_heads(architecture)
    data = TranslationData(
        tuple(pair_source(args, text) for text in args.train or [TATOEBA_TRAIN]),
        data_file(args, args.valid),
        swap=args.swap,
        extra=tuple(extra_pairs(args, text) for text in args.extra_pairs),
        temperature=args.temperature,
        text_filters=parse_text_filters(args.filter),
        length_filters=LengthFilters(max_ratio=args.max_length_ratio),
        augmentation=parse_augmentation(args.augment),
        vocab_size=args.vocab_size,
        max_batch_tokens=args.max_batch_tokens,
        cache_dir=args.cache_dir,
    )
    options = _training_options(args)
    recipe = translation_recipe(architecture, args.dropout, data, options, args.label_smoothing)
    with _recorded(args, recipe) as processes:
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
        )
    if processes.is_first:
        metric = "mean of both BLEU figures" if data.augmentation else "BLEU"
        print(f"{args.run_dir}: finished with best {metric} {progress.best:.2f}")


def _train_bert(args: argparse.Namespace) -> None:
    with _naming_widths(args):
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
        seed=args.seed,
    )
    mlm = MlmOptions(_optional_phase(args, "mlm_"), args.max_batch_tokens, args.mask_ratio)
    contrastive = ContrastiveOptions(
        _training_options(args, "contrastive_"),
        args.max_pairs,
        args.temperature,
        mlm_weight=args.mlm_weight,
        embedding_training=_optional_phase(args, "embeddings_"),
    )
    recipe = bert_recipe(architecture, args.dropout, data, mlm, contrastive)
    with _recorded(args, recipe, args.max_tokens) as processes:
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
            processes=processes,
        )
    if processes.is_first:
        print(f"{args.run_dir}: finished with best mean accuracy {progress.best:.4f}")


def _export(args: argparse.Namespace) -> None:
    if not args.run_dir.is_dir():
        raise FileNotFoundError(f"{args.run_dir}: no such run folder")
    record = read_run_record(args.run_dir)
    card = read_data_card(args.data_card)
    check_credits(card, record)
    valid = args.valid or record.valid_pairs or TATOEBA_VALID
    options = ExportOptions(
        name=args.name or args.run_dir.resolve().name,
        version=args.model_version,
        data_card=card,
        valid_pairs=data_file(args, valid),
        test_pairs=tuple(data_file(args, name) for name in args.test),
        swap=args.swap or record.swap,
        precisions=tuple(args.precisions.split(",")),
        max_tokens=args.max_tokens,
        recipe=args.recipe,
        hardware=args.hardware,
        shortlist_pairs=data_file(args, args.shortlists) if args.shortlists else None,
        controls=tuple(map(read_control, args.control)),
        glossaries=read_glossaries(args.glossary),
    )
    print(export_bundle(args.run_dir, args.bundles_dir, options))


def _import(args: argparse.Namespace) -> None:
    options = ImportOptions(
        name=args.name,
        version=args.model_version,
        precisions=tuple(args.precisions.split(",")),
        license=args.license,
        languages=_tags(args.languages),
        source_languages=_tags(args.source_languages),
        target_languages=_tags(args.target_languages),
        max_tokens=args.max_tokens,
        revision=args.revision,
        tokenizer=args.tokenizer,
        trained_dimensions=_numbers(args.trained_dimensions),
        controls=tuple(map(read_control, args.control)),
        glossaries=read_glossaries(args.glossary),
        without_head=args.without_head,
    )
    print(import_bundle(args.source, args.bundles_dir, options))


def _tags(listed: str | None) -> tuple[str, ...] | None:
    return tuple(listed.split(",")) if listed else None


def _numbers(listed: str | None) -> tuple[int, ...] | None:
    try:
        return tuple(map(int, listed.split(","))) if listed else None
    except ValueError:
        raise ValueError(f"--trained-dimensions {listed}: want integers like 64,128") from None


def _verify(args: argparse.Namespace) -> None:
    print("\n".join(verify_bundle(args.bundle)))
    if args.against is not None:
        print("\n".join(verify_against(args.bundle, args.against)))


def _upgrade(args: argparse.Namespace) -> None:
    print(upgrade_bundle(args.bundle))


def _rebuild(args: argparse.Namespace) -> None:
    glossaries = read_glossaries(args.glossary)
    print("\n".join(rebuild_bundle(args.bundle, args.only, glossaries)))


def _sign(args: argparse.Namespace) -> None:
    print(sign_bundle(args.bundle, args.key))


def _inspect(args: argparse.Namespace) -> None:
    print(describe_manifest(read_manifest(args.bundle)))


if __name__ == "__main__":
    main()
