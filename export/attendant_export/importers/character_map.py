"""Precompiled character maps of SentencePiece models, as normalizers of the ``tokenizers`` library.

A character map is a set of rules: strings to replace, the longest match first. The library's own
normalizer for these maps looks at grapheme clusters, and drops or keeps combining characters that
SentencePiece does not. Here marks separate all characters that clusters join. Then that normalizer
sees single characters only, and NFC composes the characters of each match.
"""

import struct
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from tokenizers import Regex, normalizers
from tokenizers.normalizers import Normalizer

BETWEEN_MATCHES, WITHIN_MATCH = "\ufff0", "\ufff1"
"""Marks between characters: unassigned code points, which clusters do not join to a neighbour."""

JAMO = "\\x{1161}-\\x{1175}\\x{11a8}-\\x{11c2}"
"""Vowels and final consonants of Korean, which NFC joins to a syllable."""
_SEPARATOR = "\ufdd0"
"""A noncharacter between texts that are normalized together."""
_BLOCK_TEXTS = 4096
"""Number of characters that are checked together: each one takes the library much memory."""
_IS_LEAF, _HAS_LEAF = 1 << 31, 1 << 8

Trie = dict[str, Any]
"""Nested by character; the key "" marks the end of a string."""


def read_rules(character_map: bytes) -> dict[str, str]:
    """The replacement of each string that a map replaces. Raises ValueError for a damaged map."""
    try:
        (size,) = struct.unpack_from("<I", character_map)
        units = struct.unpack_from(f"<{size // 4}I", character_map, 4)
        replacements = character_map[4 + size :]
        return {
            key.decode(): replacements[start : replacements.index(0, start)].decode()
            for key, start in _entries(units)
        }
    except (struct.error, ValueError, IndexError) as error:
        raise ValueError(f"its character map is damaged: {error}") from error


def _entries(units: tuple[int, ...]) -> Iterator[tuple[bytes, int]]:
    """Keys and values of a double-array trie (Darts-clone)."""
    children = defaultdict[int, list[int]](list)
    for position, unit in enumerate(units):
        if not unit & _IS_LEAF and unit & 0xFF:
            children[position ^ (unit & 0xFF)].append(position)
    waiting = [(0, b"")]
    while waiting:
        position, key = waiting.pop()
        unit = units[position]
        base = position ^ (unit >> 10 << ((unit & (1 << 9)) >> 6))
        if base | 0xFF >= len(units):  # the library would look beyond the end
            raise ValueError("its trie is cut off")
        if unit & _HAS_LEAF and key:
            yield key, units[base] & ~_IS_LEAF
        waiting += [(child, key + bytes([units[child] & 0xFF])) for child in children[base]]


@cache
def map_normalizers(character_map: bytes) -> Sequence[Normalizer]:
    """Normalizers that together apply a map.

    Raises ValueError for a damaged map, and for one whose rules are not those of its single
    characters followed by NFC.
    """
    if not character_map:
        return []
    rules = read_rules(character_map)
    matches = [key for key in rules if len(key) > 1]
    joining, matcher = _joining_class(rules, matches), "|".join([*_branches(_trie(matches)), "."])
    ends = Regex(f"(?m)(?=.{joining})(?>{matcher})\\K")
    rest = Regex(f"(?m)(?<=[^{BETWEEN_MATCHES}])(?={joining})")
    steps = [
        normalizers.Replace(ends, BETWEEN_MATCHES),
        normalizers.Replace(rest, WITHIN_MATCH),
        normalizers.Precompiled(character_map),
        normalizers.Replace(WITHIN_MATCH, ""),
        *([normalizers.NFC()] if matches else []),
    ]
    last = normalizers.Replace(BETWEEN_MATCHES, "")
    # The library's NFC may lack characters of later versions of Unicode.
    lacking = _differences(matches, rules, normalizers.Sequence([*steps, last]))
    for key in sorted(lacking, key=len, reverse=True):
        steps.append(normalizers.Replace(lacking[key], rules[key]))
    steps.append(last)
    _check(rules, normalizers.Sequence(steps))
    return steps


def _joining_class(rules: Mapping[str, str], matches: Iterable[str]) -> str:
    """A class of the characters that a cluster, a match or NFC may join to the one before."""
    later = {character for match in matches for character in match[1:]}
    later |= {key for key, text in rules.items() if len(key) == 1 and _begins_with_mark(text)}
    return f"[\\p{{M}}\\p{{Grapheme_Extend}}\\x{{200d}}\\n{JAMO}{character_class(later)}]"


def _begins_with_mark(text: str) -> bool:
    return text != "" and unicodedata.category(text[0]).startswith("M")


def _trie(keys: Iterable[str]) -> Trie:
    root: Trie = {}
    for key in keys:
        node = root
        for character in key:
            node = node.setdefault(character, {})
        node[""] = {}
    return root


def _branches(node: Trie) -> list[str]:
    """Regular expressions that together match the strings of a trie, the longest first.

    Characters with equal continuations share a class.
    """
    by_rest = defaultdict[str, list[str]](list)
    for character, following in node.items():
        if character:
            by_rest[_rest(following)].append(character)
    return [f"[{character_class(first)}]{rest}" for rest, first in by_rest.items()]


def _rest(node: Trie) -> str:
    branches = _branches(node)
    if not branches:
        return ""
    return f"(?:{'|'.join(branches)})" + ("?" if "" in node else "")


def character_class(characters: Iterable[str]) -> str:
    """The content of a class of a regular expression, as ranges."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(
        _escaped(first) if first == last else f"{_escaped(first)}-{_escaped(last)}"
        for first, last in ranges
    )


def pattern_of(text: str) -> str:
    """A regular expression that matches a text."""
    return "".join(_escaped(ord(character)) for character in text)


def _escaped(code: int) -> str:
    return f"\\x{{{code:x}}}"


def _differences(
    texts: Sequence[str], rules: Mapping[str, str], normalizer: Normalizer
) -> dict[str, str]:
    """The texts that the normalizer does not map by the rules, each with its result."""
    if not texts:
        return {}
    found = normalizer.normalize_str(_SEPARATOR.join(texts)).split(_SEPARATOR)
    pairs = zip(texts, found, strict=True)
    return {text: result for text, result in pairs if result != rules.get(text, text)}


def _check(rules: Mapping[str, str], normalizer: Normalizer) -> None:
    """Raise ValueError unless the normalizer maps the string of every rule and all characters."""
    reserved = {BETWEEN_MATCHES, WITHIN_MATCH, _SEPARATOR}
    for first in range(0, sys.maxunicode + 1, _BLOCK_TEXTS):
        codes = range(first, first + _BLOCK_TEXTS)
        block = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
        _check_texts([text for text in block if text not in reserved], rules, normalizer)
    _check_texts(sorted(key for key in rules if len(key) > 1), rules, normalizer)


def _check_texts(texts: Sequence[str], rules: Mapping[str, str], normalizer: Normalizer) -> None:
    for text in _differences(texts, rules, normalizer):
        raise ValueError(
            f"its character map makes {rules.get(text, text)!a} of {text!a}, other than Unicode "
            "normalization does, which is not supported"
        )
