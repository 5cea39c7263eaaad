"""Training pairs in mapped files."""

from collections.abc import Sequence
from pathlib import Path

from attendant_export.data.pair_filters import NO_TEXT_FILTERS, LengthFilters
from attendant_export.data.pair_texts import open_texts
from attendant_export.data.pair_tokenizer import PairTokenizer
from attendant_export.data.pair_tokens import EncodedPairs, open_tokens
from attendant_export.data.translation_pairs import CHUNK_PAIRS, PairDataset
from tokenizers import Tokenizer


def encoded_pairs(
    folder: Path, pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, max_tokens: int = 128
) -> EncodedPairs:
    """``pairs``, written to a file and encoded in ``folder``."""
    path = folder / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    texts = open_texts(path, folder, False, NO_TEXT_FILTERS)
    filters = LengthFilters(max_tokens)
    return open_tokens(texts, PairTokenizer.of_run(tokenizer), folder, filters)


def pair_dataset(
    folder: Path,
    pairs: Sequence[tuple[str, str]],
    tokenizer: Tokenizer,
    max_tokens: int = 128,
    chunk_pairs: int = CHUNK_PAIRS,
) -> PairDataset:
    """A dataset of each of ``pairs`` once in an epoch."""
    part = encoded_pairs(folder, pairs, tokenizer, max_tokens)
    pair_tokenizer = PairTokenizer.of_run(tokenizer)
    return PairDataset([part], [len(part)], pair_tokenizer, max_tokens, chunk_pairs)
