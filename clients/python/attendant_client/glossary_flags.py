"""The flags of `attendant translate` for glossaries."""

from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path


def add_glossary_flags(parser: ArgumentParser) -> None:
    """Add the flags that choose the glossary of a translation."""
    parser.add_argument(
        "--glossary",
        default="",
        metavar="NAME",
        help="glossary of the server or of the model, whose terms the translations must have",
    )
    parser.add_argument(
        "--glossary-file",
        dest="glossary_entries",
        default={},
        type=_entries,
        metavar="FILE",
        help="further entries: on each line a term and its translations, separated by tabs",
    )


def _entries(name: str) -> dict[str, list[str]]:
    """The entries of a file, in the format of the server's glossaries."""
    try:
        with Path(name).open(encoding="utf-8-sig") as file:
            lines = [line.rstrip() for line in file if not line.startswith("#")]
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentTypeError(f"{name} cannot be read: {error}") from None
    columns = [line.split("\t") for line in lines if line]
    for source, *targets in columns:
        if not targets:
            raise ArgumentTypeError(f"{name}: {source} has no translation after a tab")
    return {source: targets for source, *targets in columns}
