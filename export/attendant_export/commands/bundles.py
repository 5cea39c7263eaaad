"""The commands that write, check and show bundles."""

import argparse

import torch

from attendant_export.bundle.controls import read_control
from attendant_export.bundle.data_card import check_credits, read_data_card
from attendant_export.bundle.description import describe_manifest
from attendant_export.bundle.export import ExportOptions, export_bundle
from attendant_export.bundle.glossaries import read_glossaries
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_export.bundle.manifest import read_manifest
from attendant_export.bundle.original import verify_against
from attendant_export.bundle.rebuild import rebuild_bundle
from attendant_export.bundle.signing import sign_bundle
from attendant_export.bundle.static_distillation import StaticOptions, distill_static
from attendant_export.bundle.upgrade import upgrade_bundle
from attendant_export.bundle.verify import verify_bundle
from attendant_export.commands.data_files import chosen_file, data_file
from attendant_export.runs.records import read_run_record
from attendant_export.train.recipes import describe_hardware
from attendant_export.training_arguments import TATOEBA_VALID


def run_export(args: argparse.Namespace) -> None:
    """Write the bundle of a run."""
    if not args.run_dir.is_dir():
        raise FileNotFoundError(f"{args.run_dir}: no such run folder")
    record = read_run_record(args.run_dir)
    card = read_data_card(args.data_card)
    check_credits(card, record)
    valid = chosen_file(args, "--valid", args.valid or record.valid_pairs or TATOEBA_VALID)
    options = ExportOptions(
        name=args.name or args.run_dir.resolve().name,
        version=args.model_version,
        data_card=card,
        valid_pairs=valid.path,
        valid_choice=valid.choice,
        test_pairs=tuple(chosen_file(args, "--test", text) for text in args.test),
        swap=args.swap or record.swap,
        precisions=tuple(args.precisions.split(",")),
        max_tokens=args.max_tokens,
        recipe=args.recipe,
        hardware=args.hardware,
        num_averaged=args.average,
        shortlist_pairs=data_file(args, args.shortlists) if args.shortlists else None,
        controls=tuple(map(read_control, args.control)),
        glossaries=read_glossaries(args.glossary),
    )
    print(export_bundle(args.run_dir, args.bundles_dir, options))


def run_distill_static(args: argparse.Namespace) -> None:
    """Write the bundle of static embeddings that a bundle teaches."""
    options = StaticOptions(
        name=args.name,
        version=args.model_version,
        precisions=tuple(args.precisions.split(",")),
        dimensions=args.dimensions,
        texts=tuple(data_file(args, name, or_folder=True) for name in args.text),
        coefficient=args.sif_coefficient,
        test_pairs=tuple(data_file(args, name) for name in args.test),
        max_tokens=args.max_tokens,
        hardware=describe_hardware(torch.device("cpu")),
    )
    print(distill_static(args.teacher, args.bundles_dir, options))


def run_import(args: argparse.Namespace) -> None:
    """Write the bundle of a checkpoint of another project."""
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
        max_words=args.max_words,
    )
    print(import_bundle(args.source, args.bundles_dir, options))


def _tags(listed: str | None) -> tuple[str, ...] | None:
    return tuple(listed.split(",")) if listed else None


def _numbers(listed: str | None) -> tuple[int, ...] | None:
    try:
        return tuple(map(int, listed.split(","))) if listed else None
    except ValueError:
        raise ValueError(f"--trained-dimensions {listed}: want integers like 64,128") from None


def run_verify(args: argparse.Namespace) -> None:
    """Verify a bundle, also against its source."""
    print("\n".join(verify_bundle(args.bundle)))
    if args.against is not None:
        print("\n".join(verify_against(args.bundle, args.against)))


def run_upgrade(args: argparse.Namespace) -> None:
    """Rewrite the manifest of an older bundle."""
    print(upgrade_bundle(args.bundle))


def run_rebuild(args: argparse.Namespace) -> None:
    """Write new graphs for an older bundle."""
    glossaries = read_glossaries(args.glossary)
    print("\n".join(rebuild_bundle(args.bundle, args.only, glossaries)))


def run_sign(args: argparse.Namespace) -> None:
    """Sign the manifest of a bundle."""
    print(sign_bundle(args.bundle, args.key))


def run_inspect(args: argparse.Namespace) -> None:
    """Print the manifest of a bundle."""
    print(describe_manifest(read_manifest(args.bundle)))
