import sys

import pytest
from attendant_client import WordAlignment

from bench.quality import alignment
from bench.quality.alignment import AlignedPair, found_links, quality, read_pairs
from bench.servers import running_server

PAIRS = read_pairs()


def words(text: str) -> list[str]:
    return [match.group() for match in alignment._WORDS.finditer(text)]


def test_there_are_sixty_different_pairs():
    assert len({pair.source for pair in PAIRS}) == len(PAIRS) == 60


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.source)
def test_all_links_of_a_pair_are_words_and_all_words_but_a_few_have_links(pair: AlignedPair):
    sources, targets = words(pair.source), words(pair.target)
    assert {i for i, _ in pair.links} <= {*range(len(sources))}
    assert {j for _, j in pair.links} <= {*range(len(targets))}
    assert len(sources) - len({i for i, _ in pair.links}) <= 2
    without = {*range(len(targets))} - {j for _, j in pair.links}
    assert all(targets[j] == "," for j in without)
    assert (sources[-1], targets[-1]) in {(mark, mark) for mark in ".?"}
    assert (len(sources) - 1, len(targets) - 1) in pair.links


def test_links_of_an_answer_become_places_of_words():
    pair = AlignedPair("A dog.", "Der Hund.", frozenset())
    found = [WordAlignment(2, 5, 4, 8, 0.5), WordAlignment(5, 6, 8, 9, 0.5)]
    assert found_links(pair, found) == {(1, 1), (2, 2)}


def test_the_error_rate_is_that_of_och_and_ney():
    right, found = frozenset({(0, 0), (1, 1), (2, 2)}), frozenset({(0, 0), (1, 2)})
    assert quality([right], [right]).error_rate == 0
    both = quality([right, right], [right, found])
    assert both.error_rate == pytest.approx(1 - 2 * 4 / (5 + 6))
    assert (both.precision, both.recall) == (4 / 5, 4 / 6)


def test_the_bench_reports_the_quality_of_both_directions(tmp_path, monkeypatch, capsys):
    bundles = alignment.PAIRS.parents[2] / "bundles"
    flags = [f"--bundles={bundles}", "--models=en-de,de-en", "--num-threads=1"]
    monkeypatch.chdir(tmp_path)
    with running_server(*flags) as server:
        for model in ("en-de", "de-en"):
            command = ["alignment", f"--target={server.target}", f"--model={model}"]
            monkeypatch.setattr(sys, "argv", command)
            alignment.main()
            assert (tmp_path / f"build/bench/alignment-{model}.json").exists()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 60")]
    rates = [float(row.split("|")[3]) for row in rows]
    assert len(rates) == 2
    assert all(0 < rate < 0.2 for rate in rates)
