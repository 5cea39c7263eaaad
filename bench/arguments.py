"""The command lines of the benches: each has a `build_parser` that starts here."""

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path


def bench_parser(description: str | None, *, reads_data: bool = True) -> argparse.ArgumentParser:
    """A parser that shows the bench's own docstring, with ``--data-dir`` if it reads data."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if reads_data:
        default = os.environ.get("DATA_DIR")
        parser.add_argument(
            "--data-dir",
            type=Path,
            default=default,
            required=not default,
            help="folder of the data; environment DATA_DIR",
        )
    return parser


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Give a bench ``--server-flags``, which start its server."""
    parser.add_argument(
        "--server-flags", type=str.split, default=[], help="for our server, separated by blanks"
    )


def some_of(*known: str) -> Callable[[str], list[str]]:
    """The type of an argument that lists names, separated by commas; ``known`` are patterns."""

    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if not any(re.fullmatch(pattern, name) for pattern in known):
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return names

    return parse
