"""Whether batching shows in results: every sentence alone, then all with many callers at once.

    python -m bench.invariance --data-dir DATA_DIR

Prints, for greedy search and beam 4, how many of the sentences got other tokens among others than
alone, and the largest difference between the log-probabilities of equal tokens.
"""

import argparse
import json
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attendant_client import Client

from bench.serving import running_server
from bench.texts import read_references

NUM_CALLERS = 48

Tokens = list[tuple[int, float]]


def translate(client: Client, text: str, beam_size: int) -> Tokens:
    """(token, log-probability) of the best hypothesis."""
    hypothesis = client.translate(text, beam_size=beam_size).hypotheses[0]
    return [(token.id, token.log_probability) for token in hypothesis.tokens]


def compare(client: Client, texts: Sequence[str], beam_size: int) -> dict[str, float]:
    """Translate every text alone and then all at once."""
    alone = [translate(client, text, beam_size) for text in texts]
    with ThreadPoolExecutor(NUM_CALLERS) as callers:
        together = list(callers.map(lambda text: translate(client, text, beam_size), texts))
    pairs = list(zip(alone, together, strict=True))
    same = [(a, b) for a, b in pairs if [i for i, _ in a] == [i for i, _ in b]]
    differences = [abs(p - q) for a, b in same for (_, p), (_, q) in zip(a, b, strict=True)]
    return {
        "num_sentences": len(pairs),
        "num_with_other_tokens": len(pairs) - len(same),
        "max_log_probability_difference": max(differences),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("DATA_DIR"))
    parser.add_argument("--sentences", type=int, default=800)
    arguments = parser.parse_args()
    if arguments.data_dir is None:
        parser.error("give --data-dir or set DATA_DIR")
    path = Path(arguments.data_dir) / "tatoeba/tatoeba.en-de.test.tsv.gz"
    texts = random.Random(0).sample(list(read_references(path)), arguments.sentences)
    with running_server("--models=en-de") as server, Client(server.target) as client:
        figures = {f"beam_size_{n}": compare(client, texts, n) for n in (1, 4)}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
