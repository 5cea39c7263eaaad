"""The arguments of the command that trains classification heads."""

import argparse
from pathlib import Path

from attendant_export.data.labelled_texts import CLASSIFY, COLUMNS, TASKS
from attendant_export.ranges import share_below_one, whole
from attendant_export.train.encoder_start import POOLINGS
from attendant_export.training_arguments import add_precision, add_run_folder, add_schedule


def add_train_classifier(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train-classifier``."""
    add_run_folder(parser, valid=None)
    parser.add_argument(
        "--init-from",
        type=Path,
        required=True,
        help="run folder or bundle of an embedding model, also an imported one, that gives the "
        "encoder and its tokenizer; other heads are left out; after a start from a bundle, the "
        "data card of an export must also list the data of the bundle",
    )
    add_precision(parser)
    columns = "; ".join(f"{task}: {each}" for task, each in COLUMNS.items())
    parser.add_argument(
        "--train",
        required=True,
        metavar="FILE",
        help="training lines, plain or .gz, .xz or .bz2, with tabs between their columns. "
        f"{columns}",
    )
    parser.add_argument(
        "--task",
        choices=TASKS,
        default=CLASSIFY,
        help="classify: a label for a text; entailment: a label for a pair of texts; similarity: a "
        "score for a pair; multiple-choice: the right one of the choices for a context",
    )
    parser.add_argument(
        "--pooling",
        choices=POOLINGS,
        default="mean",
        help="what the head reads: the mean of the states of all tokens, or that of the CLS token",
    )
    parser.add_argument("--dropout", type=share_below_one, default=0.1, help="dropout probability")
    parser.add_argument(
        "--max-tokens",
        type=whole(2),
        help="limit of tokens of a text or a pair; default: that of --init-from",
    )
    add_schedule(parser)
    parser.add_argument(
        "--max-batch-tokens", type=whole(1), default=2048, help="padded tokens of a batch"
    )
    parser.set_defaults(learning_rate=1e-4, warmup_steps=50, validate_every_steps=100)
