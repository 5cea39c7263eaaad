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
