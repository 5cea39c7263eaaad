"""Word vectors of word2vec, fastText and GloVe become static embeddings."""

import gzip
import tracemalloc

import numpy as np
import pytest
import torch
from attendant_export.__main__ import main
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_export.bundle.manifest import read_manifest
from attendant_export.bundle.original import verify_against
from attendant_export.data.word_tokenizer import word_tokenizer
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.families import read_model
from attendant_export.importers.sources import open_checkpoint
from attendant_export.importers.word_vector_files import read_word_table
from attendant_export.verify.graph_sessions import ParityError
from attendant_export.verify.original import OriginalError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.static_checkpoints import words, write_model2vec
from tests.support.word_vector_files import (
    drawn_vectors,
    forms_of,
    glove,
    word2vec_binary,
    word2vec_text,
    written,
)

pytestmark = pytest.mark.usefixtures("quiet_threads")

VECTORS = drawn_vectors()
FORMS = forms_of(VECTORS)
ROWS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3)
WORDS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1).filter(
    lambda word: word != "[UNK]" and word.split() == [word]
)


def read(path, max_words=None):
    """The imported model of a file."""
    return read_model(open_checkpoint(str(path)), max_words=max_words)


@torch.inference_mode()
def pooled(imported, ids):
    """The vector of a text with these token ids."""
    return imported.model.pooled(torch.tensor([ids]))[0].numpy()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_same_vectors(form, tmp_path):
    imported = read(written(tmp_path / "vectors", FORMS[form]))
    for word, row in VECTORS.items():
        ids = imported.tokenizer.encode(word).ids
        assert len(ids) == 1
        np.testing.assert_array_equal(pooled(imported, ids), row)


@given(vectors=st.dictionaries(WORDS, ROWS, min_size=1, max_size=5), form=st.sampled_from([*FORMS]))
def test_all_words_and_numbers_are_read_as_they_are_written(vectors, form, tmp_path_factory):
    vectors = {word: np.array(row, np.float32) for word, row in vectors.items()}
    path = written(tmp_path_factory.mktemp("drawn") / "vectors", forms_of(vectors)[form])
    table = read_word_table(path)
    assert [*table.ids] == ["[UNK]", *vectors]
    np.testing.assert_array_equal(table.vectors[1:], [*vectors.values()])


def test_the_vector_of_a_text_is_the_mean_of_its_known_words(tmp_path):
    imported = read(written(tmp_path / "vectors", FORMS["glove"]))
    encoding = imported.tokenizer.encode("The cat, xyz E-MAIL New_York mat-cat?")
    known = ["the", "cat", ",", "e-mail", "new_york"]  # "mat-cat" is one word, as "e-mail".
    ids = [imported.tokenizer.token_to_id(word) for word in known]
    assert encoding.ids == [*ids[:3], 0, *ids[3:], 0, 0]
    expected = np.mean([VECTORS[word] for word in known], axis=0)
    np.testing.assert_allclose(pooled(imported, encoding.ids), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "text", "tokens"),
    [
        (["a", "b"], "A B", ["a", "b"]),
        (["a", "B"], "A B b", ["[UNK]", "B", "[UNK]"]),
        (["a", "b", "-"], "a-b", ["a", "-", "b"]),
        (["a", "a-b"], "a-b a", ["a-b", "a"]),
        (
            ["do", "ca", "n't", "it", "'s"],
            "Don't can't it's",
            ["do", "n't", "ca", "n't", "it", "'s"],
        ),
        (["don't", "it's"], "don't it\u2019s", ["don't", "it's"]),
        (["don't", "it\u2019s"], "don't it\u2019s", ["don't", "it\u2019s"]),
        (["new", "york", "new_york"], "new york new_york", ["new", "york", "new_york"]),
        (["3.5", "."], "3.5.", ["3.5", "."]),
        (["हिन्दी", "é"], "हिन्दी é", ["हिन्दी", "é"]),
    ],
)
def test_texts_are_split_into_the_words_of_the_file(words, text, tokens):
    ids = {word: number for number, word in enumerate(["[UNK]", *words])}
    assert word_tokenizer(ids).encode(text).tokens == tokens


@pytest.mark.parametrize("form", FORMS)
def test_only_the_first_words_are_imported_if_asked_for(form, tmp_path):
    path = written(tmp_path / "vectors", FORMS[form])
    assert [*read_word_table(path, 2).ids] == ["[UNK]", "the", "cat"]
    assert len(read_word_table(path, 99).ids) == len(VECTORS) + 1


def test_the_first_of_repeated_words_is_kept_and_words_with_spaces_are_left_out(tmp_path, caplog):
    path = written(tmp_path / "vectors", b"a 1 2\nb 3 4\na 5 6\n. . 7 8\n\xc2\xa0 1 1\n[UNK] 9 9\n")
    table = read_word_table(path)
    assert table.ids == {"[UNK]": 0, "a": 1, "b": 2}
    assert table.vectors.tolist() == [[0, 0], [1, 2], [3, 4]]
    assert "2 words are there already" in caplog.text
    assert "2 words are empty or have white space" in caplog.text


def test_words_that_no_text_can_have_are_counted(tmp_path, caplog):
    read(written(tmp_path / "vectors", b"a 1 2\n:-) 3 4\n"))
    assert "1 of 2 words are never found in texts" in caplog.text


TEXT, BINARY = word2vec_text(VECTORS), word2vec_binary(VECTORS)
WRONG = {
    "an empty file": (b"", "is empty"),
    "a blank file": (b"\n\n", "is empty"),
    "another file": (b'{\n"a": 1}\n', "is no file of word vectors: its first line is neither"),
    "a model of fastText": (b"\xba\x16\x4f\x2f\x0c\0\0\0", "is a model of fastText"),
    "no words": (b"0 5\n", "line 1: 0 words of dimension 5"),
    "a very large number": (b"999999999999 300\na 1\n", "is too short for the 999999999999 words"),
    "too few numbers": (b"a 1 2\nb 3\n", "line 2 has 1 numbers after the word, want 2"),
    "too many numbers": (b"a 1 2\nb 3 4 5\n", "line 2 has 3 numbers after the word, want 2"),
    "too few numbers in the first line": (
        b"2 3\na 1 2\nb 1 2 3\n",
        "line 2 has 2 numbers after the word, want 3",
    ),
    "a blank line": (b"a 1 2\n\nb 3 4\n", "line 2 has 0 numbers after the word, want 2"),
    "a word instead of a number": (b"a 1 2\nb 1 x\n", "line 2: 'x' is not a number"),
    "NaN": (b"a 1 2\nb nan 4\n", "line 2: a number is not finite in fp32"),
    "infinity": (b"2 2\na 1 2\nb 1 -inf\n", "line 3: a number is not finite in fp32"),
    "a number too large for fp32": (b"a 1 2\nb 1e39 1\n", "line 2: a number is not finite"),
    "a word that is not UTF-8": (b"2 2\na 1 2\n\xe9t\xe9 1 2\n", "line 3: the word is not UTF-8"),
    "fewer words than stated": (
        b"3 2\na 1 2\nb 1 2\n",
        "ends before line 4: line 1 states 3 words",
    ),
    "more words than stated": (b"1 2\na 1 2\nb 1 2\n", "has more than the 1 words that line 1"),
    "a cut vector": (BINARY[:-9], "ends in word 8 of 8"),
    "a missing word": (
        word2vec_binary(drawn_vectors(("a", "b"))).replace(b"2 5", b"3 5") + b"c" * 30,
        "ends before word 3, or within it",
    ),
    "further bytes": (BINARY + b"x", "has more than the 8 words that line 1 states"),
    "binary NaN": (
        b"1 2\na " + np.array([1, np.nan], "<f4").tobytes(),
        "word 1: a number is not finite in fp32",
    ),
    "a binary word that is not UTF-8": (
        b"1 2\n\xff " + np.ones(2, "<f4").tobytes(),
        "word 1: the word is not UTF-8",
    ),
    "a damaged compressed file": (gzip.compress(TEXT)[:-20], "the compressed file is damaged"),
    "words that no text has": (b":-) 1 2\n", "has no words that texts can have"),
}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
def test_wrong_files_are_refused_with_their_place(content, message, tmp_path, refusal):
    path = written(tmp_path / "vectors.txt", content)
    line = refusal(path, "--license", "mit")
    assert str(path) in line
    assert message in line


def test_a_long_line_is_refused(tmp_path):
    path = written(tmp_path / "vectors", b"a 1 2\n" + b"b" * (1 << 21) + b" 1 2\n")
    with pytest.raises(CheckpointError, match="line 2 has more than 1048576 bytes"):
        read_word_table(path)


def test_options_that_do_not_fit_are_refused(tmp_path, refusal):
    path = written(tmp_path / "vectors", glove(VECTORS))
    assert "give --license" in refusal(path)
    licensed = (path, "--license", "mit")
    assert "--max-words 0: want at least 1" in refusal(*licensed, "--max-words", "0")
    assert "--revision is for models on the hub" in refusal(*licensed, "--revision", "x")
    assert "--without-head is for embedding models" in refusal(*licensed, "--without-head")
    assert "--tokenizer is for models of CT" in refusal(*licensed, "--tokenizer", "whitespace")
    folder = write_model2vec(tmp_path / "source", words())
    assert "--max-words is for files of word vectors" in refusal(folder, "--max-words", "9")


def test_a_file_is_written_as_a_bundle_without_the_other_files_of_its_folder(tmp_path):
    (tmp_path / "config.json").write_text("not of this file")
    path = written(tmp_path / "Tiny.5d.txt.gz", FORMS["glove-gz"])
    bundles = str(tmp_path / "bundles")
    precisions = ("--precisions", "fp32,fp16,int8", "--languages", "en")
    main(["import", str(path), "--bundles-dir", bundles, "--license", "mit", *precisions])

    bundle = tmp_path / "bundles" / "tiny-5d" / "1"
    main(["verify", str(bundle)])
    manifest = read_manifest(bundle)
    origin = manifest.provenance.imported_from
    assert (origin.source, origin.family) == ("Tiny.5d.txt.gz", "word-vectors")
    assert [file.path for file in origin.files] == ["Tiny.5d.txt.gz"]
    assert manifest.special_tokens.unk_id == manifest.architecture.text_vectors.excluded_token_id
    assert manifest.parity.original.implementation == "gensim"


@pytest.mark.parametrize("form", FORMS)
def test_a_bundle_is_verified_against_its_file_as_gensim_reads_it(form, tmp_path, caplog):
    path = written(tmp_path / ("words.gz" if form.endswith("gz") else "words"), FORMS[form])
    options = ImportOptions(license="mit", precisions=("fp32", "int8"), max_words=6)
    bundle = import_bundle(path, tmp_path / "bundles", options)
    assert "not compared" not in caplog.text

    lines = verify_against(bundle, str(path))

    assert "gensim" in lines[0]
    assert read_manifest(bundle).parity.original.num_different_token_ids == 0


def test_words_that_are_left_out_do_not_move_those_that_gensim_reads(tmp_path):
    path = written(tmp_path / "words", b"a 1 2\n\xc2\xa0 1 1\n[UNK] 9 9\nthe 3 4\n")
    bundle = import_bundle(path, tmp_path / "bundles", ImportOptions(license="mit"))
    assert verify_against(bundle, str(path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (b"the 1 2\n, 3 5\n", "vectors differ from gensim"),
        (b", 3 4\nthe 1 2\n", "token ids"),
        (b"the 1 2 3\n, 3 4 5\n", r"vectors of gensim are \(\d+, 3\)"),
    ],
)
def test_another_file_of_word_vectors_does_not_pass_for_the_imported_one(
    changed, message, tmp_path
):
    path = written(tmp_path / "words", b"the 1 2\n, 3 4\n")
    bundle = import_bundle(path, tmp_path / "bundles", ImportOptions(license="mit"))
    path.write_bytes(changed)
    with pytest.raises(ParityError, match=message):
        verify_against(bundle, str(path))


def test_a_file_that_gensim_cannot_read_is_no_parity_error(tmp_path):
    path = written(tmp_path / "words", b"the 1 2\n. . 3 4\n")
    bundle = import_bundle(path, tmp_path / "bundles", ImportOptions(license="mit"))
    with pytest.raises(OriginalError, match="gensim 4.4.0 cannot load"):
        verify_against(bundle, str(path))


@pytest.mark.parametrize("write", [glove, word2vec_text, word2vec_binary])
def test_reading_takes_little_memory_beyond_the_vectors(write, tmp_path):
    words = tuple(f"word{number}" for number in range(3000))
    path = written(tmp_path / "vectors", write(drawn_vectors(words, dimension=300)))
    tracemalloc.start()
    try:
        table = read_word_table(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Apart from the beginning of the file, by which its form is recognized.
    assert peak - 2.5 * (1 << 20) < 1.5 * table.vectors.nbytes


def test_the_first_words_of_a_long_file_without_a_first_line_are_no_damage(tmp_path, monkeypatch):
    monkeypatch.setattr("attendant_export.importers.word_vector_files.CHUNK", 6)
    path = written(tmp_path / "vectors", b"a 1 2\nb 3 4\nc 5 6\n")
    for number in (1, 2, 3, 4):
        assert len(read_word_table(path, number).ids) == min(number, 3) + 1
