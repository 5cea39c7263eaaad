"""Evaluates the served embeddings and masked words through the client."""

import csv
import gzip
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from attendant_client import Client
from attendant_client.results import Token

STSB_TEST = "stsb-open/stsb-open.en.test.tsv.gz"
NUM_MASKED = 1000
"""Sentences per language in which one word piece is masked."""


def measure_retrieval(client: Client, references: dict[str, list[str]]) -> dict[str, float]:
    """Share of sentences whose nearest neighbour in the other language is their translation."""
    english = client.embed(list(references)).raise_for_errors().vectors
    german = client.embed([r[0] for r in references.values()]).raise_for_errors().vectors
    cosines = english @ german.T  # (english, german), of unit vectors
    own = np.arange(len(cosines))
    to_german = float((cosines.argmax(1) == own).mean())
    to_english = float((cosines.argmax(0) == own).mean())
    return {
        "english_to_german": to_german,
        "german_to_english": to_english,
        "mean": (to_german + to_english) / 2,
        "num_sentences": len(cosines),
    }


def ranks_of(values: np.ndarray) -> np.ndarray:
    """The rank of each value, from 0. Equal values share their mean rank."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[which])


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation: Pearson's of the ranks."""
    return float(np.corrcoef(ranks_of(first), ranks_of(second))[0, 1])


def measure_similarity(client: Client, data_dir: Path) -> dict[str, float]:
    """Spearman's correlation of cosines with human judgements on the open subset of STS-B (test).

    Not comparable with figures for the whole STS-B.
    """
    with gzip.open(data_dir / STSB_TEST, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    first, second = (
        client.embed([row[side] for row in rows]).raise_for_errors().vectors
        for side in ("sentence1", "sentence2")
    )
    scores = np.array([float(row["score"]) for row in rows])
    return {"spearman": spearman((first * second).sum(1), scores), "num_pairs": len(rows)}


def mask_one(text: str, tokens: Sequence[Token], rng: random.Random) -> tuple[str, int] | None:
    """The text with one random word piece masked, and the id of the piece; None without words.

    Only the last piece of a word is masked, since masking an earlier piece would change the
    tokenization of the rest. Punctuation is not masked.
    """
    choices = [
        token
        for token in tokens
        if not token.special
        and text[token.end - 1].isalnum()
        and not text[token.end : token.end + 1].isalnum()
    ]
    if not choices:
        return None
    token = rng.choice(choices)
    return text[: token.start] + "[MASK]" + text[token.end :], token.id


def measure_masks(client: Client, texts: Sequence[str], model: str) -> dict[str, float]:
    """Accuracy of the best guess for one masked word piece per text."""
    rng = random.Random(1)
    read = client.tokenize(texts, model=model).raise_for_errors()
    pairs = zip(texts, read, strict=True)
    masked = [m for text, found in pairs if (m := mask_one(text, found.tokens, rng))]
    filled = client.fill_mask([text for text, _ in masked], 1, model=model)
    guesses = [result.masks[0].candidates[0].id for result in filled]
    hits = [guess == token_id for guess, (_, token_id) in zip(guesses, masked, strict=True)]
    return {"accuracy": sum(hits) / len(hits), "num_texts": len(hits)}


def measure_embeddings(
    client: Client, data_dir: Path, references: dict[str, list[str]]
) -> dict[str, dict[str, float]]:
    """All of the above on STS-B and the test sentences, which no model was trained on."""
    model = next(m.name for m in client.models() if m.kind == "embedding")
    english = random.Random(1).sample(list(references), min(NUM_MASKED, len(references)))
    return {
        "retrieval": measure_retrieval(client, references),
        "stsb_open_test": measure_similarity(client, data_dir),
        "masked_english": measure_masks(client, english, model),
        "masked_german": measure_masks(client, [references[e][0] for e in english], model),
    }
