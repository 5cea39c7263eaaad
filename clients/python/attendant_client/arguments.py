"""The command line of `attendant`: its subcommands and flags."""

import argparse
import os
from collections.abc import Callable
from typing import get_args

from attendant_command_line import add_print_completion, add_version

from attendant_client import (
    __version__,
    attention_command,
    commands,
    connection_flags,
    generation_command,
    pronouns_command,
    text_commands,
)
from attendant_client.client import Client
from attendant_client.connection import DEFAULT_TARGET, DEFAULT_TIMEOUT_SECONDS
from attendant_client.file_flags import add_file_flags
from attendant_client.flag_types import count, seconds
from attendant_client.glossary_flags import add_glossary_flags
from attendant_client.language_flags import add_control_flags, add_language_flags
from attendant_client.options import DataType, OffsetUnit, Pooling
from attendant_client.search_flags import add_search_flags, add_translation_flags

HEALTH_TIMEOUT_SECONDS = 3.0
FORMATS = {"protocol": "attendant.v1"}
PACKAGES = ("attendant-protos", "grpcio", "protobuf", "numpy")
"""What `--version` tells the versions of."""

ENVIRONMENT = f"""\
environment variables:
  ATTENDANT_TARGET    the server or servers, as for --target, if it is not given
{connection_flags.ENVIRONMENT}  http_proxy, https_proxy, grpc_proxy, no_proxy, no_grpc_proxy
                      the proxy to servers on other machines, as gRPC reads them
  NO_COLOR            if set, attention has no colours

attendant COMMAND --help lists the options of a command.
"""

Parser = argparse.ArgumentParser
Command = Callable[[Client, argparse.Namespace], int]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="attendant",
        description="Ask an attendant server from the command line.",
        epilog=ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(parser, __version__, formats=FORMATS, packages=PACKAGES)
    add_print_completion(parser, "attendant-client")
    target = os.environ.get("ATTENDANT_TARGET") or DEFAULT_TARGET
    _add_connection_flags(parser, target=target, timeout=None)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_translation_commands(subparsers)
    _add_generation_command(subparsers)
    _add_detection_command(subparsers)
    _add_embedding_commands(subparsers)
    _add_model_commands(subparsers)
    return parser


def _add_translation_commands(subparsers: "argparse._SubParsersAction[Parser]") -> None:
    translate = _add(subparsers, "translate", text_commands.translate, "translate texts")
    _add_texts(translate)
    translate.add_argument(
        "--split",
        choices=["none", "lines", "sentences"],
        help="parts of a text that are translated alone; default: the model's, mostly sentences",
    )
    _add_reading(translate)
    _add_length_penalty(translate)
    add_language_flags(translate, detects=True)
    add_control_flags(translate)
    add_glossary_flags(translate)
    add_search_flags(translate)
    add_translation_flags(translate)
    translate.add_argument("--scores", action="store_true", help="put the score before each line")
    translate.add_argument("--stream", action="store_true", help="print words while decoding")
    _add_tokens(translate)
    _add_offset_unit(translate)
    translate.add_argument(
        "--markup", choices=["none", "html", "xml"], help="what tags in texts are; default: none"
    )
    translate.add_argument(
        "--alignments",
        action="store_true",
        help="with --json: add the links of words to words of the text",
    )

    score = _add(subparsers, "score", text_commands.score, "score a given translation")
    _add_texts(score, "a text and its translation; default: input lines, tab-separated")
    add_language_flags(score)
    add_control_flags(score)
    _add_reading(score)
    _add_length_penalty(score)
    _add_tokens(score)
    _add_offset_unit(score)


def _add_generation_command(subparsers: "argparse._SubParsersAction[Parser]") -> None:
    generate = _add(subparsers, "generate", generation_command.generate, "continue prompts")
    _add_texts(generate, "a prompt; default: the lines of the standard input")
    _add_truncation(generate)
    _add_length_penalty(generate)
    add_search_flags(generate)
    generation_command.add_generation_flags(generate)
    _add_tokens(generate)


def _add_detection_command(subparsers: "argparse._SubParsersAction[Parser]") -> None:
    detect = _add(subparsers, "detect", text_commands.detect, "tell the languages of texts")
    _add_texts(detect, has_model=False)
    detect.add_argument(
        "--languages",
        type=lambda text: text.split(","),
        metavar="TAG,TAG",
        help="the languages that are possible, such as de,en,fr; default: all",
    )
    detect.add_argument("--max-results", type=count, metavar="N", help="languages; default 1")


def _add_embedding_commands(subparsers: "argparse._SubParsersAction[Parser]") -> None:
    embed = _add(subparsers, "embed", text_commands.embed, "print or save one vector for each text")
    _add_texts(embed)
    _add_reading(embed)
    embed.add_argument(
        "--pooling",
        choices=get_args(Pooling),
        help="default: the bundle's; all offer mean, cls, max",
    )
    embed.add_argument(
        "--normalize", action=argparse.BooleanOptionalAction, help="default: the bundle's choice"
    )
    _add_vectors(embed)
    similarity = _add(subparsers, "similarity", commands.similarity, "compare texts, -1 to 1")
    _add_ranking(similarity, "TEXT", "a text to compare with the first one; several are ranked")
    rerank = _add(subparsers, "rerank", commands.rerank, "rank documents with a cross-encoder")
    _add_ranking(rerank, "DOCUMENT", "a document to score for the query")
    _add_raw_scores(rerank)

    fill = _add(subparsers, "fill", text_commands.fill, 'fill in every "[MASK]"')
    _add_texts(fill)
    _add_offset_unit(fill)
    _add_reading(fill)
    fill.add_argument("--top-k", type=count, metavar="N", help="candidates; default 5")
    fill.add_argument(
        "--candidate",
        action="append",
        metavar="TEXT",
        help="a text to rank for all masks, instead of the vocabulary; may be repeated",
    )
    fill.add_argument(
        "--joint", action="store_true", help="fill the masks of a text together, one by one"
    )

    classify = _add(subparsers, "classify", text_commands.classify, "score the labels of a model")
    _add_texts(classify)
    _add_reading(classify)
    classify.add_argument(
        "--pairs", action="store_true", help="read pairs: two texts, or lines with a tab"
    )
    classify.add_argument("--top-k", type=count, metavar="N", help="labels; default all")
    _add_raw_scores(classify)

    sparse = _add(subparsers, "embed-sparse", text_commands.embed_sparse, "print weights of tokens")
    _add_texts(sparse)
    _add_reading(sparse)
    sparse.add_argument(
        "--max-active-dims", type=count, metavar="N", help="tokens; default: the bundle's choice"
    )


def _add_ranking(parser: Parser, name: str, about: str) -> None:
    parser.add_argument("query", metavar="QUERY", help="the text to compare with the others")
    parser.add_argument("texts", nargs="+", metavar=name, help=about)
    parser.add_argument("--top-k", type=count, metavar="N", help="lines to print; default all")
    _add_model(parser)
    _add_reading(parser)


def _add_raw_scores(parser: Parser) -> None:
    parser.add_argument(
        "--raw-scores", action="store_true", help="scores before softmax or sigmoid"
    )


def _add_vectors(parser: Parser) -> None:
    parser.add_argument(
        "--dimensions", type=count, metavar="N", help="first values of a vector; default: all"
    )
    parser.add_argument(
        "--force-dimensions",
        action="store_true",
        help="allow dimensions for which the model was not trained",
    )
    parser.add_argument(
        "--data-type", choices=get_args(DataType), default="float32", help="default float32"
    )
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument(
        "--prompt-name", metavar="NAME", help='prompt of the model, "" for none; default: its own'
    )
    prompts.add_argument("--prompt", metavar="TEXT", help="text that is put before every text")


def _add_model_commands(subparsers: "argparse._SubParsersAction[Parser]") -> None:
    tokenize = _add(subparsers, "tokenize", text_commands.tokenize, "show the tokens of texts")
    _add_texts(tokenize)
    _add_offset_unit(tokenize)
    _add_normalization(tokenize)
    tokenize.add_argument("--side", choices=["source", "target"], default="source")
    tokenize.add_argument("--ids", action="store_true", help="print ids instead of tokens")

    attention = _add(
        subparsers, "attention", attention_command.attention, "draw the attention for a text"
    )
    attention_command.add_attention_flags(attention)
    for add_flags in (_add_model, add_language_flags, _add_normalization):
        add_flags(attention)

    pronouns = _add(
        subparsers,
        "resolve-pronouns",
        pronouns_command.resolve_pronouns,
        "choose what the pronouns of Winograd schemas stand for",
    )
    pronouns_command.add_pronoun_flags(pronouns)
    _add_model(pronouns)

    models = _add(subparsers, "models", commands.models, "list the models, or describe one")
    models.add_argument(
        "name", nargs="?", metavar="MODEL", help="describe this model; --json prints all fields"
    )

    load = _add(subparsers, "load", commands.load, "let the server load a bundle of its folder")
    load.add_argument("name", metavar="MODEL", help="NAME/VERSION, or NAME for the highest one")
    unload = _add(subparsers, "unload", commands.unload, "let the server unload a model")
    unload.add_argument("name", metavar="MODEL", help="NAME/VERSION, or NAME if it is the only one")

    health = _add(subparsers, "health", commands.health, "exit with 0 if the server is serving")
    health.add_argument("--service", default="", help="check one service only")


def _add(
    subparsers: "argparse._SubParsersAction[Parser]", name: str, run: Command, about: str
) -> Parser:
    parser = subparsers.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    # Suppressed defaults keep the values given before the command.
    _add_connection_flags(parser, target=argparse.SUPPRESS, timeout=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print JSON, one value per line")
    parser.add_argument("--request-id", metavar="ID", help="id of the calls in the server's log")
    parser.set_defaults(run=run)
    return parser


def _add_connection_flags(parser: Parser, target: str, timeout: str | None) -> None:
    parser.add_argument(
        "--target",
        default=target,
        metavar="HOST:PORT",
        help="the server, or grpcs://HOST:PORT for TLS, or several servers: a name with several "
        "addresses, or a list IP:PORT,IP:PORT without TLS; default $ATTENDANT_TARGET, or "
        f"{DEFAULT_TARGET}",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=timeout,
        metavar="SECONDS",
        help=f"time limit of one call; default {DEFAULT_TIMEOUT_SECONDS:g}, "
        f"for health {HEALTH_TIMEOUT_SECONDS:g}",
    )
    connection_flags.add_connection_flags(parser, suppress=target is argparse.SUPPRESS)


def _add_texts(
    parser: Parser,
    about: str = "default: the lines of the standard input",
    has_model: bool = True,
) -> None:
    parser.add_argument("texts", nargs="*", metavar="TEXT", help=about)
    add_file_flags(parser)
    if has_model:
        _add_model(parser)


def _add_model(parser: Parser) -> None:
    parser.add_argument("--model", default="", metavar="NAME", help='"name" or "name/version"')


def _add_normalization(parser: Parser) -> None:
    parser.add_argument(
        "--text-normalization",
        choices=["none", "standard"],
        help="normalization of texts before the model reads them; default: the model's",
    )


def _add_offset_unit(parser: Parser) -> None:
    parser.add_argument(
        "--offset-unit",
        choices=get_args(OffsetUnit),
        default="code_points",
        help="with --json: the unit of places in texts; default code_points",
    )


def _add_reading(parser: Parser) -> None:
    """Add the options of how a model reads texts."""
    _add_normalization(parser)
    _add_truncation(parser)


def _add_truncation(parser: Parser) -> None:
    parser.add_argument(
        "--truncation",
        choices=["refuse", "right", "left"],
        default="refuse",
        help="what to do with a text that is too long; default refuse",
    )


def _add_tokens(parser: Parser) -> None:
    parser.add_argument(
        "--tokens", action="store_true", help="with --json: add tokens and their log-probabilities"
    )


def _add_length_penalty(parser: Parser) -> None:
    parser.add_argument("--length-penalty", type=float, metavar="X", help="0 to 10; default 1")
