"""The subcommand `attendant generate`, which continues prompts."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from attendant_client.client import Client
from attendant_client.errors import InvalidRequestError, TextError
from attendant_client.generation_results import Generation
from attendant_client.input_lines import Line, files_of, read_lines
from attendant_client.line_commands import LineCommand, hypotheses_line, one_line
from attendant_client.line_output import complain
from attendant_client.search_flags import runs, search_options


def add_generation_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that other commands do not have."""
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="a text before which the continuation ends; may be repeated",
    )
    parser.add_argument(
        "--special-tokens",
        action="store_true",
        help="let the texts of special tokens in prompts stand for these tokens",
    )
    parser.add_argument("--scores", action="store_true", help="put the score before each line")
    parser.add_argument("--stream", action="store_true", help="print text while decoding")


def check_generation_flags(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Check the flags that depend on each other. Wrong ones end the process with code 2."""
    if not arguments.stream:
        return
    further = arguments.json or arguments.scores or arguments.output
    if further or (arguments.num_hypotheses or 1) > 1:
        parser.error("--stream does not work with --json, --scores, --output, --num-hypotheses")
    arguments.run = stream


def stream(client: Client, arguments: argparse.Namespace) -> int:
    """Print continuations one after another, each while it is decoded."""
    name, all_good = ("prompt" if arguments.texts else "line"), True
    for line in read_lines(arguments, 1, files_of(arguments)):
        fault = line.fault
        if not (fault or line.is_blank):
            fault = _stream_line(client, line, arguments)
        print(flush=True)
        if fault:
            complain(f"{name} {line.number}: {fault}")
        all_good &= not fault
    return 0 if all_good else 1


def _stream_line(client: Client, line: Line, arguments: argparse.Namespace) -> str:
    """Print one continuation without an end of line; return the fault of the prompt."""
    options = _options(arguments, line)
    try:
        with client.stream_generate(line.texts[0], **options) as deltas:
            for delta in deltas:
                print(_shown(delta, arguments), end="", flush=True)
    except TextError as error:
        return error.message
    except InvalidRequestError as error:
        # The other faults would also be those of all other prompts.
        if not error.message.startswith("prompt: "):
            raise
        return error.message.removeprefix("prompt: ")
    return ""


def _shown(text: str, arguments: argparse.Namespace) -> str:
    """The text of the only prompt as it is, others on one line each."""
    return text if len(arguments.texts) == 1 else one_line(text)


def _generate(
    client: Client, arguments: argparse.Namespace, lines: Sequence[Line]
) -> Sequence[Generation]:
    found: list[Generation] = []
    # The place of a line in its input decides about its samples, whatever lines share its call.
    for run in runs(lines) if arguments.sample else [lines]:
        prompts = [line.texts[0] for line in run]
        found += client.generate(prompts, **_options(arguments, run[0]))
    return found


def _options(arguments: argparse.Namespace, first: Line) -> dict[str, Any]:
    return {
        **search_options(arguments, first),
        "model": arguments.model,
        "stop_texts": arguments.stop,
        "reads_special_tokens": arguments.special_tokens,
        "truncation": arguments.truncation,
        "request_id": arguments.request_id,
    }


def _text(result: Generation, arguments: argparse.Namespace) -> str:
    if len(result.hypotheses) == 1 and not arguments.scores:
        return _shown(result.text, arguments)
    return hypotheses_line(result.hypotheses, arguments)


def _fields(result: Generation, arguments: argparse.Namespace) -> dict[str, Any]:
    fields = asdict(result)
    if not arguments.tokens:
        for hypothesis in fields["hypotheses"]:
            del hypothesis["tokens"]
    return fields


generate = LineCommand(
    _generate, _text, ("hypotheses", "num_prompt_tokens", "truncation"), fields=_fields
)
