"""Random and mutated tokenizers are refused with the name of their file, or work on any text."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attendant_server.bundle_tokenizers import read_tokenizer
from attendant_server.bundles import Bundle, BundleError, read_bundle
from attendant_server.tokenizer import TextTokenizer, TokenizerError
from hypothesis import example, given
from hypothesis import strategies as st

from tests.server.test_fuzzing import changed, fuzz, json_values, mutated, paths_in
from tests.support.application import TINY_BUNDLES

MANIFEST = read_bundle(TINY_BUNDLES / "tiny-en-de" / "1", "fp32", "cpu").manifest
TOKENIZERS = {
    name: json.loads((TINY_BUNDLES / name / "1" / "tokenizer.json").read_text(encoding="utf-8"))
    for name in ("tiny-en-de", "tiny-bert")
}
TEXTS = ["", "The dog sees the king.", "\u0130\ufdfa\U0001f468\u200d\U0001f469 e\u0301", "a" * 300]
FEW_CHARACTERS = 64 * max(map(len, TEXTS)) + 1000
STEPS: list[dict[str, Any]] = [
    {"type": "Strip", "content": ".", "start": 1, "stop": 1},  # fails on a token of one character
    {"type": "Strip", "content": "T", "start": 2**31, "stop": 2**31},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Replace", "pattern": {"Regex": "(a|a)*b"}, "content": "x"},
    {"type": "Replace", "pattern": {"Regex": "("}, "content": "x"},
    {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 64},
    {"type": "Prepend", "prepend": ""},
    {"type": "Fuse"},
    {"type": "ByteFallback"},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": True},
    {"type": "BPEDecoder", "suffix": ""},
    {"type": "WordPiece", "prefix": "", "cleanup": True},
    {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
    {"type": "Split", "pattern": {"Regex": "()*"}, "behavior": "Isolated", "invert": True},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "FixedLength", "length": 0},
    {"type": "NFKD"},
]
PLACES = [
    (name, path)
    for name, tree in TOKENIZERS.items()
    for path in paths_in(tree)
    if path and (len(path) < 3 or path[1] not in ("vocab", "merges") or path[2] in ("a", 0))
]
"""Names of tokenizers, and paths to parts of them. Few of them are in the vocabulary."""
PARTS = ["normalizer", "pre_tokenizer", "post_processor", "decoder"]
steps = st.one_of(
    st.sampled_from(STEPS),
    st.lists(st.sampled_from(STEPS), max_size=3).flatmap(
        lambda chosen: st.sampled_from(
            [
                {"type": "Sequence", "normalizers": chosen},
                {"type": "Sequence", "pretokenizers": chosen},
                {"type": "Sequence", "decoders": chosen},
            ]
        )
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizer")


def use(tokenizer: TextTokenizer) -> None:
    """Do everything that requests do with a tokenizer."""
    for text in TEXTS:
        encoded = tokenizer.encode(text)
        tokens = list(encoded)
        assert sum(len(token.text) for token in tokens) <= FEW_CHARACTERS
        tokenizer.decode(encoded.token_ids)
        tokenizer.decode_words(encoded.token_ids)
        tokenizer.tokens(encoded.token_ids)
        for token_id in encoded.token_ids[:5]:
            tokenizer.readable_token(token_id)
    tokenizer.encode(TEXTS[1], TEXTS[2])
    tokenizer.is_plain(2**31)


def check(folder: Path, content: bytes) -> None:
    name = MANIFEST.source_tokenizer
    path = folder / name
    path.write_bytes(content)
    refusals = [f"{path}: "]  # and the message, if there is one
    try:
        tokenizer = read_tokenizer(Bundle(folder, MANIFEST, "fp32"), name)
    except BundleError as error:
        refusals.append(str(error))
    else:
        with suppress(TokenizerError):
            use(tokenizer)
    assert all(refusal.startswith(refusals[0]) and len(refusal) < 600 for refusal in refusals)


@fuzz
@given(content=mutated(json.dumps(TOKENIZERS["tiny-en-de"], ensure_ascii=False).encode()))
@example(content=b"[" * 100_000)
@example(content=b'{"model":' * 1000)
@example(content=b"\xff")
@example(content=b"")
@example(content=b"null")
def test_mutated_bytes_of_a_tokenizer_are_read_or_refused(folder: Path, content: bytes):
    check(folder, content)


@fuzz
@given(
    place=st.integers(0, len(PLACES) - 1),
    value=json_values | st.sampled_from([2**32, -1, 2**64, "a" * 3000, "\ufdd0"]),
)
def test_mutated_trees_of_a_tokenizer_are_read_or_refused(folder: Path, place: int, value: Any):
    name, path = PLACES[place]
    check(folder, json.dumps(changed(TOKENIZERS[name], path, value)).encode())


@fuzz
@given(name=st.sampled_from(list(TOKENIZERS)), parts=st.dictionaries(st.sampled_from(PARTS), steps))
@example(
    name="tiny-en-de",
    parts={
        part: {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        }
        for part in ("normalizer", "post_processor")
    },
)
def test_any_steps_of_a_tokenizer_are_read_or_refused(
    folder: Path, name: str, parts: dict[str, Any]
):
    check(folder, json.dumps(TOKENIZERS[name] | parts).encode())
