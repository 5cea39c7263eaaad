import gzip

import pytest

from bench.texts import PARAGRAPHS, TATOEBA_TEST, paragraphs, sample_texts


@pytest.fixture
def data_dir(tmp_path):
    def write(name: str, lines: list[str]) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)

    write(TATOEBA_TEST, [f"Short {i}.\tKurz {i}." for i in range(40)])
    for name in PARAGRAPHS:
        write(name, [f"This is long number {i}. No. And here is another one!" for i in range(40)])
    return tmp_path


def test_the_same_seed_gives_the_same_texts(data_dir):
    assert sample_texts(data_dir, "mixed", 12, 1) == sample_texts(data_dir, "mixed", 12, 1)
    assert sample_texts(data_dir, "mixed", 12, 1) != sample_texts(data_dir, "mixed", 12, 2)


def test_mixed_texts_are_three_short_ones_to_a_long_one(data_dir):
    texts = sample_texts(data_dir, "mixed", 12)

    assert sum(text.startswith("Short") for text in texts) == 9
    assert len(texts) == 12


def test_paragraphs_are_split_into_sentences_of_a_few_words_and_more(data_dir):
    texts = sample_texts(data_dir, "long", 160)

    assert set(texts) == {f"This is long number {i}." for i in range(40)} | {
        "And here is another one!"
    }


def test_texts_repeat_only_when_there_are_no_more(data_dir):
    assert len(set(sample_texts(data_dir, "short", 40))) == 40
    assert len(sample_texts(data_dir, "short", 100)) == 100


def test_paragraphs_stay_whole(data_dir):
    assert all(text.endswith("another one!") for text in paragraphs(data_dir, 5))
