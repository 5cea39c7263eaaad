"""Tiny SentencePiece models, written byte by byte, and a plain reading of them.

The reading follows the text of SentencePiece's documentation: normalize by the longest rules, mark
spaces, then take the likeliest pieces. It shares no code with the importer.
"""

import math
import struct
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

SPACE = "\u2581"
MAX_PIECE = 6
TINY_RULES = {
    "\t": " ",
    "\n": " ",
    "\u00a0": " ",
    "\u200b": "",
    "\u00a8": " \u0308",
    "\u2026": "...",
    "\ufb01": "fi",
    "\uff21": "A",
    "e\u0301": "\u00e9",
    "A\u0300": "\u00c0",
    "\uff21\u0300": "\u00c0",
    "o\u0302": "\u00f4",
    "o\u0302\u0301": "\u1ed1",
    "\u00f4\u0301": "\u1ed1",
    "\uff76": "\u30ab",
    "\uff9e": "\u3099",
    "\uff76\uff9e": "\u30ac",
    "\u30ab\u3099": "\u30ac",
}
"""A few rules of NFKC, among them strings of which a part is another rule."""
RULES = TINY_RULES | {
    chr(code): composed
    for code in range(0x30000)
    if (composed := unicodedata.normalize("NFC", chr(code))) != chr(code)
}
"""Also the characters that NFC changes by themselves."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPECIAL = (("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL))


@dataclass(frozen=True)
class Pieces:
    """The pieces of a model with their scores and rules."""

    scores: Mapping[str, float]
    rules: Mapping[str, str]

    def tokens(self, text: str) -> list[str]:
        """The pieces of a text. Runs of unknown characters are joined."""
        return _joined(_likeliest(_normalized(text, self.rules), self.scores), self.scores)


def frequent_pieces(
    texts: Sequence[str], vocab_size: int, rules: Mapping[str, str] = RULES
) -> Pieces:
    """The parts of words that cover most of some texts, with scores rounded as in a file.

    They are always the same, unlike those that the trainer of ``tokenizers`` finds.
    """
    counts = Counter(
        word[start:end]
        for text in texts
        for word in (SPACE + part for part in text.split())
        for start in range(len(word))
        for end in range(start + 1, min(start + MAX_PIECE, len(word)) + 1)
    )
    ordered = sorted(counts, key=lambda piece: (-counts[piece] * len(piece), piece))[:vocab_size]
    scores = {piece: _as_float(-2 - math.log(2 + i)) for i, piece in enumerate(ordered)}
    missing = sorted({c for piece in scores for c in piece} - scores.keys())
    scores |= dict.fromkeys(missing, _as_float(-15.0))
    return Pieces(scores, rules)


def write_sentencepiece(
    path: Path,
    pieces: Pieces,
    kind: int = NORMAL,
    trainer: bytes = b"",
    normalizer: bytes = b"",
    special: Sequence[tuple[str, float, int]] = SPECIAL,
) -> Path:
    """Write a model. ``kind`` is the type of the last piece; the bytes are appended options.

    ``special`` are the first pieces, with their scores and types.
    """
    normal = [(piece, score, NORMAL) for piece, score in pieces.scores.items()]
    normal[-1] = (*normal[-1][:2], kind)
    content = b"".join(_message(1, _piece(*each)) for each in [*special, *normal])
    content += _message(2, _number(3, 1) + trainer)
    if pieces.rules:
        normalizer = _message(2, precompiled(pieces.rules)) + normalizer
    path.write_bytes(content + _message(3, _message(1, b"tiny") + normalizer))
    return path


def option(number: int, value: int) -> bytes:
    """An option of a model's trainer or normalizer."""
    return _number(number, value)


def precompiled(rules: Mapping[str, str]) -> bytes:
    """A character map: a double-array trie of the strings, and their replacements."""
    return _precompiled(tuple(rules.items()))


@cache
def _precompiled(rules: tuple[tuple[str, str], ...]) -> bytes:
    texts, starts = b"", {}
    for key, text in rules:
        starts[key.encode()] = len(texts)
        texts += text.encode() + b"\0"
    trie = _Trie(starts)
    array = struct.pack(f"<{len(trie.units)}I", *trie.units)
    return struct.pack("<I", len(array)) + array + texts


class _Trie:
    """A double-array trie, filled by taking the first places that fit."""

    def __init__(self, values: Mapping[bytes, int]) -> None:
        self.units, self._bases, self._values = [0], {0}, values
        self._place(0, list(values), 0)
        self.units.extend([0] * (-len(self.units) % 256))  # any byte can be looked up

    def _place(self, position: int, keys: Sequence[bytes], depth: int) -> None:
        """Write the children of the node at ``position``, whose keys are equal up to ``depth``."""
        following: dict[int, list[bytes]] = {}
        for key in keys:
            following.setdefault(key[depth] if len(key) > depth else 0, []).append(key)
        base = next(b for b in count() if self._fits(b, following))
        self._bases.add(base)
        self.units[position] |= (position ^ base) << 10
        for label in following:
            self.units[base ^ label] = label or (1 << 31)  # keeps the place
        for label, rest in following.items():
            if label:
                self._place(base ^ label, rest, depth + 1)
            else:
                self.units[position] |= 1 << 8
                self.units[base] |= self._values[rest[0]]

    def _fits(self, base: int, labels: Iterable[int]) -> bool:
        places = [base ^ label for label in labels]
        return base not in self._bases and 0 not in places and not any(map(self._unit, places))

    def _unit(self, position: int) -> int:
        self.units.extend([0] * (position + 1 - len(self.units)))
        return self.units[position]


def _piece(text: str, score: float, kind: int) -> bytes:
    return _message(1, text.encode()) + b"\x15" + struct.pack("<f", score) + _number(3, kind)


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _as_float(value: float) -> float:
    found: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return found


def _normalized(text: str, rules: Mapping[str, str]) -> str:
    found, longest = "", max(map(len, rules), default=1)
    while text:
        size = next((n for n in range(longest, 0, -1) if text[:n] in rules), 0)
        found, text = found + (rules[text[:size]] if size else text[0]), text[size or 1 :]
    words = " ".join(word for word in found.split(" ") if word)
    return (SPACE + words.replace(" ", SPACE)).rstrip(SPACE)


def _likeliest(text: str, scores: Mapping[str, float]) -> list[str]:
    unknown, longest = min(scores.values()) - 10, max(map(len, scores))
    best: list[tuple[float, int]] = [(0.0, 0)] + [(-math.inf, 0)] * len(text)
    for start in range(len(text)):
        for end in range(start + 1, min(len(text), start + longest) + 1):
            piece = text[start:end]
            score = scores.get(piece, unknown if end == start + 1 else -math.inf)
            if best[start][0] + score > best[end][0]:
                best[end] = (best[start][0] + score, start)
    pieces, end = [], len(text)
    while end:
        start = best[end][1]
        pieces.append(text[start:end])
        end = start
    return pieces[::-1]


def _joined(pieces: Sequence[str], scores: Mapping[str, float]) -> list[str]:
    joined: list[str] = []
    for i, piece in enumerate(pieces):
        if i and piece not in scores and pieces[i - 1] not in scores:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined
