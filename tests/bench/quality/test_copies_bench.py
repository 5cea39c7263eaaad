import sys

import pytest

from bench.quality import copies
from bench.quality.accepted_parts import Sentence, read_sentences
from bench.quality.copies import PART, copied_parts, right_parts
from bench.servers import running_server

SENTENCES = read_sentences(copies.SENTENCES)


def test_there_are_forty_four_different_sentences():
    assert len({sentence.source for sentence in SENTENCES}) == len(SENTENCES) == 44


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.source)
def test_each_part_is_within_its_sentence_and_has_accepted_places(sentence: Sentence):
    parts = copied_parts(sentence.source)
    assert len(parts) == len(sentence.accepted) == len(set(parts))
    assert not sentence.source.startswith(parts[0])
    assert not sentence.source.rstrip(".?!").endswith(parts[-1])
    for places in sentence.accepted:
        assert all(place.count(PART) == 1 and len(place) > 2 for place in places)


def test_a_part_is_right_at_an_accepted_place_only():
    sentence = Sentence("See www.a.b and \U0001f600 now.", (("Sieh *",), ("und *", "* jetzt")))
    assert right_parts(sentence, "Sieh www.a.b und \U0001f600 jetzt.") == [True, True]
    assert right_parts(sentence, "www.a.b Sieh und jetzt \U0001f600.") == [False, False]


def test_the_bench_counts_the_parts_of_the_built_in_model(tmp_path, monkeypatch, capsys):
    bundles = copies.SENTENCES.parents[2] / "bundles"
    monkeypatch.chdir(tmp_path)
    flags = [f"--bundles={bundles}", "--models=en-de", "--num-threads=1"]
    with running_server(*flags) as server:
        monkeypatch.setattr(sys, "argv", ["copies", f"--target={server.target}"])
        copies.main()
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| 4"))
    parts, right = map(int, row.strip("| ").split("|"))
    assert right >= 0.8 * parts
    assert (tmp_path / "build/bench/copies-en-de.json").exists()
