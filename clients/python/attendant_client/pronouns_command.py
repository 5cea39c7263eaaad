"""The subcommand `attendant resolve-pronouns`, which solves Winograd schemas."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attendant_client.client import Client
from attendant_client.line_output import complain
from attendant_client.printing import json_text
from attendant_client.pronouns import (
    Schema,
    SchemaError,
    by_attention,
    by_likelihood,
    read_schemas,
)

METHODS = ("partial", "full", "attention")


def add_pronoun_flags(parser: argparse.ArgumentParser) -> None:
    """Add the file and the method."""
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="blocks of four lines between empty lines: text, pronoun, candidates between commas, "
        "right candidate",
    )
    parser.add_argument(
        "--by",
        choices=METHODS,
        default="partial",
        help="the log-probability of what follows the candidate (partial) or of the whole text "
        "(full), by a language model; or the attention of the pronoun, by an encoder; default "
        "partial",
    )


def resolve_pronouns(client: Client, arguments: argparse.Namespace) -> int:
    """Print the chosen candidate of each schema, and how many are right."""
    try:
        with arguments.file.open(encoding="utf-8") as file:
            schemas = list(read_schemas(file))
        num_right = sum(_print_choices(client, schemas, arguments))
    except SchemaError as error:
        complain(f"{arguments.file}: {error}")
        return 1
    if not schemas:
        complain(f"{arguments.file} has no schemas")
        return 1
    share = num_right / len(schemas)
    print(f"{num_right} of {len(schemas)} right ({share:.1%})", file=sys.stderr)
    return 0


def _print_choices(
    client: Client, schemas: Sequence[Schema], arguments: argparse.Namespace
) -> Iterator[bool]:
    """Print a line for each schema, and yield whether its candidate is right."""
    for schema, values in zip(schemas, _values(client, schemas, arguments), strict=True):
        chosen = int(np.argmax(values))
        is_right = chosen == schema.answer
        if arguments.json:
            fields = {
                "text": schema.text,
                "candidates": schema.candidates,
                "values": values.tolist(),
                "chosen": schema.candidates[chosen],
                "is_right": is_right,
            }
            print(json_text(fields))
        else:
            mark = "right" if is_right else "wrong"
            print(f"{mark}\t{schema.candidates[chosen]}\t{schema.text}")
        yield is_right


def _values(
    client: Client, schemas: Sequence[Schema], arguments: argparse.Namespace
) -> Iterator[NDArray[np.float64]]:
    if arguments.by == "attention":
        return by_attention(client, schemas, arguments.model)
    return by_likelihood(client, schemas, arguments.model, arguments.by == "partial")
