"""Tokenizers of published SentencePiece models give the ids of their original implementation."""

import json
import os
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.marian_tokenizer import VOCABULARY
from attendant_export.importers.sentencepiece_model import read_sentencepiece
from attendant_export.importers.sentencepiece_tokenizer import Vocabulary, sentencepiece_tokenizer
from attendant_server.tokenizer import TextTokenizer

from tests.real.downloads import ENGLISH_PORTUGUESE, PORTUGUESE_ENGLISH

pytestmark = pytest.mark.real

FOLDER = "REAL_TOKENIZERS"
"""The environment variable that names a folder: ``opus/*`` are checkpoints of MarianMT without
weights, and ``spm/*.model`` are unigram models."""
NUM_RANDOM = 6000
MAX_CHARACTERS = 10_000
"""Limit for pieces whose sums of scores tie: SentencePiece adds them in single precision."""
EMOJI = (
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f44d\U0001f3ff",
    "\U0001f1e9\U0001f1ea",
    "\u2764\ufe0f",
    "1\ufe0f\u20e3",
    "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
)
RIGHT_TO_LEFT = (
    "\u05e9\u05c1\u05dc\u05d5\u05dd",
    "\u0645\u0631\u062d\u0628\u0627 \u200f(abc)\u200e",
)
WORDS = ("Le", "train", "est", "en", "retard", ",", ".", "maha", "the", "of", "l'eau", "3,14", "%")


def strings() -> Iterator[str]:
    """More than 20,000 strings: every block of Unicode, and mixtures with words."""
    yield from ("", " ", "  a  ", "\u2581", "\u2581\u2581a", "\n\t\r", "</s>", "<pad> <unk>")
    yield from (*EMOJI, *RIGHT_TO_LEFT, "x" * 20_000, "donaudampfschiff" * 500, "\u4e00" * 3000)
    yield from (f"{a}{b} {c}" for a in EMOJI for b in WORDS for c in EMOJI)
    yield from (chr(code) for code in range(0x3000) if _is_text(chr(code)))
    yield from (f"a{chr(code)}b" for code in range(0x2E80, 0x30000, 37) if _is_text(chr(code)))
    draw = random.Random(5)
    marks = [chr(code) for code in range(0x300, 0x370)]
    blocks = [range(start, start + 256) for start in range(0, 0x20000, 256)]
    for _ in range(NUM_RANDOM):
        block = draw.choice(blocks)
        characters = [chr(draw.choice(block)) for _ in range(draw.randint(1, 12))]
        characters += [draw.choice((*WORDS, *EMOJI, " ", "  ")) for _ in range(draw.randint(0, 6))]
        characters += draw.choices(marks, k=draw.randint(0, 2))
        draw.shuffle(characters)
        text = draw.choice(("", " ")).join(characters)
        if all(map(_is_text, text)):
            yield text


def _is_text(character: str) -> bool:
    """Whether a character is neither half of a surrogate pair nor a noncharacter."""
    code = ord(character)
    return unicodedata.category(character) != "Cs" and not (
        0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE or 0xFFF0 <= code <= 0xFFF1
    )


def folders(pattern: str) -> list[Path]:
    folder = os.environ.get(FOLDER)
    return sorted(Path(folder).glob(pattern)) if folder else []


def server_ids(
    path: Path, vocabulary: Vocabulary, text_ids: Iterator[tuple[str, list[int]]]
) -> int:
    """Compare with a bundle's tokenizer as the server uses it; returns the number of texts."""
    made = sentencepiece_tokenizer(read_sentencepiece(path), vocabulary)
    unk_id = vocabulary.ids[vocabulary.unk]
    tokenizer = TextTokenizer(made.to_str(), vocab_size=len(vocabulary.ids), unk_id=unk_id)
    number, different = 0, []
    for text, expected in text_ids:
        number += 1
        if tokenizer.encode(text).token_ids != expected:
            different.append(text)
    assert not different, f"{len(different)} of {number}: {ascii(different[:5])}"
    return number


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("folder", folders("opus/*"), ids=lambda folder: folder.name)
def test_ids_are_those_of_the_tokenizer_of_marian(folder, side):
    transformers = pytest.importorskip("transformers")
    original = transformers.MarianTokenizer.from_pretrained(folder)
    ids = json.loads((folder / VOCABULARY).read_text())
    vocabulary = Vocabulary(ids, unk="<unk>", eos="</s>", pad="<pad>")
    codes = vocabulary.codes[:3]

    def expected() -> Iterator[tuple[str, list[int]]]:
        for text in (*strings(), *(f"{code} a{code}" for code in codes), ">>xyz<< a"):
            # The original reads these in a text as special tokens, the server as plain text.
            if not any(token in text for token in ("</s>", "<pad>", "<unk>")):
                argument = "text" if side == "source" else "text_target"
                yield text, original(**{argument: text})["input_ids"]

    assert server_ids(folder / f"{side}.spm", vocabulary, expected()) > 20_000


@pytest.mark.parametrize(
    "student", [ENGLISH_PORTUGUESE, PORTUGUESE_ENGLISH], ids=lambda student: student.name
)
def test_ids_of_a_vocabulary_of_marian_are_those_of_sentencepiece(student):
    library = pytest.importorskip("sentencepiece")
    (path,) = student.fetch().glob("*.spm")
    processor = library.SentencePieceProcessor(model_file=str(path))
    ids = {piece: i for i, piece in enumerate((*read_sentencepiece(path).pieces, "<pad>"))}
    vocabulary = Vocabulary(ids, unk="<unk>", eos="</s>", pad="<pad>", has_codes=False)
    texts = [text for text in strings() if len(text) < MAX_CHARACTERS]
    texts += [">>fra<< a", ">> a <<", ">>x<<"]
    expected = ((text, [*processor.encode(text), ids["</s>"]]) for text in texts)
    assert server_ids(path, vocabulary, expected) > 20_000


@pytest.mark.parametrize("path", folders("spm/*.model"), ids=lambda path: path.name)
def test_ids_are_those_of_sentencepiece(path):
    library = pytest.importorskip("sentencepiece")
    try:
        read_sentencepiece(path)
    except CheckpointError as refusal:
        pytest.skip(str(refusal))
    processor = library.SentencePieceProcessor(model_file=str(path))
    ids = {processor.id_to_piece(i): i for i in range(len(processor))}
    vocabulary = Vocabulary({**ids, "<pad>": len(ids)}, unk="<unk>", eos="</s>", pad="<pad>")
    expected = ((text, [*processor.encode(text), ids["</s>"]]) for text in strings())
    assert server_ids(path, vocabulary, expected) > 20_000


def test_published_tokenizers_are_at_hand():
    if not folders("opus/*"):
        pytest.skip(f"NOT CHECKED: {FOLDER} names no folder of published tokenizers")
