"""Evaluates the quality of the served bundles through the client.

    python -m bench.quality --data-dir DATA_DIR
    python -m bench.quality --data-dir DATA_DIR --model de-en --swap
    python -m bench.quality --data-dir DATA_DIR --model en-fr \\
        --file tatoeba/tatoeba.en-fr.test.tsv.gz

Translation: sacreBLEU and chrF on the Tatoeba test with all references, in greedy and beam search,
also of its sources in lower case without final punctuation ("casual").
Counts empty and repetitive outputs on that test and, for models with English sources, on sentences
of digital.gov. Checks whether batches change tokens or log-probabilities of a sentence.

Embeddings, for en-de only: retrieval accuracy between English and German test sentences in both
directions (first references); Spearman's correlation with human judgements on the open subset of
STS-B (test); accuracy of one masked word piece per test sentence.

``bench.quality.detection`` measures how often languages are detected, and ``bench.quality.pivot``
translation over a pivot language.
``bench.quality.first_contact`` counts the right translations of a newcomer's first phrases.
"""

import argparse
from typing import Any

from attendant_client import Client

from bench.arguments import add_target, bench_parser
from bench.quality.embedding import measure_embeddings
from bench.quality.invariance import measure_invariance
from bench.quality.translation import (
    casual_references,
    count_faults,
    measure_translation,
    translate,
)
from bench.reporting import report
from bench.servers import given_server
from bench.texts import TATOEBA_TEST, read_references, sample_texts

EN_DE = "en-de"
TIMEOUT_SECONDS = 300
NUM_GOVERNMENT = 500
"""Number of digital.gov sentences, whose style differs from the everyday language of Tatoeba."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    add_target(parser)
    parser.add_argument("--model", default=EN_DE, help="name of the translation model")
    parser.add_argument("--file", default=TATOEBA_TEST)
    parser.add_argument("--swap", action="store_true", help="read the second column as the source")
    return parser


def measure(client: Client, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures that the arguments select."""
    data_dir, model = arguments.data_dir, arguments.model
    references = read_references(data_dir / arguments.file, arguments.swap)
    models = [f"{m.name}/{m.version}:{m.precision}" for m in client.models()]
    government = [] if arguments.swap else sample_texts(data_dir, "government", NUM_GOVERNMENT)
    figures: dict[str, Any] = {"models": models}
    for search, beam_size in {"greedy": 1, "beam4": 4}.items():
        figures[search] = measure_translation(client, references, beam_size, model)
        casual = casual_references(references)
        figures[f"casual_{search}"] = measure_translation(client, casual, beam_size, model)
        figures[f"batching_{search}"] = measure_invariance(
            client, list(references), beam_size, model
        )
        if government:
            unlike_training = translate(client, government, beam_size, model)
            figures[f"government_{search}"] = count_faults(unlike_training)
    if model == EN_DE:
        figures |= measure_embeddings(client, data_dir, references)
    return figures


def main() -> None:
    """Run the bench and print JSON."""
    arguments = build_parser().parse_args()
    patient = f"--max-request-seconds={TIMEOUT_SECONDS}"
    with (
        given_server(arguments.target, patient) as running,
        Client(running.target, timeout_seconds=TIMEOUT_SECONDS) as client,
    ):
        report(f"quality-{arguments.model}", measure(client, arguments))


if __name__ == "__main__":
    main()
