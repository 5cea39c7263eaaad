"""The arguments of the command that translates a corpus."""

import argparse
from pathlib import Path

from attendant_client.connection_flags import add_connection_flags

from attendant_export.data.pair_filters import LengthFilters
from attendant_export.ranges import Range, positive, whole
from attendant_export.training_arguments import add_data_dir

MAX_TOP_K = 256
LOG_PROBABILITY = Range(float, -1000, 0, "from -1000 to 0")


def add_translate_corpus(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``translate-corpus``."""
    add_data_dir(parser)
    parser.add_argument(
        "--text",
        action="append",
        required=True,
        metavar="FILE",
        help="text to translate, one text on each line: a file, plain or .gz, .xz or .bz2, or a "
        "folder of such files; may be repeated",
    )
    parser.add_argument(
        "--column",
        type=whole(1),
        help="translate this column, from 1, of lines with tabs between columns, such as 1 for the "
        "sources of training pairs",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="new file of pairs, plain or .gz, for --train or --extra-pairs of train-translation; "
        "the same command continues an interrupted one",
    )
    parser.add_argument(
        "--backward",
        action="store_true",
        help="write translation<TAB>text instead of text<TAB>translation: for back-translation",
    )
    _add_model(parser)
    _add_search(parser)
    _add_selection(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument(
        "--bundle",
        type=Path,
        help="folder of the bundle that translates, .../<name>/<version>, by a server that runs "
        "only for this command; needs attendant-server",
    )
    place.add_argument("--target", help="host:port of a running server, or grpcs://host:port")
    parser.add_argument("--model", help="with --target: name or name/version of the model")
    for side in ("source", "target"):
        parser.add_argument(
            f"--{side}-language",
            default="",
            help=f"BCP 47 tag of the {side} language, for models of several languages",
        )
    parser.add_argument(
        "--num-threads",
        type=whole(1),
        help="with --bundle: threads of the server; default: one for each core",
    )
    add_connection_flags(parser, suppress=False)


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--beam-size", type=whole(1), help="beam size, 1 for greedy search; default: the model's"
    )
    parser.add_argument(
        "--sampling-temperature",
        type=positive,
        help="draw tokens at random with this temperature instead of searching, so that "
        "back-translations vary; 1 is the distribution of the model",
    )
    parser.add_argument(
        "--top-k",
        type=whole(1, MAX_TOP_K),
        help="with --sampling-temperature: draw only this many of the likeliest tokens; default: "
        "the server's",
    )
    parser.add_argument(
        "--seed", type=whole(0, 2**32 - 1), default=1, help="seed of the random choices"
    )


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min-score",
        type=LOG_PROBABILITY,
        help="leave out translations whose tokens have a lower mean log-probability, such as -1; "
        "the report at the end says how many translations are below which score",
    )
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="KIND",
        help="leave out copies (text and translation are the same), duplicates (texts that came "
        "before, which are not translated), or languages:SOURCE-TARGET of the pairs, such as "
        "languages:en-de (a side is in another language; needs the extra detection); may be "
        "repeated",
    )
    parser.add_argument(
        "--max-length-ratio",
        type=positive,
        help="leave out pairs of which one side has more than this many tokens of the model for "
        "each token of the other",
    )
    parser.add_argument(
        "--max-tokens",
        type=whole(2),
        default=LengthFilters().max_tokens,
        help="leave out pairs of which a side has more tokens of the model",
    )
    parser.add_argument(
        "--skip-bad-lines",
        action="store_true",
        help="leave out lines that are no text, and count them, instead of refusing to translate: "
        "those that are not UTF-8, have tabs without --column, or lack the column",
    )
