"""What the subcommands of `attendant` print results with."""

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from attendant_client.errors import TextError
from attendant_client.results import FloatArray, SparseEmbedding


def print_vectors(vectors: FloatArray, arguments: argparse.Namespace) -> None:
    """Print vectors (texts, dimension), one per line."""
    for vector in vectors:  # (dimension,)
        numbers = vector.tolist()
        print(json_text(numbers) if arguments.json else " ".join(f"{x:.6g}" for x in numbers))


def print_scores(
    arguments: argparse.Namespace,
    separator: str,
    results: Iterable[Any],
    scores: Callable[[Any], Iterable[tuple[float, str]]],
) -> str:
    """Print the scores of each result after `separator`; return the separator of the next one."""
    for result in results:
        if arguments.json:
            print(json_text(asdict(result)))
            continue
        print(separator + "\n".join(f"{score:.4f}\t{text}" for score, text in scores(result)))
        separator = "\n"
    return separator


def greatest_first(vector: SparseEmbedding) -> list[tuple[float, str]]:
    """Return the weights of a sparse vector with their tokens."""
    weights = zip(vector.weights.tolist(), vector.tokens, strict=True)
    return sorted(weights, key=lambda weight: -weight[0])


def print_table(rows: list[list[str]]) -> None:
    """Print rows of cells in columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def json_text(value: object) -> str:
    """Return the JSON of a value on one line; errors of texts and arrays are values, too."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, TextError):
        return {"index": value.index, "code": value.code.name, "message": value.message}
    raise TypeError(f"{type(value).__name__} has no JSON")
