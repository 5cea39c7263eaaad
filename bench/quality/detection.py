"""Share of sentences whose language is detected, through the client.

    python -m bench.quality.detection --data-dir DATA_DIR

Reads sentences of the Tatoeba tests in English, German and French. "all" lets the server choose
among all languages that it knows, "three" among these. Short sentences are also counted apart.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from attendant_client import Client

from bench.arguments import bench_parser
from bench.reporting import report
from bench.servers import running_server
from bench.texts import FRENCH_TEST, TATOEBA_TEST, read_references

NUM_SENTENCES = 500
SHORT_CHARACTERS = 20
"""Characters of the longest short sentence."""


def sentences(data_dir: Path) -> dict[str, list[str]]:
    """Sentences of each language, sampled with a seed."""
    german, french = (
        read_references(data_dir / path, swap=True) for path in (TATOEBA_TEST, FRENCH_TEST)
    )
    found = {"en": read_references(data_dir / TATOEBA_TEST), "de": german, "fr": french}
    return {
        tag: random.Random(1).sample(list(texts), NUM_SENTENCES) for tag, texts in found.items()
    }


def accuracy(
    client: Client, tag: str, texts: Sequence[str], languages: Sequence[str]
) -> dict[str, float]:
    """The share of all texts, and of the short ones, that are found to have a language."""
    found = client.detect_language(texts, languages=languages).raise_for_errors()
    hits = [each.language == tag for each in found]
    short = [hit for hit, text in zip(hits, texts, strict=True) if len(text) <= SHORT_CHARACTERS]
    return {
        "accuracy": sum(hits) / len(hits),
        "accuracy_of_short": sum(short) / len(short),
        "num_texts": len(hits),
        "num_short": len(short),
    }


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    return bench_parser(__doc__)


def main() -> None:
    """Run the bench and print JSON."""
    arguments = build_parser().parse_args()
    by_tag = sentences(arguments.data_dir)
    with running_server() as running, Client(running.target) as client:
        figures = {
            name: {tag: accuracy(client, tag, texts, languages) for tag, texts in by_tag.items()}
            for name, languages in {"all": (), "three": tuple(by_tag)}.items()
        }
    report("quality-detection", figures)


if __name__ == "__main__":
    main()
