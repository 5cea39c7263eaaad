"""Counts the glossary terms that translations have, and what they cost in BLEU.

    python -m bench.quality.glossary --data-dir DATA_DIR --model en-de --texts 500 --terms 1

The terms come from the references: for each test sentence one or more words of the source, with at
least four letters, that the model aligns to exactly one word of the reference, and that word. They
are drawn at random, and are a glossary of the sentence alone (as Dinu et al. 2019 test
terminology). Translates all sentences without and with their glossaries and prints how many of the
terms the translations have as whole words, BLEU, and the cost of a sentence: decoding steps, and
tokens decoded for all rows of these steps. Starts a server of the built-in bundles without
``--target``; the cost is known of such a server only.
"""

import argparse
import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from attendant_client import Client, TranslationScore

from bench.arguments import add_target, bench_parser
from bench.quality.translation import bleu_and_chrf
from bench.reporting import report, table
from bench.servers import RunningServer, given_server
from bench.texts import tatoeba_sentences

LEAST_LETTERS, LEAST_WEIGHT = 4, 0.5


class DrawnTerms(NamedTuple):
    """A sentence and its glossary."""

    source: str
    reference: str
    terms: dict[str, str]
    """The translation of each term."""


def candidates(source: str, target: str, score: TranslationScore) -> Iterator[tuple[str, str]]:
    """The words of a source that are aligned to one word of a target, and that word."""
    links = [link for link in score.alignments if link.weight >= LEAST_WEIGHT]
    for link in links:
        sides = link.source_start, link.target_start
        partners = [e for e in links if e.source_start == sides[0] or e.target_start == sides[1]]
        term = source[link.source_start : link.source_end]
        translation = target[link.target_start : link.target_end]
        is_long = min(len(term), len(translation)) >= LEAST_LETTERS
        if len(partners) == 1 and is_long and term.isalpha() and translation.isalpha():
            yield term, translation


def draw_terms(
    client: Client, model: str, pairs: Sequence[tuple[str, str]], num_texts: int, num_terms: int
) -> list[DrawnTerms]:
    """As many terms of each of some pairs."""
    rng = random.Random(1)
    shuffled = rng.sample(list(pairs), len(pairs))
    found: list[DrawnTerms] = []
    for first in range(0, len(shuffled), 2 * num_texts):
        drawn = shuffled[first : first + 2 * num_texts]
        scores = client.score(drawn, model=model, return_alignments=True)
        for (source, target), score in zip(drawn, scores, strict=True):
            terms = dict(candidates(source, target, score))
            if len(terms) >= num_terms:
                chosen = dict(rng.sample(list(terms.items()), num_terms))
                found.append(DrawnTerms(source, target, chosen))
        if len(found) >= num_texts:
            break
    return found[:num_texts]


def measure(
    client: Client, model: str, running: RunningServer, drawn: Sequence[DrawnTerms]
) -> list[dict[str, object]]:
    """A row of the table without glossaries, and one with them."""
    rows: list[dict[str, object]] = []
    for has_glossary in (False, True):
        before = decoded(running)
        found = [
            client.translate(
                each.source,
                model=model,
                glossary_entries=each.terms if has_glossary else None,
            ).text
            for each in drawn
        ]
        num_found = sum(
            has_word(text, term)
            for text, each in zip(found, drawn, strict=True)
            for term in each.terms.values()
        )
        cost = [after - start for after, start in zip(decoded(running), before, strict=True)]
        bleu, _ = bleu_and_chrf(found, [[each.reference] for each in drawn])
        rows.append(
            {
                "glossary": "yes" if has_glossary else "no",
                "sentences": len(drawn),
                "terms": f"{num_found} of {sum(len(each.terms) for each in drawn)}",
                "BLEU": f"{bleu:.2f}",
                "steps": f"{cost[0] / len(drawn):.1f}",
                "tokens": f"{cost[1] / len(drawn):.1f}",
            }
        )
    return rows


def decoded(running: RunningServer) -> tuple[float, float]:
    """The steps of a server so far, and the tokens that they decoded."""
    if not running.metrics_url:
        return 0.0, 0.0
    return running.total("attendant_step_rows_count"), running.total("attendant_step_rows_sum")


def has_word(text: str, word: str) -> bool:
    """Whether a text has a word, which may begin with a capital letter."""
    return re.search(rf"\b(?:{word}|{word[:1].upper()}{word[1:]})\b", text) is not None


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    add_target(parser)
    parser.add_argument("--model", default="en-de", help="name of an English-German model")
    parser.add_argument("--texts", type=int, default=500, help="number of sentences")
    parser.add_argument("--terms", type=int, default=1, help="terms of each sentence")
    return parser


def main() -> None:
    """Run the bench and print a table."""
    options = build_parser().parse_args()
    references = tatoeba_sentences(options.data_dir)
    pairs = [(source, targets[0]) for source, targets in references.items()]
    with given_server(options.target) as running, Client(running.target) as client:
        drawn = draw_terms(client, options.model, pairs, options.texts, options.terms)
        rows = measure(client, options.model, running, drawn)
    content = {"model": options.model, "terms": options.terms, "rows": rows}
    report(f"glossary-{options.model}-{options.terms}", content, table(rows))


if __name__ == "__main__":
    main()
