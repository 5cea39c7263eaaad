"""Tokenizers of BPE codes, the files of ``subword-nmt`` (Sennrich et al., 2016).

A text is split at white space. Each word is split into symbols, first its characters, which the
codes then merge in their order. A symbol that does not end its word has the mark ``@@`` in the
vocabulary.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from attendant_export.importers.checkpoint import CheckpointError

SUFFIX = ".codes"
HEADER = "#version: 0.2"
MARK = "@@"
END = "</w>"
"""End of a symbol that ends a word, in the codes."""
WHITE_SPACE = r"[\s\x1c-\x1f]+"
"""The characters at which ``str.split`` of Python splits."""


def read_codes(path: Path) -> list[tuple[str, str]]:
    """The pairs of symbols of a file, in the order of their merges; raises CheckpointError."""
    try:
        first, *lines = path.read_bytes().decode("utf-8").rstrip("\r\n").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8: {error}") from error
    if first.strip() != HEADER:
        raise CheckpointError(
            f"{path} does not begin with {HEADER!r}: only codes of subword-nmt from version 0.2 on "
            "are read, not those of pyonmttok"
        )
    pairs: dict[tuple[str, str], None] = {}  # Of a pair that is given twice, the first one counts.
    for number, line in enumerate(lines, 2):
        symbols = line.strip("\r\n ").split(" ")
        if len(symbols) != 2 or not all(symbols):
            raise CheckpointError(f"{path}, line {number}: {line!r} is no pair of symbols")
        pairs.setdefault((symbols[0], symbols[1]))
    merges = list(pairs)
    _check_order(path, merges)
    return merges


def codes_tokenizer(
    merges: Sequence[tuple[str, str]], ids: Mapping[str, int], unk: str
) -> Tokenizer:
    """The tokenizer of a vocabulary with these ``ids``, which gives the tokens of the original.

    A symbol that the vocabulary lacks has an id beyond it, which stands for ``unk``.
    """
    vocabulary: dict[str, int] = {unk: ids[unk]}
    next_id = max(ids.values()) + 1
    for symbol in _symbols(merges, ids):
        token_id = ids.get(_token(symbol), next_id)
        next_id += token_id == next_id
        vocabulary.setdefault(symbol, token_id)
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=list(merges), unk_token=unk, end_of_word_suffix=END)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WHITE_SPACE), "removed")
    tokenizer.decoder = decoders.BPEDecoder(suffix=END)
    return tokenizer


def _symbols(merges: Iterable[tuple[str, str]], ids: Iterable[str]) -> Iterator[str]:
    """The symbols of merges, and those of single characters in a vocabulary."""
    for first, second in merges:
        yield from (first, second, first + second)
    for token in ids:
        if len(token) == 1:
            yield token + END
        elif len(token) == 1 + len(MARK) and token.endswith(MARK):
            yield token.removesuffix(MARK)


def _token(symbol: str) -> str:
    """The token that stands for a symbol in the vocabulary."""
    return symbol.removesuffix(END) if symbol.endswith(END) else symbol + MARK


def _check_order(path: Path, merges: Sequence[tuple[str, str]]) -> None:
    """Raise CheckpointError if a symbol is merged further before the last merge that makes it.

    The original merges all places of a pair before it looks for the next pair, and the bundle's
    tokenizer one place after the other. With this order, both give the same symbols.
    """
    made = {first + second: rank for rank, (first, second) in enumerate(merges)}
    for rank, pair in enumerate(merges):
        for symbol in pair:
            if made.get(symbol, -1) > rank:
                raise CheckpointError(
                    f"{path}: merge {rank + 1} has the symbol {symbol!r}, which merge "
                    f"{made[symbol] + 1} makes, and this order is not supported"
                )
