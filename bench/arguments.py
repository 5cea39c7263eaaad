"""Command-line arguments that several benches share. Each bench has its own `build_parser`."""

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path


def bench_parser(description: str | None, *, reads_data: bool = True) -> argparse.ArgumentParser:
    """A parser with the bench's docstring as description, and ``--data-dir`` if it reads data."""
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
            help="folder of the benchmark data; environment DATA_DIR",
        )
    return parser


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--server-flags``, the flags of the bench's server."""
    parser.add_argument(
        "--server-flags", type=str.split, default=[], help="flags for attendant, space-separated"
    )


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add ``--target``, a server that runs already; see `bench.servers.given_server`."""
    parser.add_argument("--target", help="address of a running server; default: start one")


def some_of(*known: str) -> Callable[[str], list[str]]:
    """A parser for a comma-separated list of names that match one of the patterns ``known``."""

    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if not any(re.fullmatch(pattern, name) for pattern in known):
                raise argparse.ArgumentTypeError(f"{name} is not one of {', '.join(known)}")
        return names

    return parse
