"""The arguments of the command that trains language models."""

import argparse
from pathlib import Path

from attendant_export.graphs.attention import ROTATED_MULTIPLE
from attendant_export.ranges import whole
from attendant_export.training_arguments import add_run, add_schedule, add_sizes


def add_train_language_model(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train-language-model``."""
    add_run(parser, valid=None)
    parser.add_argument(
        "--train",
        action="append",
        required=True,
        metavar="FILE",
        help="training text, one document on each line: a file, plain or .gz, .xz or .bz2, or a "
        "folder of such files; may be repeated",
    )
    parser.add_argument(
        "--whole-files",
        action="store_true",
        help="each file of --train and --valid is one document, with its line ends",
    )
    parser.add_argument(
        "--cache-dir",
        type=Path,
        help="folder of encoded text, which several runs may share; default: data in --run-dir",
    )
    add_sizes(parser, vocab_size=8000, num_heads=4, head_dim_multiple=ROTATED_MULTIPLE)
    parser.add_argument(
        "--num-key-value-heads",
        type=whole(1),
        help="heads of keys and values, a divisor of --num-heads; default: --num-heads",
    )
    parser.add_argument("--num-layers", type=whole(1), default=6, help="layers")
    parser.add_argument(
        "--max-tokens",
        type=whole(2),
        default=256,
        help="tokens of a training sequence, and the limit of a prompt and its continuation in "
        "the bundle",
    )
    add_schedule(parser)
    parser.add_argument("--max-batch-tokens", type=whole(1), default=4096, help="tokens of a batch")
