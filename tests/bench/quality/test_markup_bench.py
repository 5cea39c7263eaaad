import sys

import pytest

from bench.quality import markup
from bench.quality.accepted_parts import Sentence, read_sentences
from bench.quality.markup import contents, right_elements
from bench.servers import running_server

SENTENCES = read_sentences(markup.SENTENCES)


def test_there_are_fifty_different_sentences():
    assert len({sentence.source for sentence in SENTENCES}) == len(SENTENCES) == 50


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.source)
def test_each_element_of_a_sentence_has_accepted_contents(sentence: Sentence):
    elements = contents(sentence.source)
    assert len({element.tag for element in elements}) == len(elements)
    assert len(sentence.accepted) == len(elements)
    assert all(accepted and all(accepted) for accepted in sentence.accepted)


def test_an_element_is_right_if_it_occurs_once_with_accepted_content():
    sentence = Sentence("<b>a</b> <i>b</i>", (("x", "y"), ("z",)))
    assert right_elements(sentence, "<i>z</i> <b>y</b>") == [True, True]
    assert right_elements(sentence, "<b>x</b><b>y</b> <i>w</i>") == [False, False]
    assert right_elements(sentence, "x z") == [False, False]


def test_the_bench_counts_the_elements_of_the_built_in_model(tmp_path, monkeypatch, capsys):
    bundles = markup.SENTENCES.parents[2] / "bundles"
    monkeypatch.chdir(tmp_path)
    flags = [f"--bundles={bundles}", "--models=en-de", "--num-threads=1"]
    with running_server(*flags) as server:
        monkeypatch.setattr(sys, "argv", ["markup", f"--target={server.target}"])
        markup.main()
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| 7"))
    elements, right = map(int, row.strip("| ").split("|"))
    assert right >= 0.95 * elements
    assert (tmp_path / "build/bench/markup-en-de.json").exists()
