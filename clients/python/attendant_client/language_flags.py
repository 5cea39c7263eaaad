"""The flags of `attendant translate` and `score` for languages and controls."""

from argparse import ArgumentParser, ArgumentTypeError

AUTO = "auto"
"""Stands for the language of each text, alone or before a colon and the possible languages."""


def add_language_flags(parser: ArgumentParser, detects: bool = False) -> None:
    """Add the flags that choose what a model translates from and to.

    ``detects``: whether the command can detect the source languages of its texts.
    """
    usual = 'language, such as "de"; default: the only one of the model'
    auto = f'; "{AUTO}": that of each text, "{AUTO}:de,en": one of these' if detects else ""
    parser.add_argument(
        "--from",
        dest="source_language",
        default="",
        type=_source if detects else _tag,
        metavar="TAG",
        help=f"source {usual}{auto}",
    )
    parser.add_argument(
        "--to",
        dest="target_language",
        default="",
        type=_tag,
        metavar="TAG",
        help=f"target {usual}",
    )


def add_control_flags(parser: ArgumentParser) -> None:
    """Add the flag that chooses values of controls."""
    parser.add_argument(
        "--control",
        action="append",
        default=[],
        type=_control,
        metavar="NAME=VALUE",
        help='control of the model, such as "formality=formal"; may be repeated',
    )


def _source(text: str) -> str:
    name, sign, candidates = text.partition(":")
    if name == AUTO and sign and not all(candidates.split(",")):
        raise ArgumentTypeError(f"{text} is not of the form {AUTO}:TAG,TAG")
    return text


def _tag(text: str) -> str:
    if text.partition(":")[0] == AUTO:
        raise ArgumentTypeError(f"{AUTO} is for the source language of translate only")
    return text


def _control(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise ArgumentTypeError(f"{text} is not of the form NAME=VALUE")
    return name, value
