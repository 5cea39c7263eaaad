"""BPE codes of subword-nmt give the tokens of the original."""

import random
from pathlib import Path

import pytest
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.subword_codes import HEADER, codes_tokenizer, read_codes

from tests.support.imports import import_
from tests.support.opennmt_py_files import SPECIAL, write_checkpoint

pytestmark = pytest.mark.usefixtures("very_few_texts")

LETTERS = "abcdé中"
ARGUMENTS = ("--license", "MIT", "--source-languages", "en", "--target-languages", "de")


def learnt_codes(draw, num_merges):
    """Merges in an order that learning gives: those of symbols that exist already."""
    symbols = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    merges: list[tuple[str, str]] = []
    while len(merges) < num_merges:
        first, second = draw.choice(symbols), draw.choice(symbols)
        if not first.endswith("</w>") and first + second not in symbols:
            merges.append((first, second))
            symbols.append(first + second)
    return merges


def write_codes(path: Path, merges, header=HEADER):
    lines = [header, *(" ".join(pair) for pair in merges)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def segmented(word, merges):
    """A plain reading of the original: the earliest pair is merged at all of its places."""
    symbols = [*word[:-1], word[-1] + "</w>"]
    while pairs := [pair for pair in merges if pair in zip(symbols, symbols[1:], strict=False)]:
        merged, rest = [], symbols
        while rest:
            size = 2 if tuple(rest[:2]) == pairs[0] else 1
            merged.append("".join(rest[:size]))
            rest = rest[size:]
        symbols = merged
    return [f"{symbol}@@" for symbol in symbols[:-1]] + [symbols[-1].removesuffix("</w>")]


@pytest.mark.parametrize("seed", range(20))
def test_words_have_the_tokens_of_the_original(seed, tmp_path):
    draw = random.Random(seed)
    merges = learnt_codes(draw, 40)
    words = ["".join(draw.choices(LETTERS + "x@", k=draw.randint(1, 12))) for _ in range(300)]
    tokens = list(dict.fromkeys(t for word in words for t in segmented(word, merges)))
    known = [*SPECIAL, *(token for token in tokens if draw.random() < 0.8)]
    ids = {token: token_id for token_id, token in enumerate(known)}
    found = codes_tokenizer(read_codes(write_codes(tmp_path / "x", merges)), ids, "<unk>")
    for word in words:
        expected = [ids.get(token, 0) for token in segmented(word, merges)]
        token_ids = [i if i < len(ids) else 0 for i in found.encode(word).ids]
        assert token_ids == expected, word
    text = " ".join(word for word in words if {*segmented(word, merges)} <= ids.keys())
    assert text
    assert found.decode(found.encode(text.replace(" ", " \x1f\n ")).ids) == text


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"#version: 0.1\na b\n", "does not begin with '#version: 0.2'"),
        (b"v3;false;false;false;Q\na b\n", "not those of pyonmttok"),
        (b"#version: 0.2\na\n", "line 2: 'a' is no pair of symbols"),
        (b"#version: 0.2\n\xff\xfe\n", "is not UTF-8"),
        (b"#version: 0.2\nab c\na b\n", "merge 1 has the symbol 'ab', which merge 2 makes"),
    ],
)
def test_files_that_cannot_give_the_same_tokens_are_refused(content, problem, tmp_path):
    path = tmp_path / "x.codes"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=problem):
        read_codes(path)


@pytest.mark.usefixtures("quiet_threads")
@pytest.mark.parametrize("names", [("bpe.codes",), ("source.codes", "target.codes")])
def test_a_checkpoint_is_imported_with_its_codes(names, tmp_path):
    pieces = ("a", "b@@", "b", "ab@@", "ab", "c@@", "c")
    source = write_checkpoint(tmp_path / "x", (*SPECIAL, *pieces), (*SPECIAL, *pieces))
    for name in names:
        write_codes(source / name, [("a", "b"), ("a", "b</w>")])
    bundle = import_(source, tmp_path / "bundles", "--max-tokens", "60", *ARGUMENTS)
    manifest = read_manifest(bundle)
    assert [file.path for file in manifest.provenance.imported_from.files][1:] == list(names)


def test_a_vocabulary_that_restricts_the_codes_is_refused(tmp_path, refusal):
    source = write_checkpoint(tmp_path / "x", src_subword_vocab="vocab.bpe")
    write_codes(source / "bpe.codes", [("a", "b")])
    message = refusal(source, *ARGUMENTS)
    assert "src_subword_vocab is 'vocab.bpe', which is not supported" in message
