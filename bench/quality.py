r"""Quality of the served bundles, measured through the client.

    python -m bench.quality --data-dir DATA_DIR
    python -m bench.quality --data-dir DATA_DIR --model de-en --swap
    python -m bench.quality --data-dir DATA_DIR --model en-fr \
        --file tatoeba/tatoeba.en-fr.test.tsv.gz

Translation: sacreBLEU and chrF on the Tatoeba test, each sentence with all of its references, with
greedy and beam search; empty and repeating outputs there and, of models that read English, on
sentences of digital.gov. Embeddings, unless ``--model`` is another than en-de: how often the
nearest German sentence of an English one is its translation, and the other way round, among all
sentences of the test (first references); Spearman's correlation with the judgements of the open
subset of STS-B (test); how often one masked word piece of a test sentence is guessed.
"""

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import sacrebleu
from attendant_client import Client

from bench.embedding_quality import measure_embeddings, results_of
from bench.serving import RunningServer, running_server
from bench.texts import read_references, sample_texts

EN_DE = "en-de"
NUM_LONG_WORDS = 15
TIMEOUT_SECONDS = 300
NUM_GOVERNMENT = 500
"""Sentences of digital.gov, unlike the everyday talk of Tatoeba, whose faults are counted."""


def bleu_and_chrf(
    hypotheses: Sequence[str], references: Sequence[list[str]]
) -> tuple[float, float]:
    """Corpus scores by sacreBLEU with every reference of every sentence."""
    streams: Any = [
        [r[i] if i < len(r) else None for r in references] for i in range(max(map(len, references)))
    ]
    return (
        sacrebleu.corpus_bleu(hypotheses, streams).score,
        sacrebleu.corpus_chrf(hypotheses, streams).score,
    )


def is_looping(text: str) -> bool:
    """Whether three words or more come three times in a row."""
    words = text.split()
    return any(
        words[i : i + n] == words[i + n : i + 2 * n] == words[i + 2 * n : i + 3 * n]
        for n in range(1, 6)
        for i in range(len(words) - 3 * n + 1)
    )


def measure_translation(
    client: Client, references: dict[str, list[str]], beam_size: int, model: str = ""
) -> dict[str, float]:
    """Scores and faults of the translations of all test sentences."""
    sources = list(references)
    results = results_of(
        lambda texts: client.translate(texts, beam_size=beam_size, model=model), sources
    )
    hypotheses = [result.text for result in results]
    bleu, chrf = bleu_and_chrf(hypotheses, list(references.values()))
    long = [i for i, source in enumerate(sources) if len(source.split()) > NUM_LONG_WORDS]
    long_bleu, _ = bleu_and_chrf(
        [hypotheses[i] for i in long], [references[sources[i]] for i in long]
    )
    return {
        "bleu": bleu,
        "chrf": chrf,
        f"bleu_over_{NUM_LONG_WORDS}_words": long_bleu,
        f"num_sentences_over_{NUM_LONG_WORDS}_words": len(long),
        **count_faults(hypotheses),
    }


def measure_faults(
    client: Client, texts: Sequence[str], beam_size: int, model: str = ""
) -> dict[str, float]:
    """Faults of the translations of texts unlike those that the model was trained on."""
    results = results_of(
        lambda some: client.translate(some, beam_size=beam_size, model=model), texts
    )
    return count_faults([result.text for result in results])


def count_faults(hypotheses: Sequence[str]) -> dict[str, float]:
    """How many translations are empty or repeat themselves."""
    return {
        "num_empty": sum(not h.strip() for h in hypotheses),
        "num_looping": sum(map(is_looping, hypotheses)),
        "num_sentences": len(hypotheses),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("DATA_DIR"), required=False)
    parser.add_argument("--target", help="a running server; without it one is started")
    parser.add_argument("--model", default=EN_DE, help="name of the translation model")
    parser.add_argument("--file", default="tatoeba/tatoeba.en-de.test.tsv.gz")
    parser.add_argument("--swap", action="store_true", help="the file's second column is read")
    arguments = parser.parse_args()
    if arguments.data_dir is None:
        parser.error("give --data-dir or set DATA_DIR")
    patient = f"--max-request-seconds={TIMEOUT_SECONDS}"
    given = nullcontext(RunningServer(arguments.target)) if arguments.target else None
    with (
        given or running_server(patient) as running,
        Client(running.target, timeout_seconds=TIMEOUT_SECONDS) as client,
    ):
        print(json.dumps(measure(client, arguments), indent=1))


def measure(client: Client, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures that the arguments ask for."""
    data_dir, model = Path(arguments.data_dir), arguments.model
    references = read_references(data_dir / arguments.file, arguments.swap)
    models = [f"{m.name}/{m.version}:{m.precision}" for m in client.models()]
    government = [] if arguments.swap else sample_texts(data_dir, "government", NUM_GOVERNMENT)
    figures: dict[str, Any] = {"models": models}
    for search, beam_size in {"greedy": 1, "beam4": 4}.items():
        figures[search] = measure_translation(client, references, beam_size, model)
        if government:
            figures[f"government_{search}"] = measure_faults(client, government, beam_size, model)
    if model == EN_DE:
        figures |= measure_embeddings(client, data_dir, references)
    return figures


if __name__ == "__main__":
    main()
