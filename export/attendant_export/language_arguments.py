"""The arguments of the commands that train on plain text: language models and word vectors."""

import argparse
from pathlib import Path

from attendant_export.data.cooccurrences import WINDOW
from attendant_export.data.skip_grams import SkipGramOptions
from attendant_export.graphs.attention import ROTATED_MULTIPLE
from attendant_export.ranges import positive, share, whole
from attendant_export.runs.config import GLOVE, SKIP_GRAM
from attendant_export.train.word_vectors import LEARNING_RATE
from attendant_export.training_arguments import add_run, add_run_folder, add_schedule, add_sizes


def _add_text(parser: argparse.ArgumentParser) -> None:
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


def add_train_language_model(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train-language-model``."""
    add_run(parser, valid=None)
    _add_text(parser)
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


def add_train_word_vectors(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train-word-vectors``."""
    add_run_folder(parser, valid=None)
    _add_text(parser)
    parser.add_argument(
        "--objective",
        choices=(SKIP_GRAM, GLOVE),
        default=SKIP_GRAM,
        help="skip-gram: tell the words near a word from words drawn at random (word2vec); glove: "
        "estimate how often words occur near each other",
    )
    parser.add_argument("--dimensions", type=whole(1, 4096), default=256, help="length of vectors")
    parser.add_argument(
        "--max-words", type=whole(1), default=50_000, help="number of words, the most frequent ones"
    )
    parser.add_argument(
        "--min-count",
        type=whole(1),
        default=5,
        help="occurrences in --train that a word must have; others are unknown",
    )
    parser.add_argument(
        "--keep-case", action="store_true", help="tell capitals from small letters in words"
    )
    _add_pairs_of_words(parser)
    parser.add_argument(
        "--sif-coefficient",
        type=positive,
        default=1e-3,
        metavar="FREQUENCY",
        help="frequency of a word that has half the weight of a very rare one in the vector of a "
        "text; larger: weights are more equal",
    )
    parser.add_argument(
        "--equal-weights",
        action="store_true",
        help="all words have the weight 1 in the vector of a text, and the lengths of their "
        "vectors are those of the training",
    )
    add_schedule(parser, learning_rate=LEARNING_RATE, validate_every_steps=10_000)


def _add_pairs_of_words(parser: argparse.ArgumentParser) -> None:
    usual = SkipGramOptions()
    parser.add_argument(
        "--window",
        type=whole(1, 1000),
        help="largest distance of words that are near each other; for skip-gram, that of each word "
        f"is drawn from 1 to this; default: {usual.window} for skip-gram, {WINDOW} for glove",
    )
    parser.add_argument(
        "--negatives",
        type=whole(1, 1000),
        help="words drawn at random for each pair, for skip-gram only; default: "
        f"{usual.num_negatives}",
    )
    parser.add_argument(
        "--subsampling",
        type=share,
        metavar="FREQUENCY",
        help="frequency of words from which on some of their occurrences are left out, for "
        f"skip-gram only; 0: none are; default: {usual.subsampling:g}",
    )
    parser.add_argument(
        "--max-pairs", type=whole(1), default=usual.max_pairs, help="pairs of words of a batch"
    )
