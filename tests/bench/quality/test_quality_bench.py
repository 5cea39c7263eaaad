import gzip
import random

import numpy as np
import pytest
from attendant_client import Client
from attendant_client.results import Token

from bench.quality.embedding import (
    STSB_TEST,
    mask_one,
    measure_embeddings,
    ranks_of,
    spearman,
)
from bench.quality.invariance import measure_invariance
from bench.quality.translation import (
    casual_references,
    count_faults,
    is_looping,
    measure_translation,
)
from bench.servers import running_server
from bench.texts import GOVERNMENT, sample_texts


def tokens(*spans: tuple[int, int]) -> list[Token]:
    return [Token(number, "", *span, special=span == (0, 0)) for number, span in enumerate(spans)]


def test_equal_values_share_the_mean_of_their_ranks():
    assert ranks_of(np.array([3.0, 1.0, 3.0, 9.0])).tolist() == [1.5, 0.0, 1.5, 3.0]


def test_spearman_is_that_computed_by_hand():
    first, second = np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 30.0, 20.0, 99.0])

    assert spearman(first, second) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert spearman(first, -first) == pytest.approx(-1)


def test_only_the_last_piece_of_a_word_is_masked():
    text = "walking, no."
    pieces = tokens((0, 0), (0, 4), (4, 7), (7, 8), (9, 11), (11, 12), (0, 0))

    found = {mask_one(text, pieces, random.Random(seed)) for seed in range(20)}

    assert found == {("walk[MASK], no.", 2), ("walking, [MASK].", 4)}


def test_a_text_without_words_is_not_masked():
    assert mask_one("...", tokens((0, 0), (0, 1), (1, 2)), random.Random(1)) is None


def test_empty_and_repeating_translations_are_counted():
    found = count_faults(["fine", " ", "so so so it goes", "on and on and on and"])

    assert found == {"num_empty": 1, "num_looping": 2, "num_sentences": 4}
    assert not is_looping("so so it goes")


def test_casual_sources_have_neither_capitals_nor_final_punctuation():
    references = {"Is Tom in?": ["Ist Tom da?"], "Is Tom in!": ["Tom ist da!"], "…": ["…"]}

    assert casual_references(references) == {
        "is tom in": ["Ist Tom da?", "Tom ist da!"],
        "…": ["…"],
    }


def test_government_sentences_are_of_one_file(tmp_path):
    write(tmp_path / GOVERNMENT, ["One sentence is here. Another sentence is there!"])

    assert set(sample_texts(tmp_path, "government", 2)) == {
        "One sentence is here.",
        "Another sentence is there!",
    }


def write(path, lines):
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_the_served_bundles_are_measured(translation_bundle, embedding_bundle, tmp_path):
    rows = [
        ["score", "sentence1", "sentence2"],
        ["5", "The dog", "The dog"],
        ["1", "The king", "The cat sees"],
    ]
    write(tmp_path / STSB_TEST, ["\t".join(row) for row in rows])
    references = {"The dog waits.": ["Der Hund wartet."], "The king sees.": ["Der König sieht."]}
    long_references = references | {"The dog sees the cat. " * 4: ["Der Hund sieht. " * 4]}
    bundles = tmp_path / "bundles"
    for bundle in (translation_bundle, embedding_bundle):
        (bundles / bundle.parent.name).mkdir(parents=True)
        (bundles / bundle.parent.name / bundle.name).symlink_to(bundle)

    with (
        running_server(f"--bundles={bundles}", "--num-threads=1") as server,
        Client(server.target, timeout_seconds=60) as client,
    ):
        translated = measure_translation(client, long_references, 1)
        invariance = measure_invariance(client, list(references), 1, "")
        figures = measure_embeddings(client, tmp_path, references)

    assert translated["num_sentences"] == len(long_references)
    assert translated["num_sentences_over_15_words"] == 1
    assert invariance["num_sentences"] == 2
    assert invariance["max_log_probability_difference"] < 1e-4
    assert figures["stsb_open_test"]["spearman"] == pytest.approx(1)
    assert figures["masked_english"]["num_texts"] == figures["masked_german"]["num_texts"] == 2
    assert 0 <= figures["retrieval"]["mean"] <= 1
