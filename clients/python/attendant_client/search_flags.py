"""The flags of `attendant translate` for the search and for samples."""

from argparse import ArgumentParser, BooleanOptionalAction, Namespace

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed")
"""Options of a sample."""


def add_search_flags(parser: ArgumentParser) -> None:
    """Add the flags of the search for translations, and of samples."""
    parser.add_argument(
        "--no-repeat-ngram-size", type=int, metavar="N", help="n-grams that come once only; 0: none"
    )
    parser.add_argument(
        "--suppress",
        action="append",
        default=[],
        metavar="TEXT",
        help="the text of a token that must not come; may be repeated",
    )
    parser.add_argument(
        "--allow-unknown",
        action=BooleanOptionalAction,
        help="whether the unknown token may come; default: the model's",
    )
    parser.add_argument(
        "--replace-unknown",
        action="store_true",
        help="replace unknown tokens by the source text that is aligned to them",
    )
    parser.add_argument("--target-prefix", metavar="TEXT", help="the beginning of each translation")
    parser.add_argument(
        "--target-prefix-bias",
        type=float,
        metavar="X",
        help="make that beginning only likelier, by X in the log-probabilities of its tokens",
    )
    parser.add_argument("--repetition-penalty", type=float, metavar="X", help="1 for none")
    parser.add_argument("--patience", type=float, metavar="X", help="of a beam search; default 1")
    parser.add_argument(
        "--coverage-penalty", type=float, metavar="X", help="of a beam search; default 0"
    )
    parser.add_argument(
        "--beam-groups", type=int, metavar="N", help="groups of a diverse beam search; default 1"
    )
    parser.add_argument(
        "--diversity-penalty", type=float, metavar="X", help="of --beam-groups; default 0.5"
    )
    parser.add_argument(
        "--alternatives",
        action="store_true",
        help="hypotheses with different tokens after the prefix, or at the beginning",
    )
    parser.add_argument("--sample", action="store_true", help="draw tokens at random")
    for name in SAMPLING:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int if name in ("top_k", "seed") else float,
            metavar="X",
            help="of --sample; default: the server's",
        )


def check_search_flags(parser: ArgumentParser, arguments: Namespace) -> None:
    """Check the flags that depend on each other. Wrong ones end the process with code 2."""
    given = [name for name in SAMPLING if getattr(arguments, name) is not None]
    if given and not arguments.sample:
        parser.error(f"--{given[0].replace('_', '-')} works with --sample only")
