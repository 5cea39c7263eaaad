"""Tokenizers that blow a text up, or have tokens that the network lacks, are refused."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from attendant_server.tokenizer import TextTokenizer, TokenizerError

ROOT = Path(__file__).parents[2]
DEFINITION = json.loads(
    (ROOT / "tests/recorded/bundles/tiny-en-de/1/tokenizer.json").read_text("utf-8")
)


def replace(text: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": text}, "content": content}


def steps(*normalizers: dict[str, Any]) -> dict[str, Any]:
    return {"normalizer": {"type": "Sequence", "normalizers": list(normalizers)}}


def post_processor(ids: list[int], tokens: list[str]) -> dict[str, Any]:
    """Adds a special token after a text."""
    special = {"<x>": {"id": "<x>", "ids": ids, "tokens": tokens}}
    single = [
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<x>", "type_id": 0}},
    ]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}


def character_map(text: bytes) -> str:
    table = b"\0" * 4
    return base64.b64encode(len(table).to_bytes(4, "little") + table + text + b"\0").decode()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a long replacement": (
        {"normalizer": replace("§", "x" * 10_000)},
        "the normalizer has a replacement of 10000 characters",
    ),
    "a long prefix": (
        {"normalizer": {"type": "Prepend", "prepend": "x" * 65}},
        "the normalizer has a replacement of 65 characters",
    ),
    "a long replacement while decoding": (
        {"decoder": replace("a", "b" * 99)},
        "the decoder has a replacement of 99 characters",
    ),
    "a chain of short replacements": (
        steps(*(replace(a, b * 10) for a, b in zip("§¶¡", "¶¡¿", strict=True))),
        "the normalizer makes 100 characters of '§'",
    ),
    "a chain of very many replacements": (
        steps(*[replace("§", "§§")] * 60),
        "the normalizer makes 128 characters of '§'",
    ),
    "a chain in a chain": (
        steps(steps(replace("§", "¶" * 60))["normalizer"], replace("¶", "¡" * 60)),
        "the normalizer makes 3600 characters of '§'",
    ),
    "a replacement at every place": (
        steps(*[{"type": "Replace", "pattern": {"Regex": "(?=.)"}, "content": "xxxxxxxxx"}] * 3),
        "the normalizer makes 100 characters of ",
    ),
    "very many steps": (steps(*[{"type": "NFC"}] * 300), "has more than 256 steps"),
    "a long text in a character map": (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": character_map(b"x" * 500)}},
        "the normalizer has a replacement of 500 characters",
    ),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_tokenizer_that_blows_texts_up_is_refused(change: dict[str, Any], reason: str):
    with pytest.raises(TokenizerError) as error:
        TextTokenizer(json.dumps(DEFINITION | change))
    assert reason in str(error.value)


def test_a_token_of_enormous_length_is_refused():
    vocab = {"<unk>": 0, "a" * 3000: 1}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    definition = {"version": "1.0", "added_tokens": [], "model": model}
    with pytest.raises(TokenizerError, match="a token has 3000 characters, more than 2048"):
        TextTokenizer(json.dumps(definition))


@pytest.mark.parametrize("token_id", [2, 10**6])
def test_token_ids_beyond_the_network_are_refused_or_unknown(token_id: int):
    vocab = {"<unk>": 0, "dog": token_id}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    definition = json.dumps({"version": "1.0", "added_tokens": [], "model": model})
    with pytest.raises(TokenizerError, match=f"the token id {token_id}, but the network has 2"):
        TextTokenizer(definition, vocab_size=2)
    assert TextTokenizer(definition, vocab_size=2, unk_id=0).encode("dog").token_ids == [0]


FAULTS_IN_USE: dict[str, tuple[dict[str, Any], str]] = {
    "a pre-tokenizer that panics": (
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
        "PanicException: chunk size must be non-zero",
    ),
    "a post-processor that adds an id without a token": (
        {"post_processor": post_processor(ids=[0, 0], tokens=["<unk>"])},
        "the post-processor adds different numbers of ids and tokens",
    ),
    "a post-processor that adds an id that the network lacks": (
        {"post_processor": post_processor(ids=[7], tokens=["<unk>"])},
        "adds the token id 7, but the network has 2 tokens",
    ),
}


@pytest.mark.parametrize(("change", "reason"), FAULTS_IN_USE.values(), ids=FAULTS_IN_USE)
def test_a_tokenizer_that_fails_on_any_text_is_refused(change: dict[str, Any], reason: str):
    model = {"type": "WordLevel", "vocab": {"<unk>": 0, "dog": 1}, "unk_token": "<unk>"}
    definition = {"version": "1.0", "added_tokens": [], "model": model} | change
    with pytest.raises(TokenizerError, match=f"^{reason}$"):
        TextTokenizer(json.dumps(definition), vocab_size=2)


def test_a_decoder_that_panics_on_some_tokens_fails_with_an_error_of_our_own():
    model = {"type": "WordLevel", "vocab": {"<unk>": 0, ".": 1}, "unk_token": "<unk>"}
    decoder = {"type": "Strip", "content": ".", "start": 1, "stop": 1}
    definition = {"version": "1.0", "added_tokens": [], "model": model, "decoder": decoder}
    tokenizer = TextTokenizer(json.dumps(definition))
    for use in (tokenizer.decode, lambda ids: tokenizer.readable_token(*ids)):
        with pytest.raises(TokenizerError, match="PanicException: slice index"):
            use([1])


def test_a_reason_is_one_short_line_whatever_the_file_says():
    model = {"type": "Word\nLevel" * 1000, "vocab": {}}
    with pytest.raises(TokenizerError) as error:
        TextTokenizer(json.dumps({"version": "1.0", "model": model, "a\nb" * 500: {}}))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
