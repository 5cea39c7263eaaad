"""`attendant attention`: its flags, and how it draws the attention of a model."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from attendant_client.attention_html import attention_page
from attendant_client.attention_image import check_pillow, map_image
from attendant_client.attention_maps import (
    KINDS,
    AttentionMap,
    attention_map,
    present_kinds,
)
from attendant_client.attention_results import Attention
from attendant_client.attention_text import SHADES, map_lines
from attendant_client.client import Client
from attendant_client.line_commands import one_line
from attendant_client.printing import json_text

ENDINGS = (".html", ".png")
DEFAULT_COLUMNS = 80


def add_attention_flags(parser: argparse.ArgumentParser) -> None:
    """Add the text and the flags of what is drawn, and where."""
    parser.add_argument("text", metavar="TEXT", help="the text that the model reads")
    parser.add_argument(
        "--translation", metavar="TEXT", help="its translation; default: the model's"
    )
    parser.add_argument(
        "--kind",
        choices=[*KINDS, "all"],
        help="self-attention of the encoder or decoder, cross-attention, or all; default: "
        "cross-attention in a terminal, if the model has it, and all in files",
    )
    parser.add_argument("--layer", type=int, metavar="N", help="from 0; default: the last one")
    parser.add_argument("--head", type=int, metavar="N", help="from 0; default: mean of all")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write this new file: FILE.html with all layers and heads, or the image FILE.png",
    )


def check_attention_flags(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Check the flags that depend on each other. Wrong ones end the process with code 2."""
    output = arguments.output
    if output is not None and not output.endswith(ENDINGS):
        parser.error(f"--output takes a file whose name ends with {' or '.join(ENDINGS)}")
    if output is not None and arguments.json:
        parser.error("--json and --output do not work together")


def attention(client: Client, arguments: argparse.Namespace) -> int:
    """Draw the attention of a model for one text in the terminal or in a file."""
    output = None if arguments.output is None else Path(arguments.output)
    if output is not None and output.suffix == ".png":
        check_pillow()
    found = client.attention(
        arguments.text,
        arguments.translation,
        model=arguments.model,
        source_language=arguments.source_language,
        target_language=arguments.target_language,
        text_normalization=arguments.text_normalization,
        request_id=arguments.request_id,
    )
    if arguments.json:
        print(json_text(asdict(found)))
        return 0
    kinds = present_kinds(found, arguments.kind or _default_kind(found, output))
    maps = [
        attention_map(found, arguments.text, kind, arguments.layer, arguments.head)
        for kind in kinds
    ]
    if output is None:
        _print_maps(found, maps)
    elif output.suffix == ".png":
        with output.open("xb") as file:
            map_image(maps).save(file, "PNG")
    else:
        page = attention_page(found, arguments.text, kinds, arguments.layer, arguments.head)
        with output.open("x", encoding="utf-8") as file:
            file.write(page)
    return 0


def _default_kind(found: Attention, output: Path | None) -> str:
    if output is not None:
        return "all"
    return "encoder" if found.cross is None else "cross"


def _print_maps(found: Attention, maps: Sequence[AttentionMap]) -> None:
    """Print the target and the maps, as wide as the terminal."""
    is_terminal = sys.stdout.isatty()
    has_colour = is_terminal and not os.environ.get("NO_COLOR")
    width = shutil.get_terminal_size((DEFAULT_COLUMNS, 24)).columns
    if found.target:
        print(one_line(found.target))
    for each in maps:
        print()
        for line in map_lines(each, width, has_colour, _can_print(SHADES)):
            print(line)


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
