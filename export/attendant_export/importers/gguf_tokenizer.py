"""Tokenizers inside GGUF files: byte-level BPE, and SentencePiece BPE with bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from attendant_export.importers.checkpoint import CheckpointError, Config
from attendant_export.importers.sentencepiece_bytes import BytePieces, byte_bpe_tokenizer
from attendant_export.importers.sentencepiece_model import CONTROL, UNKNOWN, USER_DEFINED

T = TypeVar("T")
PREFIX = "tokenizer.ggml"
BYTE_LEVEL, PIECES = "gpt2", "llama"
LLAMA_3 = "llama-bpe"
LLAMA_3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 splits texts into words."""


def gguf_tokenizer(path: Path, config: Config) -> Tokenizer:
    """The tokenizer of a file with these metadata, which adds no special tokens.

    Raises CheckpointError.
    """
    kind = config.choice(f"{PREFIX}.model", {BYTE_LEVEL: BYTE_LEVEL, PIECES: PIECES})
    config.require(**{f"{PREFIX}.add_eos_token": False, f"{PREFIX}.add_sep_token": False})
    texts = _list(config, "tokens", str)
    types = _list(config, "token_type", int, len(texts))
    if kind == BYTE_LEVEL:
        return _byte_level(config, texts, types)
    pieces = BytePieces(
        title=str(path),
        texts=texts,
        scores=_list(config, "scores", float, len(texts)),
        types=types,
        start_id=start_id(config),
        adds_space=config.flag(f"{PREFIX}.add_space_prefix", default=True),
    )
    return byte_bpe_tokenizer(pieces)


def start_id(config: Config) -> int | None:
    """The token that is put before each text, None without such a token.

    By default, SentencePiece and Llama 3 have one.
    """
    is_piece = config.get(f"{PREFIX}.model") == PIECES
    is_default = is_piece or config.get(f"{PREFIX}.pre") == LLAMA_3
    if not config.flag(f"{PREFIX}.add_bos_token", default=is_default):
        return None
    return config.integer(f"{PREFIX}.bos_token_id", minimum=0)


def _byte_level(config: Config, texts: Sequence[str], types: Sequence[int]) -> Tokenizer:
    words, joins_known = config.choice(f"{PREFIX}.pre", _WORDS)
    merges = [tuple(each.split(" ", 1)) for each in _list(config, "merges", str)]
    if not all(len(each) == 2 for each in merges) or len(set(texts)) < len(texts):
        raise CheckpointError(f"{config.path}: a merge is no pair, or a token is given twice")
    try:
        model = models.BPE(
            {text: i for i, text in enumerate(texts)},
            [(each[0], each[1]) for each in merges],
            ignore_merges=joins_known,
        )
    except Exception as error:  # The library raises no narrower class.
        raise CheckpointError(f"{config.path}: {PREFIX}.merges: {error}") from error
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.ByteLevel()
    typed = list(zip(texts, types, strict=True))
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False) for text, kind in typed if kind in (UNKNOWN, CONTROL)]
    )
    tokenizer.add_tokens(
        [AddedToken(text, normalized=False) for text, kind in typed if kind == USER_DEFINED]
    )
    return tokenizer


def _list(config: Config, name: str, kind: type[T], count: int | None = None) -> list[T]:
    """A list of the metadata whose elements are of one type, ``count`` of them if it is given."""
    field = f"{PREFIX}.{name}"
    values = config.get(field)
    is_list = isinstance(values, list) and all(isinstance(each, kind) for each in values)
    if not is_list or (count is not None and len(values) != count):
        wanted = "a list" if count is None else f"a list of {count}"
        raise CheckpointError(f"{config.path}: {field} is missing or not {wanted} {kind.__name__}")
    return list(values)


_WORDS: Mapping[str, tuple[pre_tokenizers.PreTokenizer, bool]] = {
    "gpt-2": (pre_tokenizers.ByteLevel(add_prefix_space=False), False),
    "smollm": (
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        ),
        False,
    ),
    LLAMA_3: (
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(LLAMA_3_WORDS), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
        True,
    ),
}
"""How texts are split into words, and whether a word of the vocabulary is one token whatever its
merges are, by the name that a file states."""
