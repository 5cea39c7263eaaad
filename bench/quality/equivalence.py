"""Counts texts whose results depend on what must not matter.

    python -m bench.quality.equivalence --data-dir DATA_DIR

Spellings: 1,000 English and 1,000 German sentences of the Tatoeba test are translated and embedded
as they are, and spelt otherwise. Texts: 200 texts of three English sentences are translated as
wholes and sentence by sentence. Mixtures: 300 calls with random options are made one by one, then
by 48 callers at the same time. A difference is a tie if it begins with two tokens whose
log-probabilities are closer than the bound of the precision allows.

Starts a server of the built-in bundles in int8 if there is no ``--target``.
"""

import argparse
import random
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from attendant_client import Client, Sampling

from bench.arguments import add_target, bench_parser
from bench.quality.translation import bleu_and_chrf, translate
from bench.reporting import report, table
from bench.servers import given_server
from bench.texts import tatoeba_sentences

MODELS = {"English": "en-de", "German": "de-en"}
EMBEDDER = "bert-en-de"
NUM_TEXTS = 1000
"""Texts of each language."""
NUM_TRIPLES = 200
NUM_CALLS, NUM_CALLERS = 300, 48
BOUND = 0.02
"""The bound of log-probabilities of int8."""
MAX_DIFFERENCE = 1e-3
"""A larger difference between components of unit vectors counts."""


def inserting(character: str) -> Callable[[str], str]:
    """A spelling with a character after the first two letters of each word."""

    def spell(text: str) -> str:
        words = text.split(" ")
        return " ".join(w[:2] + character + w[2:] if w[:4].isalpha() else w for w in words)

    return spell


SPELLINGS: dict[str, Callable[[str], str]] = {
    "the same again": str,
    "NFD": lambda text: unicodedata.normalize("NFD", text),
    "NFKC": lambda text: unicodedata.normalize("NFKC", text),
    "NFKD": lambda text: unicodedata.normalize("NFKD", text),
    "soft hyphens": inserting("\u00ad"),
    "zero-width spaces": inserting("\u200b"),
    "byte order marks": inserting("\ufeff"),
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
}


def measure_spellings(
    client: Client, texts: Mapping[str, Sequence[str]]
) -> list[dict[str, str | int]]:
    """For each spelling: texts that it changes, and those with other translations and vectors."""
    rows: list[dict[str, str | int]] = []
    plain = {side: _results(client, side, these) for side, these in texts.items()}
    for name, spell in SPELLINGS.items():
        row: dict[str, str | int] = dict.fromkeys(("changed", "translations", "vectors"), 0)
        for side, these in texts.items():
            spelt = list(map(spell, these))
            (words, vectors), (other_words, other_vectors) = (
                plain[side],
                _results(client, side, spelt),
            )
            counts = {
                "changed": sum(map(str.__ne__, these, spelt)),
                "translations": sum(map(str.__ne__, words, other_words)),
                "vectors": int((np.abs(vectors - other_vectors).max(1) > MAX_DIFFERENCE).sum()),
            }
            row = {key: int(row[key]) + count for key, count in counts.items()}
        rows.append({"spelling": name, **row})
    return rows


def _results(client: Client, side: str, texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    vectors = client.embed(texts, model=EMBEDDER).raise_for_errors().vectors
    return translate(client, texts, 1, MODELS[side]), vectors


def measure_texts(client: Client, references: dict[str, list[str]]) -> dict[str, float]:
    """BLEU of texts of three sentences, translated as wholes and by sentence."""
    sources = list(references)[: 3 * NUM_TRIPLES]
    joined, targets = (
        [" ".join(lines[i : i + 3]) for i in range(0, len(lines), 3)]
        for lines in (sources, [references[source][0] for source in sources])
    )
    single = translate(client, sources, 1, MODELS["English"])
    by_sentence = [" ".join(single[i : i + 3]) for i in range(0, len(single), 3)]
    whole = translate(client, joined, 1, MODELS["English"])
    wanted = [[target] for target in targets]
    return {
        "num_texts": len(whole),
        "bleu_of_texts": bleu_and_chrf(whole, wanted)[0],
        "bleu_by_sentence": bleu_and_chrf(by_sentence, wanted)[0],
        "num_different": sum(map(str.__ne__, whole, by_sentence)),
    }


def random_options(rng: random.Random) -> dict[str, Any]:
    """Options of a call, each at one of its values."""
    beam_size = rng.choice([1, 1, 2, 4, 8])
    is_sampled = beam_size == 1 and rng.random() < 0.3
    return {
        "model": MODELS["English"],
        "return_tokens": True,
        "beam_size": beam_size,
        "num_hypotheses": rng.randint(1, beam_size),
        "patience": rng.choice([None, 2.0]) if beam_size > 1 else None,
        "num_beam_groups": rng.choice([None, 2]) if beam_size > 2 else None,
        "sampling": Sampling(seed=rng.randint(0, 9)) if is_sampled else None,
        "length_penalty": rng.choice([None, 0.0, 0.6, 2.0]),
        "no_repeat_ngram_size": rng.choice([None, 2, 3]),
        "repetition_guard": rng.choice([None, False]),
        "max_output_tokens": rng.choice([None, 4, 20]),
        "return_alignments": rng.choice([False, True]),
        "splitting": rng.choice([None, "none", "lines"]),
    }


def measure_mixtures(client: Client, texts: Sequence[str]) -> dict[str, int]:
    """Hypotheses of calls with random options that differ between alone and together."""
    rng = random.Random(0)
    calls = [
        (rng.sample(list(texts), rng.randint(1, 4)), random_options(rng)) for _ in range(NUM_CALLS)
    ]

    def tokens(call: tuple[list[str], dict[str, Any]]) -> list[list[tuple[int, float]]]:
        found = client.translate(call[0], **call[1]).raise_for_errors()
        return [
            [(token.id, token.log_probability) for token in hypothesis.tokens]
            for translation in found
            for hypothesis in translation.hypotheses
        ]

    alone = list(map(tokens, calls))
    with ThreadPoolExecutor(NUM_CALLERS) as callers:
        together = list(callers.map(tokens, calls))
    kinds = [
        difference(a, b)
        for one, other in zip(alone, together, strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    counts = {kind: kinds.count(kind) for kind in ("same", "tie", "different")}
    return {"num_calls": NUM_CALLS, "num_hypotheses": len(kinds), **counts}


def difference(
    one: Sequence[tuple[int, float]], other: Sequence[tuple[int, float]], bound: float = BOUND
) -> str:
    """Whether two lists of tokens are the "same", differ by a "tie", or are "different".

    Log-probabilities of the same token may differ by ``bound``.
    """
    for (token, number), (other_token, other_number) in zip(one, other, strict=False):
        if token != other_token:
            return "tie" if abs(number - other_number) <= 2 * bound else "different"
        if abs(number - other_number) > bound:
            return "different"
    return "same" if len(one) == len(other) else "different"


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    add_target(parser)
    return parser


def main() -> None:
    """Run the bench, and print tables."""
    options = build_parser().parse_args()
    references = tatoeba_sentences(options.data_dir)
    english = list(references)[:NUM_TEXTS]
    texts = {"English": english, "German": [references[source][0] for source in english]}
    with (
        given_server(options.target, "--models=bert-en-de,de-en,en-de") as running,
        Client(running.target, timeout_seconds=300) as client,
    ):
        spellings = measure_spellings(client, texts)
        whole = measure_texts(client, references)
        mixtures = measure_mixtures(client, english)
    results = {"spellings": spellings, "texts": whole, "mixtures": mixtures}
    report("equivalence", results, table(spellings), table([whole]), table([mixtures]))


if __name__ == "__main__":
    main()
