"""The flags of `attendant translate` for glossaries."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path

from attendant_glossaries import MAX_FILE_BYTES, GlossaryFault, parsed_entries


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


def _entries(name: str) -> dict[str, Sequence[str]]:
    """The entries of a file, by the rules of the server's glossaries.

    If a term repeats, its last entry counts.
    """
    try:
        with Path(name).open("rb") as file:
            entries = parsed_entries(file.read(MAX_FILE_BYTES + 1))
    except OSError as error:
        raise ArgumentTypeError(f"{name} cannot be read: {error}") from None
    except GlossaryFault as fault:
        raise ArgumentTypeError(f"{name}: {fault}") from None
    return {entry.source: entry.targets for entry in entries}
