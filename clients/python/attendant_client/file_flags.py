"""The flags of `attendant` for files: what is read, what is written, and how."""

import argparse
import os

from attendant_client.bulk_lines import BULK_BATCH_SIZE
from attendant_client.flag_types import count
from attendant_client.growing_files import VECTORS

BATCH_SIZE = 32


def add_file_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of commands that read lines."""
    parser.add_argument(
        "--input",
        metavar="PATH",
        help="read the lines of this file, or of all files of this folder; .gz is decompressed",
    )
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="write to this new file, or for a folder to files of the same names in this new "
        "folder, and show the progress; .gz is compressed; embed writes FILE.npy for NumPy",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted run with the same input and options",
    )
    parser.add_argument(
        "--batch-size",
        type=count,
        metavar="N",
        help=f"texts in one call; default {BATCH_SIZE}, or {BULK_BATCH_SIZE} in a bulk call",
    )
    parser.add_argument(
        "--parallel",
        type=count,
        metavar="N",
        help="calls at a time for --input; default: twice the servers of the target, at least 4",
    )


def check_file_flags(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Check the flags that depend on each other. Wrong ones end the process with code 2."""
    is_numpy = (arguments.output or "").endswith(VECTORS)
    is_folder = arguments.input is not None and os.path.isdir(arguments.input)
    if arguments.texts and arguments.input is not None:
        parser.error("texts and --input do not work together")
    if arguments.resume and (arguments.texts or arguments.output is None):
        parser.error("--resume takes --output, and lines as input")
    if is_numpy and getattr(arguments, "data_type", "") in ("int8", "uint8"):
        parser.error("a .npy file has no scales: --json has those of int8 and uint8")
    if is_numpy and (arguments.command != "embed" or arguments.json):
        parser.error("only embed writes .npy files, and without --json")
    if is_folder:
        _check_folders(parser, arguments.input, arguments.output)


def _check_folders(parser: argparse.ArgumentParser, source: str, output: str | None) -> None:
    if output is None or output.endswith(VECTORS):
        parser.error("--input: a folder needs another folder as --output")
    if os.path.exists(output) and not os.path.isdir(output):
        parser.error("--output must be a folder if --input is one")
    folders = os.path.realpath(source), os.path.realpath(output)
    if os.path.commonpath(folders) == folders[0]:
        parser.error("--output must not be in the folder of --input")
