"""Counts the glossary terms that translations have, and what they cost in BLEU.

    python -m bench.quality.glossary --data-dir DATA_DIR --model en-de --texts 500

The terms come from the references: for each test sentence one word of the source, with at least
four letters, that the model aligns to exactly one word of the reference, and that word. They are
drawn at random, and are a glossary of the sentence alone (as Dinu et al. 2019 test terminology).
Translates all sentences without and with their glossaries and prints how many translations have
their terms as whole words, and BLEU. Starts a server of the built-in bundles without ``--target``.
"""

import argparse
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

from attendant_client import Client, TranslationScore

from bench.arguments import bench_parser
from bench.quality.translation import bleu_and_chrf
from bench.reporting import report, table
from bench.servers import RunningServer, running_server
from bench.texts import tatoeba_sentences

LEAST_LETTERS, LEAST_WEIGHT = 4, 0.5


class DrawnTerm(NamedTuple):
    """A sentence and a term of it."""

    source: str
    reference: str
    term: str
    translation: str


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
    client: Client, model: str, pairs: Sequence[tuple[str, str]], num_texts: int
) -> list[DrawnTerm]:
    """One term of each of some pairs."""
    rng = random.Random(1)
    drawn = rng.sample(list(pairs), min(len(pairs), 2 * num_texts))
    scores = client.score(drawn, model=model, return_alignments=True)
    found = []
    for (source, target), score in zip(drawn, scores, strict=True):
        if terms := list(candidates(source, target, score)):
            found.append(DrawnTerm(source, target, *rng.choice(terms)))
    return found[:num_texts]


def measure(client: Client, model: str, drawn: Sequence[DrawnTerm]) -> list[dict[str, object]]:
    """A row of the table without glossaries, and one with them."""
    rows: list[dict[str, object]] = []
    for has_glossary in (False, True):
        found = [
            client.translate(
                each.source,
                model=model,
                glossary_entries={each.term: each.translation} if has_glossary else None,
            ).text
            for each in drawn
        ]
        terms = zip(found, (each.translation for each in drawn), strict=True)
        bleu, _ = bleu_and_chrf(found, [[each.reference] for each in drawn])
        rows.append(
            {
                "glossary": "yes" if has_glossary else "no",
                "sentences": len(drawn),
                "terms": sum(has_word(text, term) for text, term in terms),
                "BLEU": f"{bleu:.2f}",
            }
        )
    return rows


def has_word(text: str, word: str) -> bool:
    """Whether a text has a word, which may begin with a capital letter."""
    return re.search(rf"\b(?:{word}|{word[:1].upper()}{word[1:]})\b", text) is not None


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--target", help="address of a running server; default: start one")
    parser.add_argument("--model", default="en-de", help="name of an English-German model")
    parser.add_argument("--texts", type=int, default=500)
    return parser


def main() -> None:
    """Run the bench and print a table."""
    options = build_parser().parse_args()
    references = tatoeba_sentences(options.data_dir)
    pairs = [(source, targets[0]) for source, targets in references.items()]
    given = nullcontext(RunningServer(options.target)) if options.target else None
    with given or running_server() as running, Client(running.target) as client:
        rows = measure(
            client, options.model, draw_terms(client, options.model, pairs, options.texts)
        )
    report(f"glossary-{options.model}", {"model": options.model, "rows": rows}, table(rows))


if __name__ == "__main__":
    main()
