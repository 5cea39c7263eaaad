"""The data files of commands, some of which have a number or a name in their argument."""

import argparse
import re
from pathlib import Path

from attendant_export.data.bert_text import TextSource
from attendant_export.data.text_choice import ChosenFile, TextChoice, split_choice
from attendant_export.data.translation_data import ExtraPairs, ExtraValidation, PairSource

MAX_REPEATS = 1000
"""Limit of the repeats of further training pairs in an epoch."""


def data_file(args: argparse.Namespace, name: str, or_folder: bool = False) -> Path:
    """The path of a data file.

    Raises ValueError if it does not exist or has no base folder, and for an empty name, which would
    be that folder.
    """
    if not name:
        raise ValueError("a data file has an empty name")
    if args.data_dir is None and not Path(name).is_absolute():
        raise ValueError(f"{name} needs a base folder: --data-dir or DATA_DIR")
    path = Path(args.data_dir or "", name)
    if not (path.is_file() or or_folder and path.is_dir()):
        raise ValueError(f"{path}: no such file{' or folder' if or_folder else ''}")
    return path


def chosen_file(args: argparse.Namespace, option: str, text: str) -> ChosenFile:
    """Read ``FILE[;NAME=VALUE]...``. Raises ValueError that names what is wrong."""
    name, choice = _split(option, text)
    return ChosenFile(data_file(args, name), choice)


def pair_source(args: argparse.Namespace, text: str) -> PairSource:
    """Read ``FILE[:WEIGHT][;NAME=VALUE]...`` of ``--train``.

    Raises ValueError that names what is wrong.
    """
    text, choice = _split("--train", text)
    name, colon, number = text.rpartition(":")
    if not colon:
        return PairSource(data_file(args, text, or_folder=True), choice=choice)
    try:
        weight = float(number)
    except ValueError:
        raise ValueError(f"--train {text}: want FILE[:WEIGHT], a number") from None
    return PairSource(data_file(args, name, or_folder=True), weight, choice)


def extra_pairs(args: argparse.Namespace, text: str) -> ExtraPairs:
    """Read ``FILE[:REPEATS][;NAME=VALUE]...`` of ``--extra-pairs``.

    Raises ValueError that names what is wrong.
    """
    text, choice = _split("--extra-pairs", text)
    name, colon, number = text.rpartition(":")
    if not colon:
        return ExtraPairs(data_file(args, text, or_folder=True), choice=choice)
    if not number.isdecimal() or not 1 <= int(number) <= MAX_REPEATS:
        raise ValueError(f"--extra-pairs {text}: want FILE[:REPEATS], repeats 1 to {MAX_REPEATS}")
    return ExtraPairs(data_file(args, name, or_folder=True), int(number), choice)


def extra_validation(args: argparse.Namespace, text: str) -> ExtraValidation:
    """Read ``NAME=FILE[;NAME=VALUE]...`` of ``--extra-valid``.

    Raises ValueError that names what is wrong.
    """
    text, choice = _split("--extra-valid", text)
    name, equals, file = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"--extra-valid {text}: want NAME=FILE, letters, digits, - and _ as NAME")
    return ExtraValidation(name, data_file(args, file), choice)


def _split(option: str, text: str) -> tuple[str, TextChoice]:
    try:
        return split_choice(text)
    except ValueError as error:
        raise ValueError(f"{option} {error}") from None


def text_source(args: argparse.Namespace, text: str) -> TextSource:
    """Read ``FILE[:MAX_CHARACTERS[:HELD_OUT]]`` of ``--text``. Raises ValueError that names it."""
    name, *numbers = text.split(":")
    kinds = (("max_characters", int), ("held_out_documents", float))
    try:
        if len(numbers) > len(kinds):
            raise ValueError
        named = {field: kind(value) for (field, kind), value in zip(kinds, numbers, strict=False)}
    except ValueError:
        raise ValueError(f"--text {text}: want FILE[:MAX_CHARACTERS[:HELD_OUT]]") from None
    return TextSource(data_file(args, name), **named)
