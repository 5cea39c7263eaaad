"""Embedding models without ``tokenizer.json`` have the tokens of their vocabulary files."""

import json
from itertools import islice

import pytest
from attendant_export.bundle.importing import sample_texts
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.special_tokens import read_tokenizer
from tokenizers import Tokenizer

from tests.support.checkpoints import change_json, write_checkpoint, write_json
from tests.support.imports import import_
from tests.support.multilingual_checkpoints import tiny_pieces
from tests.support.sentencepiece_files import write_sentencepiece
from tests.support.sentencepiece_texts import drawn_texts, read_plainly

FAMILIES = ("bert", "distilbert", "mpnet", "roberta")
TEXTS = [*sample_texts(), "", " ", "x" * 300, *islice(drawn_texts(), 2000)]

pytestmark = pytest.mark.usefixtures("very_few_texts", "quiet_threads")


def with_files(folder, family):
    """A checkpoint whose tokenizer is in vocabulary files, and that tokenizer."""
    write_checkpoint(folder, family)
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    path.unlink()
    if family == "mpnet":  # The normalizer of the configuration.
        change_json(folder / "tokenizer_config.json", do_lower_case=True)
    ids = tokenizer.get_vocab()
    if family == "roberta":
        write_json(folder / "vocab.json", ids)
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        lines = [each if isinstance(each, str) else " ".join(each) for each in merges]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
    else:
        lines = [f"{text}\n" for _, text in sorted((i, text) for text, i in ids.items())]
        (folder / "vocab.txt").write_text("".join(lines))
    return folder, tokenizer


def with_pieces(folder):
    """A checkpoint of XLM-RoBERTa whose tokenizer is a SentencePiece model."""
    write_checkpoint(folder, "xlm-roberta")
    (folder / "tokenizer.json").unlink()
    write_sentencepiece(folder / "sentencepiece.bpe.model", tiny_pieces())
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_the_same_tokenizer_in_json(family, tmp_path):
    source, expected = with_files(tmp_path / "source", family)
    expected, found = read_plainly(expected), read_plainly(read_tokenizer(Checkpoint(source)))
    for text in TEXTS:
        for given in ((text,), (text, "the other one")):
            a, b = expected.encode(*given), found.encode(*given)
            assert (a.ids, a.offsets, a.type_ids) == (b.ids, b.offsets, b.type_ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_the_original(family, tmp_path):
    transformers = pytest.importorskip("transformers")
    source, _ = with_files(tmp_path / "source", family)
    original = transformers.AutoTokenizer.from_pretrained(source)
    found = read_plainly(read_tokenizer(Checkpoint(source)))
    assert original(TEXTS)["input_ids"] == [each.ids for each in found.encode_batch(TEXTS)]


def test_pieces_are_those_of_sentencepiece_with_the_ids_of_fairseq(tmp_path):
    library = pytest.importorskip("sentencepiece")
    source = with_pieces(tmp_path / "source")
    original = library.SentencePieceProcessor(str(source / "sentencepiece.bpe.model"))
    found = read_plainly(read_tokenizer(Checkpoint(source)))
    for text in TEXTS:
        pieces = [piece + 1 if piece else 3 for piece in original.encode(text)]
        assert found.encode(text).ids == [0, *pieces, 2]
    assert found.encode("a", "b").ids.count(2) == 3
    assert found.token_to_id("<mask>") == original.vocab_size() + 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_with_vocabulary_files_becomes_a_bundle(family, tmp_path):
    source, _ = with_files(tmp_path / "source", family)
    manifest = read_manifest(import_(source, tmp_path / "bundles"))
    names = {file.path for file in manifest.provenance.imported_from.files}
    assert names & {"vocab.txt", "merges.txt"}
    if manifest.parity.HasField("original"):
        assert manifest.parity.original.num_different_token_ids == 0


@pytest.mark.parametrize(
    ("added", "has_file"), [({"train station": 400}, True), ({"train station": 400}, False)]
)
def test_added_tokens_of_texts_are_refused(added, has_file, tmp_path):
    source, _ = with_files(tmp_path / "source", "bert")
    if has_file:
        write_json(source / "added_tokens.json", added)
    else:
        decoder = {str(i): {"content": text, "special": False} for text, i in added.items()}
        change_json(source / "tokenizer_config.json", added_tokens_decoder=decoder)
    with pytest.raises(CheckpointError, match="added tokens train station are not supported"):
        read_tokenizer(Checkpoint(source))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("never_split", ["a"], r"never_split is \['a'\], which is not supported"),
        ("do_basic_tokenize", False, "do_basic_tokenize is False, which is not supported"),
        ("do_lower_case", "no", "do_lower_case is 'no', which is not supported"),
        ("cls_token", "[START]", r"the special token \[START\] has no id"),
    ],
)
def test_an_option_of_wordpiece_is_named(field, value, message, tmp_path):
    source, _ = with_files(tmp_path / "source", "bert")
    change_json(source / "tokenizer_config.json", **{field: value})
    with pytest.raises(CheckpointError, match=message):
        read_tokenizer(Checkpoint(source))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tokenizer_that_reads_the_files_otherwise_is_named(family, tmp_path):
    source, _ = with_files(tmp_path / "source", family)
    change_json(source / "tokenizer_config.json", tokenizer_class="OtherTokenizer")
    message = (
        r"tokenizer_class is 'OtherTokenizer', which is not supported; supported: '\w+Tokenizer"
    )
    with pytest.raises(CheckpointError, match=message):
        read_tokenizer(Checkpoint(source))


def test_a_vocabulary_that_is_no_text_is_named(tmp_path):
    source, _ = with_files(tmp_path / "source", "bert")
    (source / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="vocab.txt is not UTF-8"):
        read_tokenizer(Checkpoint(source))
