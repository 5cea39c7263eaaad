"""Checks of arguments of `attendant` that depend on each other."""

import argparse

from attendant_client import attention_command, generation_command, text_commands
from attendant_client.file_flags import check_file_flags
from attendant_client.search_flags import check_search_flags

Parser = argparse.ArgumentParser


def check_together(parser: Parser, arguments: argparse.Namespace) -> None:
    """Check the arguments. Wrong ones end the process with code 2."""
    if arguments.command == "score" and len(arguments.texts) not in (0, 2):
        parser.error("score takes one text and its translation")
    if arguments.command == "classify" and arguments.pairs and len(arguments.texts) not in (0, 2):
        parser.error("--pairs takes two texts")
    for name in ("tokens", "alignments"):
        if getattr(arguments, name, False) and not arguments.json:
            parser.error(f"--{name} works with --json only")
    if arguments.command == "attention":
        attention_command.check_attention_flags(parser, arguments)
    if "input" in arguments:
        check_file_flags(parser, arguments)
    if arguments.command in ("translate", "generate"):
        check_search_flags(parser, arguments)
    if arguments.command == "generate":
        generation_command.check_generation_flags(parser, arguments)
    if arguments.command == "translate" and arguments.stream:
        further = arguments.json or arguments.scores or arguments.output or arguments.markup
        if further or (arguments.num_hypotheses or 1) > 1:
            parser.error(
                "--stream does not work with --json, --scores, --output, --markup, --num-hypotheses"
            )
        arguments.run = text_commands.stream
