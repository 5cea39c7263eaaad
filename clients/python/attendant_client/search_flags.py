"""The flags of `attendant translate` and `attendant generate` for the search and for samples."""

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Sequence
from typing import Any

from attendant_client.flag_types import count
from attendant_client.input_lines import Line
from attendant_client.options import Sampling

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed")
"""Options of a sample."""


def add_translation_flags(parser: ArgumentParser) -> None:
    """Add the flags of the search for translations that other searches do not have."""
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
    parser.add_argument(
        "--coverage-penalty", type=float, metavar="X", help="of a beam search; default 0"
    )
    parser.add_argument(
        "--alternatives",
        action="store_true",
        help="hypotheses with different tokens after the prefix, or at the beginning",
    )


def add_search_flags(parser: ArgumentParser) -> None:
    """Add the flags of any search, and of samples."""
    parser.add_argument(
        "--beam", type=count, metavar="N", help="beam size, 1 for greedy; default: the model's"
    )
    parser.add_argument("--num-hypotheses", type=count, metavar="N", help="hypotheses per text")
    parser.add_argument("--max-output-tokens", type=count, metavar="N", help="output limit")
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
    parser.add_argument("--repetition-penalty", type=float, metavar="X", help="1 for none")
    parser.add_argument("--patience", type=float, metavar="X", help="of a beam search; default 1")
    parser.add_argument(
        "--beam-groups", type=int, metavar="N", help="groups of a diverse beam search; default 1"
    )
    parser.add_argument(
        "--diversity-penalty", type=float, metavar="X", help="of --beam-groups; default 0.5"
    )
    parser.add_argument("--sample", action="store_true", help="draw tokens at random")
    for name in SAMPLING:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int if name in ("top_k", "seed") else float,
            metavar="X",
            help="of --sample; default: the server's",
        )


def search_options(arguments: Namespace, first: Line) -> dict[str, Any]:
    """The options of the client's methods by these flags; ``first`` is the first line of a call."""
    return {
        "beam_size": arguments.beam,
        "num_hypotheses": arguments.num_hypotheses,
        "length_penalty": arguments.length_penalty,
        "max_output_tokens": arguments.max_output_tokens,
        "no_repeat_ngram_size": arguments.no_repeat_ngram_size,
        "suppressed_texts": arguments.suppress,
        "repetition_penalty": arguments.repetition_penalty,
        "patience": arguments.patience,
        "num_beam_groups": arguments.beam_groups,
        "diversity_penalty": arguments.diversity_penalty,
        "sampling": _sampling(arguments, first),
        "return_tokens": arguments.tokens,
    }


def _sampling(arguments: Namespace, first: Line) -> Sampling | None:
    if not arguments.sample:
        return None
    return Sampling(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        seed=arguments.seed,
        first_index=first.number - 1,
    )


def runs(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines in runs without gaps between their numbers, whose places decide about samples."""
    found: list[list[Line]] = []
    for line in lines:
        if found and found[-1][-1].number + 1 == line.number:
            found[-1].append(line)
        else:
            found.append([line])
    return found


def check_search_flags(parser: ArgumentParser, arguments: Namespace) -> None:
    """Check the flags that depend on each other. Wrong ones end the process with code 2."""
    given = [name for name in SAMPLING if getattr(arguments, name) is not None]
    if given and not arguments.sample:
        parser.error(f"--{given[0].replace('_', '-')} works with --sample only")
