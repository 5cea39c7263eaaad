"""Vocabularies with a token for each byte, which write the characters that they lack.

Depends on the ``tokenizers`` library, not on models.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, trainers
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""The tokens of the bytes, as SentencePiece writes them."""
COVERAGE = 0.9995
"""The share of the characters of the texts that get tokens of their own, the most frequent ones.

The others would fill a vocabulary with tokens that are hardly ever trained.
"""


def train_with_bytes(
    texts: Iterable[str],
    vocab_size: int,
    special: Sequence[str],
    unk: str,
    is_unigram: bool,
    normalizer: Normalizer,
    pre_tokenizer: PreTokenizer,
) -> Tokenizer:
    """Train a BPE or a unigram vocabulary that has the special tokens first, then the bytes.

    ``texts`` are read twice. Raises ValueError for a vocabulary without room for all characters.
    """
    alphabet = _alphabet(texts, normalizer) | set("".join((*special, *BYTES)))
    first = [*special, *BYTES]
    if vocab_size < len(first) + len(alphabet):
        raise ValueError(
            f"--vocab-size {vocab_size}: want at least {len(first) + len(alphabet)}, for "
            f"{len(first)} bytes and special tokens and {len(alphabet)} characters"
        )
    options: dict[str, Any] = {
        "vocab_size": vocab_size,
        "special_tokens": first,
        "initial_alphabet": sorted(alphabet),
        "show_progress": False,
    }
    tokenizer = Tokenizer(models.Unigram() if is_unigram else models.BPE(unk_token=unk))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Metaspace(), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer: Any = trainers.BpeTrainer(**options)
    if is_unigram:
        trainer = trainers.UnigramTrainer(**options, unk_token=unk)
    rare = re.compile(f"[^{re.escape(''.join(sorted(alphabet)))}]")
    known = (rare.sub(" ", normalizer.normalize_str(text)) for text in texts)
    tokenizer.train_from_iterator(known, trainer)
    return _with_byte_fallback(tokenizer, len(first))


def _alphabet(texts: Iterable[str], normalizer: Normalizer) -> set[str]:
    """The most frequent characters, which have the share `COVERAGE` of all."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    missing = counts.total() * COVERAGE
    chosen = set[str]()
    for character, count in counts.most_common():
        if missing <= 0:
            break
        chosen.add(character)
        missing -= count
    return chosen - {" "}


def _with_byte_fallback(tokenizer: Tokenizer, num_first: int) -> Tokenizer:
    """The tokenizer with byte fallback, whose first tokens match no text.

    Bytes are given to the trainer as special tokens, but decoders leave out special tokens.
    """
    content = json.loads(tokenizer.to_str())
    added = content["added_tokens"]
    content["added_tokens"] = [token for token in added if token["content"] not in BYTES]
    model = content["model"]
    model["byte_fallback"] = True
    if model["type"] == "Unigram":
        pieces = model["vocab"]
        # Less than the score of the single characters of any of these tokens.
        longest = max(len(piece) for piece, _ in pieces)
        never = (min(score for _, score in pieces) - 1) * (longest + 1)
        model["vocab"] = [
            [piece, never if i < num_first else score] for i, (piece, score) in enumerate(pieces)
        ]
    changed: Tokenizer = Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
    return changed
