"""Quality of German to French over English by the built-in bundles, through the client.

    python -m bench.quality.pivot --data-dir DATA_DIR

Takes the English sentences that both Tatoeba tests have, with their first German translation as the
text and all French ones as references. Beside it, the English sentences are translated to French by
the second model alone: the difference is what the first model costs.
"""

import argparse

from attendant_client import Client

from bench.arguments import bench_parser
from bench.quality.translation import bleu_and_chrf
from bench.reporting import report
from bench.servers import running_server
from bench.texts import FRENCH_TEST, TATOEBA_TEST, read_references

PIVOT = "--pivots=de-en+en-fr"
SEARCHES = {"greedy": 1, "beam4": 4}


def measure(
    client: Client, source_language: str, texts: list[str], references: list[list[str]]
) -> dict[str, dict[str, float]]:
    """The scores of the French translations in each search."""
    figures = {}
    for search, beam_size in SEARCHES.items():
        found = client.translate(
            texts, source_language=source_language, target_language="fr", beam_size=beam_size
        )
        bleu, chrf = bleu_and_chrf([each.text for each in found], references)
        figures[search] = {"bleu": bleu, "chrf": chrf, "num_sentences": len(texts)}
    return figures


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    return bench_parser(__doc__)


def main() -> None:
    """Run the bench and print JSON."""
    data_dir = build_parser().parse_args().data_dir
    german, french = (read_references(data_dir / path) for path in (TATOEBA_TEST, FRENCH_TEST))
    english = [text for text in french if text in german]
    references = [french[text] for text in english]
    with running_server(PIVOT) as running, Client(running.target, timeout_seconds=300) as client:
        figures = {
            "de over en": measure(client, "de", [german[text][0] for text in english], references),
            "en": measure(client, "en", english, references),
        }
    report("quality-pivot", figures)


if __name__ == "__main__":
    main()
